"""The events of long work, as an iterator that can also be run to its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Generic, TypeVar

from gramlet.errors import Unavailable

E = TypeVar("E")
R = TypeVar("R")


class Events(Generic[E, R], Iterator[E]):
    """Events of long work as they come; the last one is the result.

    Leaving the loop, `close()` or the end of a `with` block cancels the work on the server.
    """

    def __init__(self, events: Generator[E, None, None], result: type[R]) -> None:
        self._events = events
        self._type = result
        self._result: R | None = None

    def __next__(self) -> E:
        event = next(self._events)
        if isinstance(event, self._type):
            self._result = event
        return event

    def result(self) -> R:
        """Runs to the end, skipping events, and returns the result."""
        for _ in self:
            pass
        return _present(self._result)

    def close(self) -> None:
        """Cancels the work, if it is not done."""
        self._events.close()

    def __enter__(self) -> Events[E, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncEvents(Generic[E, R], AsyncIterator[E]):
    """Events of long work as they come; the last one is the result.

    `close()` or the end of an `async with` block cancels the work on the server.
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
        return _present(self._result)

    async def close(self) -> None:
        """Cancels the work, if it is not done."""
        await self._events.aclose()

    async def __aenter__(self) -> AsyncEvents[E, R]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _present(result: R | None) -> R:
    if result is None:
        raise Unavailable("the work was closed before it had a result")
    return result
