"""A synchronous connection: calls that fail with the errors of `gramlet.errors` and are made again where that helps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

import grpc

from gramlet.errors import GramletError, Unavailable
from gramlet.transport.channel import Endpoint, Metadata, open_channel
from gramlet.transport.failures import FailedCall, decode_rpc_error
from gramlet.transport.retry import Attempts, Contact, RetryPolicy

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Calls:
    """How a client makes its calls: over its connection, with its timeout and its patience."""

    _connection: Connection
    _timeout: float | None
    _policy: RetryPolicy

    def _attempts(self, timeout: float | None) -> Attempts:
        return self._connection.attempts(self._policy, self._timeout if timeout is None else timeout)

    def _unary(self, method: Any, request: Any, timeout: float | None) -> Any:
        return self._connection.unary(method, request, self._attempts(timeout))


class Connection:
    """A channel with its endpoint. Attributes: `address`; `channel`, for stubs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.address = endpoint.address
        self.channel = open_channel(endpoint)
        self._endpoint = endpoint
        self._contact = Contact()

    def close(self) -> None:
        """Ends every call."""
        self.channel.close()

    def attempts(self, policy: RetryPolicy, timeout: float | None) -> Attempts:
        """The attempts of a new call."""
        return Attempts(policy, self._contact, timeout)

    def unary(self, method: Callable[..., Reply], request: Any, attempts: Attempts, metadata: Metadata = ()) -> Reply:
        """Calls until it succeeds or patience is over.

        Raises:
            GramletError: The last failure.
        """
        while True:
            try:
                reply = method(request, timeout=attempts.remaining(), metadata=(*self._endpoint.metadata, *metadata))
            except grpc.RpcError as failed:
                delay = attempts.delay_after(self._translated(failed))
            else:
                attempts.answered()
                return reply
            time.sleep(delay)

    def server_stream(self, method: Callable[..., Any], request: Any, attempts: Attempts) -> Stream[Any, Any]:
        """Opens a stream of replies."""
        call = method(request, timeout=attempts.remaining(), metadata=self._endpoint.metadata)
        return Stream(call, None, self._translated)

    def stream(self, method: Callable[..., Any], attempts: Attempts) -> Stream[Any, Any]:
        """Opens a stream both ways."""
        requests: Requests[Any] = Requests()
        call = method(requests, timeout=attempts.remaining(), metadata=self._endpoint.metadata)
        return Stream(call, requests, self._translated)

    def _translated(self, failed: grpc.RpcError) -> GramletError:
        return decode_rpc_error(cast(FailedCall, failed), self.address)


class Requests(Iterator[Request]):
    """Messages on their way out. gRPC takes them in a thread of its own, which `end` lets go."""

    def __init__(self) -> None:
        self._messages: SimpleQueue[Request | Callable[[], Request] | None] = SimpleQueue()

    def put(self, message: Request) -> None:
        """Sends a message after those before it."""
        self._messages.put(message)

    def put_later(self, make: Callable[[], Request]) -> None:
        """Sends a message that is made when its turn has come: gRPC takes the next when the last is on its way."""
        self._messages.put(make)

    def end(self) -> None:
        """Says that no more will come."""
        self._messages.put(None)

    def __next__(self) -> Request:
        message = self._messages.get()
        if message is None:
            raise StopIteration
        return message() if callable(message) else message


class Stream(Generic[Request, Reply]):
    """One call of many messages, on one connection."""

    def __init__(self, call: Any, requests: Requests[Request] | None, translate: Callable[[Any], GramletError]) -> None:
        self._call = call
        self._requests = requests
        self._translate = translate

    def send(self, message: Request) -> None:
        """Sends a message. Failures show at the next `receive`."""
        if self._requests is not None:
            self._requests.put(message)

    def send_later(self, make: Callable[[], Request]) -> None:
        """Sends a message that is made, in gRPC's thread, when its turn has come; so that many need no memory."""
        if self._requests is not None:
            self._requests.put_later(make)

    def receive(self) -> Reply:
        """Waits for the next reply.

        Raises:
            GramletError: The call failed.
            Unavailable: The server ended the call although replies were due.
        """
        try:
            return cast(Reply, next(self._call))
        except grpc.RpcError as failed:
            raise self._translate(failed) from None
        except StopIteration:
            raise Unavailable("the server ended the call early") from None

    def end(self) -> None:
        """Says that no more messages will come."""
        if self._requests is not None:
            self._requests.end()

    def remaining(self) -> Iterator[Reply]:
        """Every further reply, until the server ends the call.

        Raises:
            GramletError: The call failed.
        """
        try:
            yield from self._call
        except grpc.RpcError as failed:
            raise self._translate(failed) from None

    def finish(self) -> None:
        """Lets the server end the call in order, when all replies are there."""
        self.end()
        with suppress(GramletError):
            for _ in self.remaining():
                pass

    def close(self) -> None:
        """Cancels the call, if it is not done."""
        self.end()
        self._call.cancel()
