"""How many threads BLAS uses. Its setting belongs to the whole process, and several maps may be made at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from threadpoolctl import ThreadpoolController

_controller = ThreadpoolController()
_lock = threading.Lock()
_inside = 0
_limit = ExitStack()


@contextmanager
def one_thread() -> Iterator[None]:
    """For products too small to gain from more threads, which on a busy machine only wait for each other.

    Whoever leaves last gives the threads back.
    """
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _limit.enter_context(_controller.limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _limit.close()
