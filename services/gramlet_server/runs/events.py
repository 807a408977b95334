"""Buffers between work, which never waits, and its readers, who may be slow."""

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
        while (event := self.take(None)) is None:
            pass
        return event

    def take(self, seconds: float | None) -> Event | None:
        """The next event, or None if none comes within so many seconds. Errors are those of `next`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._ended or self._cancelled, seconds):
                return None
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


class Broadcast(Generic[Event]):
    """Gives the events of one run to any number of readers, each of whom has a buffer of its own.

    A reader gets the events from the time on at which he subscribes. Before them he gets the latest event of each
    opening type, such as the one that reports the settings.

    Args:
        replaceable: The types of replaceable events; see `EventBuffer`.
        opening: The types of opening events.
    """

    def __init__(self, replaceable: tuple[type, ...] = (), opening: tuple[type, ...] = ()) -> None:
        self._replaceable = replaceable
        self._opening = opening
        self._opened: dict[type, Event] = {}
        self._buffers: list[EventBuffer[Event]] = []
        self._lock = threading.Lock()
        self._ended = False
        self._error: BaseException | None = None

    def subscribe(self) -> EventBuffer[Event]:
        """A new reader. After the end he gets the opening events, then the error if there is one."""
        buffer: EventBuffer[Event] = EventBuffer(self._replaceable)
        with self._lock:
            for event in self._opened.values():
                buffer.put(event)
            if self._ended:
                buffer.end(self._error)
            else:
                self._buffers.append(buffer)
        return buffer

    def put(self, event: Event) -> None:
        """Gives an event to all readers. Never waits for any of them."""
        with self._lock:
            if isinstance(event, self._opening):
                self._opened.pop(type(event), None)  # so that the order stays that of the events
                self._opened[type(event)] = event
            self._buffers = [buffer for buffer in self._buffers if not buffer.cancelled]
            for buffer in self._buffers:
                buffer.put(event)

    def end(self, error: BaseException | None = None) -> None:
        """No more events come. Each reader gets those that wait, then the error if there is one."""
        with self._lock:
            self._ended, self._error = True, error
            for buffer in self._buffers:
                buffer.end(error)
            self._buffers = []
