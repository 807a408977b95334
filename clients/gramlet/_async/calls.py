"""How calls of many messages are made: the events of a run, a stream of outcomes, a file in pieces."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Generic, Self, TypeVar

from gramlet.errors import GramletError, InternalError, Unavailable
from gramlet.transport.aio import AsyncConnection, AsyncStream, blocking, one_reader
from gramlet.transport.connection import Attempts, Caller, OfOneProcess
from gramlet.transport.rpc import Message, Rpc
from gramlet.transport.run import Run
from gramlet.transport.window import MESSAGE_ITEMS, SLOW_SECONDS, Window

E = TypeVar("E")
I = TypeVar("I")  # noqa: E741  # an item
R = TypeVar("R")

_LARGEST_DOWNLOAD = 2**30
"""More than any head or drawing has: a server that sends more does not end."""


class AsyncCalls(Caller[AsyncConnection]):
    """Makes the calls of many messages over the connection of a client."""

    async def _events(self, rpc: Rpc, start: Awaitable[Run[E]], attempts: Attempts) -> AsyncGenerator[E, None]:
        """The events of a run, across lost connections."""
        run = await start
        while not run.done:
            try:
                async with await self._connection.open(rpc, run.request(), attempts) as stream:
                    while not run.done:
                        if (uploads := run.uploads()) is not None:
                            await stream.upload(uploads)
                        event = run.accept(await stream.receive())
                        attempts.answered(new=event is not None)
                        if run.done:
                            await stream.finish()  # so that the server sees a call that ended in order
                        if event is not None:
                            yield event
            except GramletError as error:
                failure = run.broken(error)
                delay = attempts.delay_after(failure)
                if (lost := run.lost(failure)) is not None:
                    yield lost
                await self._connection.pause(delay)

    async def _outcomes(
        self, rpc: Rpc, window: Window[I, Any, R], items: AsyncIterator[I], attempts: Attempts
    ) -> AsyncGenerator[R | GramletError, None]:
        """One outcome for each item, in order, across lost connections."""
        stream: AsyncStream | None = None
        source = _Source(items)
        try:
            while await source.fill(window):
                for outcome in window.outcomes():
                    yield outcome
                if not window.is_waiting:
                    continue
                try:
                    stream = stream or await self._connection.open(rpc, window.request(), attempts)
                    for message in window.messages():
                        await stream.send(message)
                    if source.has_more_for(window):
                        continue
                    window.accept(await stream.receive())
                    attempts.answered()
                except GramletError as error:
                    if stream is not None:
                        await stream.close()
                    stream = None
                    window.broken()
                    await self._connection.pause(attempts.delay_after(error))
            if stream is not None:
                await stream.finish()
        finally:
            if stream is not None:
                await stream.close()

    async def _download(
        self, rpc: Rpc, request: Message, chunk: Callable[[Message], bytes], timeout: float | None
    ) -> bytes:
        """A file that comes in pieces."""
        attempts = self._attempts(timeout)
        while True:
            chunks: list[bytes] = []
            received = 0
            try:
                async with await self._connection.open(rpc, request, attempts) as stream:
                    async for message in stream.remaining():
                        attempts.answered(new=False)
                        chunks.append(chunk(message))
                        received += len(chunks[-1])
                        if received > _LARGEST_DOWNLOAD:
                            raise InternalError(f"the server sends a file of more than {_LARGEST_DOWNLOAD:,} bytes")
                return b"".join(chunks)
            except GramletError as error:
                await self._connection.pause(attempts.delay_after(error))


class _Source(Generic[I]):
    """The caller's items, which are taken as long as they come quickly and there is room for them."""

    def __init__(self, items: AsyncIterator[I]) -> None:
        self._items = items
        self._slow = False
        self._ended = False

    async def fill(self, window: Window[I, Any, Any]) -> bool:
        """Adds items for a message, or fewer if they come slowly; whether anything is left to do."""
        began = time.monotonic()
        taken: list[I] = []
        most = min(MESSAGE_ITEMS, window.room(self._slow))
        while len(taken) < most and not self._ended:
            try:
                taken.append(await anext(self._items))
            except StopAsyncIteration:
                self._ended = True
            if self._is_late(began):
                break
        if taken:
            await blocking(window.add, taken)
            self._slow = self._is_late(began)
        return not window.is_empty

    def has_more_for(self, window: Window[I, Any, Any]) -> bool:
        """Whether to add more items before the next answer is awaited."""
        return not self._ended and window.room(self._slow) > 0

    def _is_late(self, began: float) -> bool:
        return time.monotonic() - began > SLOW_SECONDS


class AsyncEvents(OfOneProcess, AsyncIterator[E], Generic[E, R]):
    """Events of long work as they come; the last one is the result.

    `close()`, or leaving an `async with` block, cancels the work on the server, unless it is detached or only watched.
    So does leaving a loop early, once nothing refers to the events any more. One thread or task reads them, and others
    get them from it.

    Attributes:
        run_id: The id of the work, with which it can be resumed, watched, stopped and deleted. For a map: its id.
    """

    def __init__(self, run_id: str, events: AsyncGenerator[E, None], result: type[R] | tuple[type[R], ...]) -> None:
        self.run_id = run_id
        self._events = one_reader(events)
        self._type = result
        self._result: R | None = None

    async def __anext__(self) -> E:
        event = await anext(self._events)
        if isinstance(event, self._type):
            self._result = event
        return event

    async def result(self) -> R:
        """Runs to the end, skipping events, and returns the result."""
        async for _ in self:
            pass
        if self._result is None:
            raise Unavailable("the work was closed before it had a result")
        return self._result

    async def close(self) -> None:
        """Cancels the work, if it is not done."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
