"""Gives up calls whose servers are silent: gRPC's synchronous reads wait without a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gramlet.errors import Unavailable

_TICK_SECONDS = 0.5
_IDLE_TICKS = 20
"""How long the thread stays while nothing is read."""


@dataclass(eq=False)
class Read:
    """A read that waits for a reply.

    Attributes:
        ends: On the monotonic clock, when it is given up.
        cancel: Gives it up.
        is_late: Whether it was given up.
    """

    ends: float
    cancel: Callable[[], object]
    is_late: bool = False


class Reads:
    """The reads of a connection. One thread watches all of them, as long as there are any."""

    def __init__(self) -> None:
        self._reads: set[Read] = set()
        self._lock = threading.Lock()
        self._is_watched = False

    @contextmanager
    def limited(self, seconds: float, cancel: Callable[[], object]) -> Iterator[Read]:
        """Calls `cancel`, in another thread, if the read inside takes longer than this."""
        read = Read(time.monotonic() + seconds, cancel)
        with self._lock:
            self._reads.add(read)
            begins, self._is_watched = not self._is_watched, True
        if begins:
            threading.Thread(target=self._watch, name="gramlet-silence", daemon=True).start()
        try:
            yield read
        finally:
            with self._lock:
                self._reads.discard(read)

    def _watch(self) -> None:
        idle = 0
        while True:
            time.sleep(_TICK_SECONDS)
            with self._lock:
                idle = 0 if self._reads else idle + 1
                if idle == _IDLE_TICKS:
                    self._is_watched = False
                    return
                now = time.monotonic()
                late = [read for read in self._reads if read.ends <= now]
                self._reads.difference_update(late)
            for read in late:
                read.is_late = True
                read.cancel()


def silent(address: str, seconds: float) -> Unavailable:
    """The error of a call that was given up."""
    return Unavailable(f"the server at {address} has sent nothing for {seconds:g} s")
