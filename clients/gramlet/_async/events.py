"""The events of long work, as an iterator that can also be run to its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Generic, Self, TypeVar

from gramlet.errors import Unavailable

E = TypeVar("E")
R = TypeVar("R")


class AsyncEvents(Generic[E, R], AsyncIterator[E]):
    """Events of long work as they come; the last one is the result.

    `close()`, or leaving an `async with` block, cancels the work on the server. So does leaving a loop early, once
    nothing refers to the events any more.
    """

    def __init__(self, events: AsyncGenerator[E, None], result: type[R]) -> None:
        self._events = events
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
