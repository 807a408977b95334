"""One reader at a time, and what an interruption leaves of one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from gramlet.errors import FailedPrecondition
from gramlet.transport.connection import EVENTS, Alone


def test_a_second_thread_is_refused_while_the_first_is_at_it() -> None:
    alone = Alone(EVENTS)
    with ThreadPoolExecutor(1) as other:
        with alone, pytest.raises(FailedPrecondition, match="another thread or task"):
            other.submit(alone.__enter__).result()
        other.submit(alone.__enter__).result()


def test_a_thread_that_was_interrupted_in_its_use_can_still_close() -> None:
    alone = Alone(EVENTS)
    alone.__enter__()  # Ctrl-C came before the work that would have ended it
    with alone:
        pass
    with ThreadPoolExecutor(1) as other:
        other.submit(alone.__enter__).result()
