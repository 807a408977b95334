"""The asyncio half of the transport: the twin of `gramlet.transport.sync`, with the same names."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import contextmanager, suppress
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast
from weakref import WeakSet

import grpc
import grpc.aio

from gramlet.errors import Cancelled, FailedPrecondition, GramletError, Unavailable
from gramlet.inputs.values import read_each, unreadable
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
from gramlet.transport.ending import silent
from gramlet.transport.failures import FailedCall, answers
from gramlet.transport.health import CHECK, encode_check
from gramlet.transport.rpc import FINISH_SECONDS, LAST_REPLIES, SILENCE_SECONDS, Kind, Message, Rpc

P = ParamSpec("P")
T = TypeVar("T")
_END: Any = object()


class blocking(Awaitable[T]):  # a class, but used like the function that it is in the twin
    """Calls a function that reads files, in a thread, when it is awaited: the event loop goes on meanwhile."""

    def __init__(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> None:
        self._call = lambda: function(*arguments, **options)

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.to_thread(self._call).__await__()


async def gather(*calls: Awaitable[T]) -> list[T]:
    """The results of several calls, which are made at once."""
    return await asyncio.gather(*calls)


class aiter_of(AsyncIterator[T], Generic[T]):  # a class, but used like the function that it is in the twin
    """The caller's values one by one; InvalidInput with the field if they cannot be read.

    They may come asynchronously; an iterator may read files, and runs in a thread.
    """

    def __init__(self, values: Iterable[T] | AsyncIterable[T] | Awaitable[Iterable[T]], field: str) -> None:
        self._values = values
        self._field = field
        self._iterator: Iterator[T] | AsyncIterator[T] | None = None
        self._in_memory = False

    async def __anext__(self) -> T:
        if self._iterator is None:
            values = await self._values if isinstance(self._values, Awaitable) else self._values
            self._iterator = aiter(values) if isinstance(values, AsyncIterable) else read_each(values, self._field)
            self._in_memory = isinstance(values, list | tuple)
        if isinstance(self._iterator, AsyncIterator):
            try:
                return await anext(self._iterator)
            except (StopAsyncIteration, GramletError):
                raise
            except Exception as error:
                raise unreadable(error, self._field) from error
        if self._in_memory:
            value = next(self._iterator, _END)
        else:
            value = await asyncio.to_thread(next, self._iterator, _END)
        if value is _END:
            raise StopAsyncIteration
        return cast(T, value)


class one_reader(OfOneProcess, AsyncGenerator[T, None]):  # a class, but used like a decorator of generators
    """The values of a generator, for one reader at a time, in one event loop. Another one is refused.

    When an event loop ends, it closes its generators: in the next one they would seem to have come to their end.
    """

    def __init__(self, values: AsyncGenerator[T, None]) -> None:
        self._values = values
        self._alone = Alone(EVENTS)
        self._called = CallContext()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def asend(self, value: None) -> T:
        """The next value."""
        with self._in_one_loop():
            return await self._values.asend(value)

    async def athrow(self, *error: Any) -> T:
        """Raises an exception where the generator waits."""
        with self._in_one_loop():
            return await self._values.athrow(*error)

    async def aclose(self) -> None:
        """Ends the generator."""
        with self._in_one_loop():
            await self._values.aclose()

    @contextmanager
    def _in_one_loop(self) -> Iterator[None]:
        running = asyncio.get_running_loop()
        if self._loop not in (None, running):
            raise FailedPrecondition(
                "these events belong to another event loop: read them in that one, or ask for them again in this one"
            )
        self._loop = running
        with self._alone, self._called.restored():
            yield


class AsyncConnection(BaseConnection):
    """A channel through which every RPC of a client goes. It belongs to the event loop in which it is first used."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: WeakSet[Any] = WeakSet()
        self._closed = asyncio.Event()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel, opened when it is first asked for.

        Raises:
            FailedPrecondition: The connection is closed, or belongs to another event loop.
        """
        self.check_loop()
        self.check_open()
        if self._channel is None:
            self._loop = asyncio.get_running_loop()
            self._channel = self._target.open_async()
        return self._channel

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    async def close(self) -> None:
        """Ends every call and closes the channel.

        Raises:
            FailedPrecondition: The connection belongs to another event loop.
        """
        self.check_loop()
        self._closed.set()
        for call in list(self._calls):
            call.cancel()
        if self._channel is not None:
            await self._channel.close()

    async def pause(self, seconds: float) -> None:
        """Waits, unless the connection is closed."""
        if self._looks_for_servers:
            async with self._target.unwatched.open_async() as channel:
                self._contact.made = await self._answers(channel)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)

    @staticmethod
    async def _answers(channel: grpc.aio.Channel) -> bool:
        try:
            await CHECK.of(channel)(encode_check(""), timeout=LOOK_SECONDS)
        except grpc.RpcError as failed:
            return answers(cast(FailedCall, failed))
        return True

    async def unary(self, rpc: Rpc, request: Message, attempts: Attempts, metadata: Metadata = ()) -> Message:
        """Calls until the call succeeds, or the attempts are used up.

        Raises:
            GramletError: The last failure.
        """
        while True:
            try:
                with self.translating(rpc):
                    call = self._method(rpc)(
                        request, timeout=attempts.remaining(rpc.silence), metadata=self._metadata(metadata)
                    )
                    self._calls.add(call)
                    reply = await call
            except GramletError as error:
                await self.pause(attempts.delay_after(error))
            else:
                attempts.answered()
                return reply

    async def open(self, rpc: Rpc, request: Message, attempts: Attempts) -> AsyncStream:
        """Starts a call of many messages with its first request."""
        arguments = () if rpc.kind is Kind.STREAM else (request,)
        with self.translating(rpc):
            call = self._method(rpc)(*arguments, timeout=attempts.remaining(), metadata=self._metadata())
        self._calls.add(call)
        stream = AsyncStream(self, rpc, call)
        if rpc.kind is Kind.STREAM:
            await self._unless_closed(stream.send(request))
        return stream

    async def _unless_closed(self, work: Coroutine[Any, Any, None]) -> None:
        # The first write of a call waits for its metadata to be sent. If the call is cancelled just then, gRPC never
        # wakes the writer.
        tasks = [asyncio.create_task(work), asyncio.create_task(self._closed.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    @contextmanager
    def translating(self, rpc: Rpc) -> Iterator[None]:
        """Turns what gRPC raises into the errors of `gramlet.errors`."""
        self.check_loop()
        self.check_open()
        try:
            yield
        except grpc.RpcError as failed:
            raise self._failure(failed, rpc) from None
        except asyncio.CancelledError:
            if not _is_being_cancelled():
                self.check_open()  # gRPC raises it in calls that `close` has canceled
            raise

    def check_loop(self) -> None:
        """Refuses a use in another event loop.

        Raises:
            FailedPrecondition: The connection belongs to another one.
        """
        if self._loop not in (None, asyncio.get_running_loop()):
            raise FailedPrecondition(
                f"this client of {self.address} belongs to another event loop: make one in each loop"
            )


class AsyncStream:
    """One call of many messages, on one connection. Leaving its `async with` block cancels it, if it has not ended."""

    def __init__(self, connection: AsyncConnection, rpc: Rpc, call: Any) -> None:
        self._connection = connection
        self._rpc = rpc
        self._call = call
        self._uploading: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._sending = asyncio.Lock()
        self._closed = False
        self._silence = SILENCE_SECONDS

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, message: Message) -> None:
        """Sends a message. Failures show at the next `receive`."""
        self._connection.check_loop()
        # gRPC takes one message at a time, and a call may be used by several tasks.
        async with self._sending:
            with _failing_later():
                await self._call.write(message)

    async def upload(self, messages: Iterable[Callable[[], Message]]) -> None:
        """Sends the last messages in the background. Each is made when its turn has come, so that many need no memory.

        What making one raises is raised by the next `receive`.
        """
        self._uploading = asyncio.create_task(self._send_all(messages))

    async def _send_all(self, messages: Iterable[Callable[[], Message]]) -> None:
        try:
            for make in messages:
                await self.send(await blocking(make))
            await self._end()
        except Exception as error:
            self._failure = error
            self._call.cancel()

    async def receive(self) -> Message:
        """Waits for the next reply.

        Raises:
            GramletError: The call failed.
            Unavailable: The server ended the call although replies were due.
        """
        reply = await self._read()
        if reply is grpc.aio.EOF:
            raise Unavailable("the server ended the call early")
        return reply

    async def remaining(self) -> AsyncIterator[Message]:
        """Every further reply, until the server ends the call.

        Raises:
            GramletError: The call failed.
        """
        while (reply := await self._read()) is not grpc.aio.EOF:
            yield reply

    async def finish(self) -> None:
        """Lets the server end the call in order, when all replies are there."""
        await self._end()
        self._silence = FINISH_SECONDS
        with suppress(GramletError):
            for _ in range(LAST_REPLIES):
                if await self._read() is grpc.aio.EOF:
                    break

    async def close(self) -> None:
        """Cancels the call, if it has not ended."""
        self._connection.check_loop()
        self._closed = True
        self._call.cancel()
        if self._uploading is not None:
            self._uploading.cancel()
            await asyncio.wait([self._uploading])

    async def _read(self) -> Message:
        try:
            with self._connection.translating(self._rpc):
                async with asyncio.timeout(self._silence):
                    reply = await self._call.read()
            self._silence = min(self._silence, self._rpc.silence)
            return reply
        except TimeoutError:
            self._call.cancel()
            raise silent(self._connection.address, self._silence) from None
        except (GramletError, asyncio.CancelledError) as error:
            if _is_being_cancelled():
                raise
            if self._failure is not None:
                raise self._failure from None
            if self._closed and isinstance(error, asyncio.CancelledError):
                raise Cancelled("the call was cancelled") from None  # by another task
            raise

    async def _end(self) -> None:
        if hasattr(self._call, "done_writing"):
            with _failing_later():
                await self._call.done_writing()


@contextmanager
def _failing_later() -> Iterator[None]:
    """Ignores failures to send: the next read of the call reports why."""
    try:
        yield
    except (grpc.RpcError, asyncio.InvalidStateError):
        pass
    except asyncio.CancelledError:
        if _is_being_cancelled():
            raise


def _is_being_cancelled() -> bool:
    """Whether the caller cancels its own task, rather than gRPC a call."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
