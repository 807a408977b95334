"""An asyncio connection: the twin of `gramlet.transport.sync`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

import grpc
import grpc.aio

from gramlet.errors import GramletError, Unavailable
from gramlet.transport.channel import Endpoint, Metadata, open_async_channel
from gramlet.transport.failures import FailedCall, decode_rpc_error
from gramlet.transport.retry import Attempts, Contact, RetryPolicy

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class AsyncCalls:
    """How a client makes its calls: over its connection, with its timeout and its patience."""

    _connection: AsyncConnection
    _timeout: float | None
    _policy: RetryPolicy

    def _attempts(self, timeout: float | None) -> Attempts:
        return self._connection.attempts(self._policy, self._timeout if timeout is None else timeout)

    async def _unary(self, method: Any, request: Any, timeout: float | None) -> Any:
        return await self._connection.unary(method, request, self._attempts(timeout))


class AsyncConnection:
    """A channel with its endpoint, opened when first used: it belongs to the loop that runs then."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.address = endpoint.address
        self._endpoint = endpoint
        self._channel: grpc.aio.Channel | None = None
        self._contact = Contact()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel, for stubs."""
        if self._channel is None:
            self._channel = open_async_channel(self._endpoint)
        return self._channel

    async def close(self) -> None:
        """Ends every call."""
        if self._channel is not None:
            await self._channel.close()

    def attempts(self, policy: RetryPolicy, timeout: float | None) -> Attempts:
        """The attempts of a new call."""
        return Attempts(policy, self._contact, timeout)

    async def unary(self, method: Callable[..., Any], request: Any, attempts: Attempts, metadata: Metadata = ()) -> Any:
        """Calls until it succeeds or patience is over.

        Raises:
            GramletError: The last failure.
        """
        while True:
            try:
                reply = await method(
                    request, timeout=attempts.remaining(), metadata=(*self._endpoint.metadata, *metadata)
                )
            except grpc.RpcError as failed:
                delay = attempts.delay_after(self._translated(failed))
            else:
                attempts.answered()
                return reply
            await asyncio.sleep(delay)

    def server_stream(self, method: Callable[..., Any], request: Any, attempts: Attempts) -> AsyncStream[Any, Any]:
        """Opens a stream of replies."""
        call = method(request, timeout=attempts.remaining(), metadata=self._endpoint.metadata)
        return AsyncStream(call, self._translated)

    def stream(self, method: Callable[..., Any], attempts: Attempts) -> AsyncStream[Any, Any]:
        """Opens a stream both ways."""
        call = method(timeout=attempts.remaining(), metadata=self._endpoint.metadata)
        return AsyncStream(call, self._translated)

    def _translated(self, failed: grpc.RpcError) -> GramletError:
        return decode_rpc_error(cast(FailedCall, failed), self.address)


class AsyncStream(Generic[Request, Reply]):
    """One call of many messages, on one connection."""

    def __init__(self, call: Any, translate: Callable[[Any], GramletError]) -> None:
        self._call = call
        self._translate = translate

    async def send(self, message: Request) -> None:
        """Sends a message. Failures show at the next `receive`."""
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self._call.write(message)

    async def receive(self) -> Reply:
        """Waits for the next reply.

        Raises:
            GramletError: The call failed.
            Unavailable: The server ended the call although replies were due.
        """
        try:
            reply = await self._call.read()
        except grpc.RpcError as failed:
            raise self._translate(failed) from None
        if reply is grpc.aio.EOF:
            raise Unavailable("the server ended the call early")
        return cast(Reply, reply)

    async def end(self) -> None:
        """Says that no more messages will come."""
        if hasattr(self._call, "done_writing"):
            with suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self._call.done_writing()

    async def finish(self) -> None:
        """Lets the server end the call in order, when all replies are there."""
        await self.end()
        with suppress(grpc.RpcError):
            while await self._call.read() is not grpc.aio.EOF:
                pass

    def close(self) -> None:
        """Cancels the call, if it is not done."""
        self._call.cancel()
