"""A buffer between work, which never waits, and a reader, who may be slow."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from gramlet.errors import Cancelled

Event = TypeVar("Event")


class EventBuffer(Generic[Event]):
    """Keeps the events of one run for one reader, who iterates over it.

    Of each replaceable type (large events that are soon out of date, such as previews) only the newest event waits for
    the reader. All other events are kept.

    Args:
        replaceable: The types of replaceable events.
    """

    def __init__(self, replaceable: tuple[type, ...] = ()) -> None:
        self._replaceable = replaceable
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._cancelled = False
        self._ended = False
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        """The next event; waits for it.

        Raises:
            Cancelled: The buffer was cancelled.
            StopIteration: The work has ended and all of its events were read. If it failed, its error instead.
        """
        with self._changed:
            while not (self._waiting or self._ended or self._cancelled):
                self._changed.wait()
            if self._cancelled:
                raise Cancelled("the call was cancelled")
            if self._waiting:
                return self._waiting.popleft()
        if self._error is not None:
            raise self._error
        raise StopIteration

    @property
    def cancelled(self) -> bool:
        """Whether the reader wants no more events."""
        return self._cancelled

    def put(self, event: Event) -> None:
        """Adds an event. Never waits for the reader."""
        with self._changed:
            if isinstance(event, self._replaceable):
                older = next((i for i, waiting in enumerate(self._waiting) if type(waiting) is type(event)), None)
                if older is not None:
                    del self._waiting[older]
            self._waiting.append(event)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """No more events come. The reader gets those that wait, then the error if there is one."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def cancel(self) -> None:
        """Wakes the reader with Cancelled."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
