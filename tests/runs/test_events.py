"""The work never waits for its reader, who misses nothing but stale previews."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from gramlet.errors import Cancelled, NotFound
from gramlet_server.runs.events import Conflated


def replaceable(event: object) -> bool:
    return isinstance(event, str)


def test_a_slow_reader_gets_all_scalars_and_the_newest_preview() -> None:
    work = Conflated(iter([1, "a", 2, "b", 3, "c", 4]), replaceable)
    work.join()
    assert list(work) == [1, 2, 3, "c", 4]


def test_what_came_before_a_failure_is_told_first() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise NotFound("gone")

    work = Conflated(failing(), replaceable)
    assert next(work) == 1
    with pytest.raises(NotFound):
        next(work)


def test_cancelling_closes_the_work_within_one_event_and_wakes_the_reader() -> None:
    turn, closed = threading.Semaphore(0), threading.Event()

    def endless() -> Iterator[int]:
        try:
            for n in range(1_000_000):
                turn.acquire()
                yield n
        finally:
            closed.set()

    work = Conflated(endless(), replaceable)
    turn.release()
    assert next(work) == 0
    told = threading.Event()

    def read() -> None:
        with pytest.raises(Cancelled):
            next(work)
        told.set()

    threading.Thread(target=read).start()
    work.cancel()
    turn.release()
    assert closed.wait(10)
    assert told.wait(10)
