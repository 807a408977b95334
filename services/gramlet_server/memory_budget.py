"""The memory that the process may use for requests: one budget, from which work reserves before it allocates.

What a request will need is known from headers and settings. Work that finds no room waits a little, and is then refused
with RESOURCE_EXHAUSTED and a RetryInfo, before it has allocated anything. Arrays that outlive the work, such as the
pixels of pictures that wait for the device, keep their reservation until they are garbage.

There is one budget in a process, because there is one memory: `PROCESS`. It has no limit until `set_limit`.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from types import TracebackType
from typing import Any

from gramlet.errors import InvalidInput, Overloaded
from numpy.typing import NDArray

WAIT_SECONDS = 5.0
"""How long work waits for room by default."""
_RETRY_SECONDS = 2.0


class Budget:
    """Bytes that may be reserved at once. Threads may share it."""

    def __init__(self, limit: float = math.inf) -> None:
        self._limit = limit
        self._reserved = 0
        self._changed = threading.Condition()

    @property
    def limit(self) -> float:
        """The bytes in all; infinity: there is no limit."""
        return self._limit

    @property
    def reserved(self) -> int:
        """The bytes that are reserved."""
        return self._reserved

    def set_limit(self, limit: float) -> None:
        """Changes the limit. Reservations stay."""
        with self._changed:
            self._limit = limit
            self._changed.notify_all()

    def reserve(self, size: int, field: str = "", *, wait: float | None = None) -> Reservation:
        """Reserves bytes, as a context that gives them back.

        Args:
            size: Bytes.
            field: What of the request needs them, for errors.
            wait: Seconds to wait for room; None: WAIT_SECONDS.

        Raises:
            InvalidInput: More than the whole budget.
            Overloaded: There was no room.
        """
        self.check(size, field)
        self._take(size, WAIT_SECONDS if wait is None else wait)
        return Reservation(self, size)

    def check(self, size: int, field: str = "") -> None:
        """Refuses what would never have room.

        Raises:
            InvalidInput: It is more than the whole budget.
        """
        if size > self._limit:
            message = (
                f"it takes about {size:,} bytes of memory, and this server has {int(self._limit):,}: make it smaller"
            )
            raise InvalidInput(message, field=field)

    def hold(self, array: NDArray[Any]) -> None:
        """Reserves the bytes of an array that is there, until it is garbage.

        Raises:
            Overloaded: There was no room.
        """
        self.reserve(array.nbytes).keep_for(array)

    def _take(self, size: int, wait: float) -> None:
        until = time.monotonic() + wait
        with self._changed:
            while self._reserved + size > self._limit:
                if not self._changed.wait(until - time.monotonic()):
                    raise Overloaded("the server's memory is in use: try again soon", retry_after=_RETRY_SECONDS)
            self._reserved += size

    def _give_back(self, size: int) -> None:
        with self._changed:
            self._reserved -= size
            self._changed.notify_all()


class Reservation:
    """Bytes of a budget. Leaving the context, or `close`, gives back what is left of them."""

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget = budget
        self._size = size

    def resize(self, size: int) -> None:
        """Reserves more, or gives some back.

        Raises:
            InvalidInput, Overloaded: As for `reserve`; the reservation stays as it was.
        """
        if size > self._size:
            self._budget.check(size)
            self._budget._take(size - self._size, WAIT_SECONDS)
        else:
            self._budget._give_back(self._size - size)
        self._size = size

    def keep_for(self, array: NDArray[Any]) -> None:
        """Leaves the bytes of an array reserved until it is garbage, and gives back the rest."""
        kept = min(array.nbytes, self._size)
        weakref.finalize(array, self._budget._give_back, kept).atexit = False
        self._budget._give_back(self._size - kept)
        self._size = 0

    def close(self) -> None:
        """Gives the bytes back. Closing twice does nothing more."""
        size, self._size = self._size, 0
        self._budget._give_back(size)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


PROCESS = Budget()
"""The budget of this process."""
