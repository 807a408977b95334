"""A slow reader gets all events but outdated replaceable ones, and learns how the work ended."""

from __future__ import annotations

import threading

import pytest
from gramlet.errors import Cancelled, NotFound
from gramlet_server.runs.events import Broadcast, EventBuffer


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


def test_each_reader_has_a_buffer_of_its_own_from_the_time_on_at_which_he_comes() -> None:
    broadcast: Broadcast[int | str] = Broadcast(replaceable=(str,))
    slow = broadcast.subscribe()
    for event in (1, "a", "b"):
        broadcast.put(event)
    late, gone = broadcast.subscribe(), broadcast.subscribe()
    gone.cancel()
    for event in ("c", 2):
        broadcast.put(event)
    broadcast.end()
    assert list(slow) == [1, "c", 2]
    assert list(late) == ["c", 2]


def test_a_late_reader_gets_the_latest_opening_events_first_even_after_the_end() -> None:
    broadcast: Broadcast[int | str | bytes] = Broadcast(opening=(str, bytes))
    for event in ("old", b"x", 1, "new"):
        broadcast.put(event)
    late = broadcast.subscribe()
    broadcast.put(2)
    broadcast.end(NotFound("gone"))
    for reader, events in ((late, [b"x", "new", 2]), (broadcast.subscribe(), [b"x", "new"])):
        assert [next(reader) for _ in events] == events
        with pytest.raises(NotFound):
            next(reader)
