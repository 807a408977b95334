"""Turns are taken in order, waited for, left, and refused when the line is full."""

from __future__ import annotations

import threading

import pytest
from gramlet.errors import Cancelled, Overloaded
from gramlet_server.runs.queue import Turns


def test_the_first_run_at_once_and_the_others_in_order() -> None:
    told: list[tuple[int, int]] = []
    turns = Turns(1, 2, lambda running, queued: told.append((running, queued)))
    first, second, third = turns.take(), turns.take(), turns.take()
    assert list(first.positions()) == []
    waiting = third.positions()
    assert next(waiting) == 1
    first.leave()
    first.leave()
    assert next(waiting) == 0
    assert list(second.positions()) == []
    second.leave()
    assert list(waiting) == []
    assert told == [(1, 0), (1, 1), (1, 2), (1, 1), (1, 0)]


def test_a_full_line_refuses_and_says_when_to_come_again() -> None:
    turns = Turns(1, 1)
    turns.take(), turns.take()
    with pytest.raises(Overloaded) as error:
        turns.take()
    assert error.value.retry_after


def test_whoever_leaves_while_waiting_is_told() -> None:
    turns = Turns(1, 1)
    turns.take()
    waiting = turns.take()
    positions = waiting.positions()
    assert next(positions) == 0
    threading.Thread(target=waiting.leave).start()
    with pytest.raises(Cancelled):
        next(positions)
    assert turns.queued == 0
