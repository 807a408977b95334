"""Tickets run in order, wait, leave, and are refused when the queue is full or closed."""

from __future__ import annotations

import threading

import pytest
from gramlet.errors import Cancelled, Overloaded, Unavailable
from gramlet_server.runs.queue import RunQueue


def test_the_first_runs_at_once_and_the_others_in_order() -> None:
    reported: list[tuple[int, int]] = []
    queue = RunQueue(1, 2, lambda running, queued: reported.append((running, queued)))
    first, second, third = queue.take(), queue.take(), queue.take()
    assert list(queue.positions(first)) == []
    waiting = queue.positions(third)
    assert next(waiting) == 1
    queue.leave(first)
    queue.leave(first)
    assert next(waiting) == 0
    assert list(queue.positions(second)) == []
    queue.leave(second)
    assert list(waiting) == []
    assert reported == [(1, 0), (1, 1), (1, 2), (1, 1), (1, 0)]


def test_a_full_queue_refuses_and_says_when_to_try_again() -> None:
    queue = RunQueue(1, 1)
    queue.take(), queue.take()
    with pytest.raises(Overloaded) as error:
        queue.take()
    assert error.value.retry_after


def test_a_place_is_reported_again_after_a_while() -> None:
    queue = RunQueue(1, 1)
    queue.take()
    waiting = queue.positions(queue.take(), again_after=0.01)
    assert [next(waiting) for _ in range(3)] == [0, 0, 0]


def test_whether_there_is_room_can_be_asked_before() -> None:
    queue = RunQueue(1, 0)
    queue.check()
    queue.take()
    with pytest.raises(Overloaded):
        queue.check()


def test_cancelling_wakes_a_waiting_ticket_which_keeps_its_place_until_it_leaves() -> None:
    queue = RunQueue(1, 1)
    queue.take()
    ticket = queue.take()
    positions = queue.positions(ticket)
    assert next(positions) == 0
    threading.Thread(target=queue.cancel, args=[ticket]).start()
    with pytest.raises(Cancelled):
        next(positions)
    assert queue.queued == 1
    queue.leave(ticket)
    assert queue.queued == 0


def test_closing_ends_the_wait_but_not_the_running_ticket_and_refuses_new_ones() -> None:
    queue = RunQueue(1, 1)
    running, waiting = queue.take(), queue.take()
    positions = queue.positions(waiting)
    assert next(positions) == 0
    queue.close()
    for use in (lambda: next(positions), queue.take):
        with pytest.raises(Unavailable, match="shutting down") as error:
            use()
        assert error.value.retry_after == 0.0
    assert list(queue.positions(running)) == []
