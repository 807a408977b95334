"""How many threads BLAS uses. The setting belongs to the whole process, and several maps may be computed at once."""

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
    """One BLAS thread, for products that are too small to gain from more.

    On a busy machine the threads of a small product only wait for each other. The limit is set when the first thread
    of this process enters, and removed when the last one leaves.
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
