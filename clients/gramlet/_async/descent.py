"""A descent at the network, across lost connections."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any, Self

from gramlet.errors import GramletError
from gramlet.feature.descent_session import DescentSession
from gramlet.feature.descent_types import DescentEvent, DescentStart, DescentWeights
from gramlet.feature.descent_wire import DESCEND
from gramlet.tensor.parts import Joiner
from gramlet.transport.aio import AsyncConnection, AsyncStream, one_reader
from gramlet.transport.connection import Attempts, OfOneProcess
from gramlet.transport.rpc import Message


class AsyncDescent(OfOneProcess, AsyncIterator[DescentEvent]):
    """A descent, until the `async with` block ends: an iterator of its events.

    If the server is lost, the descent goes on at the next one that answers at the address, from its newest state,
    within the client's patience. No event is reported twice, and none is missed.
    """

    def __init__(
        self, connection: AsyncConnection, session: DescentSession, start: Awaitable[DescentStart], attempts: Attempts
    ) -> None:
        self._connection = connection
        self._session = session
        self._unread: Awaitable[DescentStart] | None = start
        self._attempts = attempts
        self._stream: AsyncStream | None = None
        self._replies: AsyncIterator[Message] | None = None
        self._joiner: Joiner[Any] = Joiner()
        self._events = one_reader(self._read())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the descent, if it has not ended."""
        self._session.cancel()
        await self._drop()

    async def cancel(self) -> None:
        """Ends the descent, and wakes its reader with Cancelled."""
        self._session.cancel()
        if (stream := self._stream) is not None:
            await stream.close()

    async def reweight(self, weights: DescentWeights) -> None:
        """Goes on with other weights from the next iteration on. A DescentState and a DescentReweighted answer it.

        Of several that are sent at once only the newest count.
        """
        self._session.reweight(weights)
        await self._send()

    async def proceed(self) -> None:
        """Answers a DescentWaiting: the last iteration may begin."""
        self._session.proceed()
        await self._send()

    async def stop(self) -> None:
        """Ends the descent after the iteration under way, with a DescentState."""
        self._session.stop()
        await self._send()

    async def __anext__(self) -> DescentEvent:
        """Waits for the next event.

        Raises:
            StopAsyncIteration: The descent has ended.
            InvalidInput: The start, or new weights, are wrong.
            FailedPrecondition: The loss is not a number, or the server came back with another network.
            Overloaded: Too many descents wait, for longer than the client's patience.
            Unavailable: The server was lost for longer than the client's patience.
            Cancelled: The descent was cancelled.
        """
        return await anext(self._events)

    async def _read(self) -> AsyncGenerator[DescentEvent, None]:
        while not self._session.done:
            try:
                events = await self._receive()
            except GramletError as error:
                await self._drop()
                await self._connection.pause(self._attempts.delay_after(self._session.broken(error)))
                continue
            for event in events:
                yield event

    async def _receive(self) -> list[DescentEvent]:
        reply = await anext(await self._opened(), None)
        if reply is None:
            self._session.ended()
            return []
        message = self._joiner.add(reply)
        if message is None:
            return []
        before = self._session.progress
        events = self._session.accept(message)
        self._attempts.answered(new=self._session.progress != before, queued=self._session.queued)
        await self._send()
        if self._session.done and self._stream is not None:
            await self._stream.finish()  # so that the server sees a call that ended in order
        return events

    async def _opened(self) -> AsyncIterator[Message]:
        if self._unread is not None:
            self._session.start = await self._unread
            self._unread = None
        if self._replies is None:
            self._joiner = Joiner()
            messages = self._session.request()
            self._stream = stream = await self._connection.open(DESCEND, next(messages), self._attempts)
            for message in messages:
                await stream.send(message)
            self._replies = stream.remaining()
        return self._replies

    async def _send(self) -> None:
        if (stream := self._stream) is not None:
            for message in self._session.due():
                await stream.send(message)

    async def _drop(self) -> None:
        stream, self._stream, self._replies = self._stream, None, None
        if stream is not None:
            await stream.close()
