"""A slow reader gets all events but outdated replaceable ones, and learns how the work ended."""

from __future__ import annotations

import threading

import pytest
from gramlet.errors import Cancelled, NotFound
from gramlet_server.runs.events import EventBuffer


def test_a_slow_reader_gets_all_events_and_the_newest_of_each_replaceable_type() -> None:
    buffer: EventBuffer[int | str | bytes] = EventBuffer((str, bytes))
    for event in (1, "a", 2, b"x", "b", 3, b"y", "c", 4):
        buffer.put(event)
    buffer.end()
    assert list(buffer) == [1, 2, 3, b"y", "c", 4]


def test_the_events_before_an_error_come_first() -> None:
    buffer: EventBuffer[int] = EventBuffer()
    buffer.put(1)
    buffer.end(NotFound("gone"))
    assert next(buffer) == 1
    with pytest.raises(NotFound):
        next(buffer)


def test_cancelling_wakes_the_reader() -> None:
    buffer: EventBuffer[int] = EventBuffer()
    threading.Thread(target=buffer.cancel).start()
    with pytest.raises(Cancelled):
        next(buffer)
    assert buffer.cancelled
