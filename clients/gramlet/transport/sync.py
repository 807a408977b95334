"""The synchronous half of the transport: the twin of `gramlet.transport.aio`, with the same names."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, Self, TypeVar, cast
from weakref import WeakSet

import grpc

from gramlet.errors import FailedPrecondition, GramletError, Unavailable
from gramlet.inputs.values import read_each
from gramlet.transport.channel import Endpoint, Metadata
from gramlet.transport.connection import (
    EVENTS,
    LOOK_SECONDS,
    Alone,
    Attempts,
    BaseConnection,
    CallContext,
    OfOneProcess,
)
from gramlet.transport.ending import Reads, calls_under_way, silent
from gramlet.transport.failures import FailedCall, answers
from gramlet.transport.health import CHECK, encode_check
from gramlet.transport.rpc import FINISH_SECONDS, LAST_REPLIES, SILENCE_SECONDS, Kind, Message, Rpc

P = ParamSpec("P")
T = TypeVar("T")
_END: Any = object()


def blocking(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Calls a function that reads files."""
    return function(*arguments, **options)


def gather(*results: T) -> tuple[T, ...]:
    """The results of several calls, which were made one after the other."""
    return results


def iter_of(values: Iterable[T], field: str) -> Iterator[T]:
    """The caller's values one by one; InvalidInput with the field if they cannot be read."""
    return read_each(values, field)


class one_reader(OfOneProcess, Generator[T, None, None]):  # a class, but used like a decorator of generators
    """The values of a generator, for one reader at a time. A second one is refused."""

    def __init__(self, values: Generator[T, None, None]) -> None:
        self._values = values
        self._alone = Alone(EVENTS)
        self._called = CallContext()

    def send(self, value: None) -> T:
        """The next value."""
        with self._alone, self._called.restored():
            return self._values.send(value)

    def throw(self, *error: Any) -> T:
        """Raises an exception where the generator waits."""
        with self._alone, self._called.restored():
            return self._values.throw(*error)

    def close(self) -> None:
        """Ends the generator."""
        with self._alone, self._called.restored():
            self._values.close()


class Connection(BaseConnection):
    """A channel through which every RPC of a client goes. A process that was forked gets a channel of its own.

    Attributes:
        reads: Gives up those of which the server is silent.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._closed = threading.Event()
        self._of_parents: list[grpc.Channel] = []
        self._open_channel()

    def _open_channel(self) -> None:
        self._process = os.getpid()
        self._channel = self._target.open()
        self._stubs = {}
        self._streams: WeakSet[Stream] = WeakSet()
        self._lock = threading.Lock()
        self.reads = Reads()

    @property
    def channel(self) -> grpc.Channel:
        """The channel.

        Raises:
            FailedPrecondition: The connection is closed.
        """
        self.check_open()
        self._leave_parent()
        return self._channel

    def _leave_parent(self) -> None:
        """After a fork, leaves the channel to the parent: its threads are not in this process, and calls would hang."""
        if self._process != os.getpid():
            self._of_parents.append(self._channel)  # not even to be collected: that would close it
            self._open_channel()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def close(self) -> None:
        """Ends every call and closes the channel."""
        self._leave_parent()
        with self._lock:
            self._closed.set()
            streams = list(self._streams)
        # gRPC crashes when a stream is read after its channel was closed, but not when it was canceled before.
        for stream in streams:
            stream.close()
        self._channel.close()

    def pause(self, seconds: float) -> None:
        """Waits, unless the connection is closed."""
        if self._looks_for_servers:
            with self._target.unwatched.open() as channel:
                self._contact.made = self._answers(channel)
        self._closed.wait(seconds)

    @staticmethod
    def _answers(channel: grpc.Channel) -> bool:
        try:
            CHECK.of(channel)(encode_check(""), timeout=LOOK_SECONDS)
        except grpc.RpcError as failed:
            return answers(cast(FailedCall, failed))
        return True

    def unary(self, rpc: Rpc, request: Message, attempts: Attempts, metadata: Metadata = ()) -> Message:
        """Calls until the call succeeds, or the attempts are used up.

        Raises:
            GramletError: The last failure.
        """
        while True:
            try:
                with self.translating(rpc):
                    reply = self._method(rpc)(
                        request, timeout=attempts.remaining(rpc.silence), metadata=self._metadata(metadata)
                    )
            except GramletError as error:
                self.pause(attempts.delay_after(error))
            else:
                attempts.answered()
                return reply

    def open(self, rpc: Rpc, request: Message, attempts: Attempts) -> Stream:
        """Starts a call of many messages with its first request."""
        self._leave_parent()
        requests = Requests(request) if rpc.kind is Kind.STREAM else None
        with self._lock, self.translating(rpc):
            call = self._method(rpc)(requests or request, timeout=attempts.remaining(), metadata=self._metadata())
            stream = Stream(self, rpc, call, requests)
            self._streams.add(stream)
        calls_under_way.add(call, partial(_close, call, requests))
        return stream

    @contextmanager
    def translating(self, rpc: Rpc) -> Iterator[None]:
        """Turns what gRPC raises into the errors of `gramlet.errors`."""
        self.check_open()
        try:
            yield
        except grpc.RpcError as failed:
            raise self._failure(failed, rpc) from None
        except ValueError:
            self.check_open()  # gRPC raises a ValueError when another thread has closed the channel meanwhile
            raise


class Requests(Iterator[Message]):
    """Messages on their way out. gRPC takes them in a thread of its own, which `end` releases.

    Attributes:
        failure: Why a message could not be made; the call was canceled then.
    """

    def __init__(self, first: Message) -> None:
        self._waiting: SimpleQueue[Callable[[], Message] | None] = SimpleQueue()
        self.put(lambda: first)
        self._is_served = False
        self.failure: Exception | None = None
        self.cancel: Callable[[], Any] = lambda: None

    def put(self, make: Callable[[], Message]) -> None:
        """Sends a message that is made when gRPC has sent those before it."""
        self._waiting.put(make)

    def end(self) -> None:
        """No more messages will come."""
        self._waiting.put(None)

    def __next__(self) -> Message:
        if not self._is_served:
            self._is_served = True
            calls_under_way.served_by_this_thread()
        make = self._waiting.get()
        if make is None:
            raise StopIteration
        try:
            return make()
        except Exception as error:
            self.failure = error  # gRPC would log it and forget it
            self.cancel()
            raise StopIteration from None


class Stream:
    """One call of many messages, on one connection. Leaving its `with` block cancels it, if it has not ended."""

    def __init__(self, connection: Connection, rpc: Rpc, call: Any, requests: Requests | None) -> None:
        self._connection = connection
        self._rpc = rpc
        self._call = call
        self._requests = requests
        self._process = os.getpid()
        self._silence = SILENCE_SECONDS
        if requests is not None:
            requests.cancel = call.cancel

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: Message) -> None:
        """Sends a message. Failures show at the next `receive`."""
        if self._requests is not None:
            self._requests.put(lambda: message)

    def upload(self, messages: Iterable[Callable[[], Message]]) -> None:
        """Sends the last messages in the background. Each is made when its turn has come, so that many need no memory.

        What making one raises is raised by the next `receive`.
        """
        if self._requests is not None:
            for make in messages:
                self._requests.put(make)
            self._requests.end()

    def receive(self) -> Message:
        """Waits for the next reply.

        Raises:
            GramletError: The call failed.
            Unavailable: The server ended the call although replies were due.
        """
        reply = self._read()
        if reply is _END:
            raise Unavailable("the server ended the call early")
        return reply

    def remaining(self) -> Iterator[Message]:
        """Every further reply, until the server ends the call.

        Raises:
            GramletError: The call failed.
        """
        while (reply := self._read()) is not _END:
            yield reply

    def finish(self) -> None:
        """Lets the server end the call in order, when all replies are there."""
        if self._requests is not None:
            self._requests.end()
        self._silence = FINISH_SECONDS
        with suppress(GramletError):
            for _ in range(LAST_REPLIES):
                if self._read() is _END:
                    break

    def close(self) -> None:
        """Cancels the call, if it has not ended and is of this process."""
        if self._process == os.getpid():
            _close(self._call, self._requests)

    def _read(self) -> Message:
        if self._process != os.getpid():
            raise FailedPrecondition(f"this call belongs to process {self._process}: make it again in this one")
        with self._connection.reads.limited(self._silence, self._call.cancel) as read:
            try:
                with self._connection.translating(self._rpc):
                    reply = next(self._call, _END)
            except GramletError:
                calls_under_way.hold_daemon()
                if self._requests is not None and self._requests.failure is not None:
                    raise self._requests.failure from None
                if read.is_late:
                    raise silent(self._connection.address, self._silence) from None
                raise
        self._silence = min(self._silence, self._rpc.silence)
        return reply


def _close(call: Any, requests: Requests | None) -> None:
    if requests is not None:
        requests.end()
    call.cancel()
