"""The memory that the process may use for requests: one budget, from which work reserves before it allocates.

What a request will need is known from headers and settings. Work that finds no room waits a little, and is then refused
with RESOURCE_EXHAUSTED and a RetryInfo, before it has allocated anything. Arrays that outlive the work, such as the
pixels of pictures that wait for the device, keep their reservation until they are garbage.

There is one budget in a process, because there is one memory: `PROCESS`. It has no limit until `set_limit`. Caches use
what is free of it, and are emptied when work needs it.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from gramlet.errors import InvalidInput, Overloaded
from numpy.typing import NDArray

Element = TypeVar("Element", bound=np.generic)

WAIT_SECONDS = 5.0
"""How long work waits for room by default."""
_RETRY_SECONDS = 2.0
_LOOK_SECONDS = 0.1
"""Work that waits looks so often for what was given back while another thread had the lock: nobody wakes it then."""


class Budget:
    """Bytes that may be reserved at once. Threads may share it."""

    def __init__(self, limit: float = math.inf) -> None:
        self._limit = limit
        self._reserved = 0
        self._waiting = 0
        self._changed = threading.Condition(threading.Lock())
        # What was given back. The garbage collector may do it anywhere, so it must not wait for the lock.
        self._returned: deque[int] = deque()
        self._releases: list[weakref.WeakMethod[Callable[[], None]]] = []

    @property
    def limit(self) -> float:
        """The bytes in all; infinity: there is no limit."""
        return self._limit

    @property
    def reserved(self) -> int:
        """The bytes that are reserved."""
        self._settle()
        return self._reserved

    @property
    def is_wanted(self) -> bool:
        """Whether work waits for room."""
        return self._waiting > 0

    def set_limit(self, limit: float) -> None:
        """Changes the limit. Reservations stay."""
        with self._changed:
            self._limit = limit
            self._changed.notify_all()
        self._settle()

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

    def on_shortage(self, release: Callable[[], None]) -> None:
        """Registers a method that gives back what nobody needs now, such as a cache. Its object may become garbage."""
        self._releases.append(weakref.WeakMethod(release))

    def make(self, size: int, make: Callable[[], NDArray[Element]], field: str = "") -> NDArray[Element]:
        """Makes an array, whose bytes stay reserved until it is garbage.

        Args:
            size: Bytes that it takes to make the array, itself included.
            make: Makes it.
            field: As for `reserve`.

        Raises:
            InvalidInput, Overloaded: As for `reserve`.
        """
        with self.reserve(size, field) as room:
            made = make()
            room.keep_for(made)
        return made

    def hold(self, array: NDArray[Any]) -> None:
        """Reserves the bytes of an array that is there, until it is garbage.

        Raises:
            Overloaded: There was no room.
        """
        self.reserve(array.nbytes).keep_for(array)

    def _try_to_take(self, size: int) -> bool:
        self._settle()
        with self._changed:
            fits = self._reserved + size <= self._limit
            self._reserved += size * fits
        self._settle()
        return fits

    def _take(self, size: int, wait: float) -> None:
        if not size or self._try_to_take(size):
            return
        self._releases = [method for method in self._releases if method() is not None]
        for method in self._releases:
            if release := method():
                release()
        until = time.monotonic() + wait
        with self._changed:
            self._waiting += 1
            try:
                while self._after_returns() + size > self._limit:
                    left = until - time.monotonic()
                    if left <= 0:
                        raise Overloaded("the server's memory is in use: try again soon", retry_after=_RETRY_SECONDS)
                    self._changed.wait(min(left, _LOOK_SECONDS))
                self._reserved += size
            finally:
                self._waiting -= 1
        self._settle()

    def _give_back(self, size: int) -> None:
        if size:
            self._returned.append(size)
            self._settle()

    def _after_returns(self) -> int:
        """The bytes that are reserved, without what was given back. To be called with the lock."""
        while self._returned:
            self._reserved -= self._returned.popleft()
        return self._reserved

    def _settle(self) -> None:
        """Subtracts what was given back. If another thread has the lock, that thread does it."""
        while self._returned and self._changed.acquire(blocking=False):
            try:
                self._after_returns()
                self._changed.notify_all()
            finally:
                self._changed.release()


class Reservation:
    """Bytes of a budget. Leaving the context, `close`, or becoming garbage gives back what is left of them."""

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

    def try_to_resize(self, size: int) -> bool:
        """The same, but waits for nothing and empties no cache. Whether there was room."""
        if size > self._size and not self._budget._try_to_take(size - self._size):
            return False
        self._budget._give_back(max(0, self._size - size))
        self._size = size
        return True

    def move_to(self, owner: object) -> None:
        """Leaves the bytes reserved until an object is garbage. Nothing is left here."""
        weakref.finalize(owner, self._budget._give_back, self._size).atexit = False
        self._size = 0

    def keep_for(self, array: NDArray[Any]) -> None:
        """Leaves the bytes of an array reserved until it is garbage, and gives back the rest."""
        kept = min(array.nbytes, self._size)
        self._budget._give_back(self._size - kept)
        self._size = kept
        self.move_to(array)

    def close(self) -> None:
        """Gives the bytes back. Closing twice does nothing more."""
        size, self._size = self._size, 0
        self._budget._give_back(size)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Place:
    """The place of a piece of work among those of which one is done at a time, until it is closed or garbage."""

    def __init__(self, room: OneAtATime, size: int) -> None:
        self._ends: list[Callable[[], object]] = [partial(room._leave, size)]

    def at_end(self, call: Callable[[], None]) -> None:
        """Registers what to call, from any thread, when the place is given up."""
        self._ends.append(call)

    def close(self) -> None:
        """Gives the place up. Closing twice does nothing more."""
        while self._ends:
            self._ends.pop()()

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OneAtATime:
    """Memory for work of which one piece is done at a time: the largest piece that is done or waits is reserved.

    Args:
        budget: Where it is reserved.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._sizes: list[int] = []
        self._room = 0
        self._lock = threading.Lock()
        self._left: deque[int] = deque()  # as `Budget._returned`
        self._growth = threading.Lock()  # one piece of work waits for room; smaller ones pass it by

    def take(self, size: int, field: str = "") -> Place:
        """Reserves bytes for a piece of work, until the place is closed.

        Raises:
            InvalidInput, Overloaded: As for `Budget.reserve`.
        """
        self._budget.check(size, field)
        place = Place(self, size)
        with self._lock:
            self._sizes.append(size)
        try:
            self._grow(size)
        except BaseException:
            place.close()
            raise
        self._settle()
        return place

    def try_to_take(self, size: int) -> Place | None:
        """The same, but waits for nothing and empties no cache. None: there is no room."""
        place = Place(self, size)
        with self._lock:
            self._sizes.append(size)
        if not self._try_to_grow(size):
            place.close()
            return None
        self._settle()
        return place

    def _grow(self, size: int) -> None:
        if size <= self._room:
            return
        with self._growth:
            missing = max(0, size - self._room)
            self._budget._take(missing, WAIT_SECONDS)
            with self._lock:
                self._room += missing

    def _try_to_grow(self, size: int) -> bool:
        if size <= self._room:
            return True
        if not self._growth.acquire(blocking=False):
            return False
        try:
            missing = max(0, size - self._room)
            if not self._budget._try_to_take(missing):
                return False
            with self._lock:
                self._room += missing
            return True
        finally:
            self._growth.release()

    def _leave(self, size: int) -> None:
        self._left.append(size)
        self._settle()

    def _settle(self) -> None:
        while self._left and self._lock.acquire(blocking=False):
            try:
                while self._left:
                    self._sizes.remove(self._left.popleft())
                surplus = max(0, self._room - max(self._sizes, default=0))
                self._room -= surplus
            finally:
                self._lock.release()
            self._budget._give_back(surplus)


PROCESS = Budget()
"""The budget of this process."""
