"""Work on pictures ahead of those who read its results: in several threads, in groups, and in order."""

from __future__ import annotations

import math
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from gramlet.errors import GramletError
from gramlet.tensor.fitting import picture_bytes
from gramlet.types import Picture

PREPARING_THREADS = min(8, os.cpu_count() or 1)
"""Threads in which the pictures of one call are decoded and resized."""
SHARE_BYTES = 128 * 1024
"""Pictures that are decoded by one thread at a time have together at least so many bytes, as they travel."""
JOINED = 64
"""Outcomes that are finished are handed on together, up to about so many."""
JOINED_BYTES = 4 * 2**20
"""The same in bytes."""
AHEAD_BYTES = 256 * 2**20
"""Results that wait for a slow reader of a stream, in all. Those that it has just taken come on top."""
SHARES = 4
"""Of many pictures, each thread takes a part about so often: often enough to end together."""

In = TypeVar("In")
Out = TypeVar("Out")


def group_size(pass_size: int, queue_limit: int) -> int:
    """How many pictures a stream hands on together: a pass, or so few that it never fills half of the device's queue.

    A stream has one group that its consumer waits for, and two more ahead of it.
    """
    return max(1, min(pass_size, queue_limit // 2 // 3))


def groups_of(messages: Iterable[Sequence[In]], most: int) -> Iterator[Sequence[In]]:
    """The elements of each message, at most so many at a time."""
    for message in messages:
        for start in range(0, len(message), most):
            yield message[start : start + most]


def shares_of(pictures: Sequence[Picture | GramletError]) -> Iterator[Sequence[Picture | GramletError]]:
    """The pictures of a group for one thread at a time."""
    return (pictures[start:end] for start, end in share_bounds(pictures))


def share_bounds(pictures: Sequence[Picture | GramletError]) -> Iterator[tuple[int, int]]:
    """Which pictures one thread decodes: several small ones together, because a hand-over costs as much as they do."""
    sizes = [0 if isinstance(picture, GramletError) else picture_bytes(picture) for picture in pictures]
    enough = max(SHARE_BYTES, sum(sizes) // (SHARES * PREPARING_THREADS))
    start, size = 0, 0
    for end, more in enumerate(sizes, 1):
        size += more
        if size >= enough or end == len(sizes):
            yield start, end
            start, size = end, 0


class LargestOutcome:
    """The bytes of the largest outcome of a stream so far; before the first one, what an outcome may have at most."""

    def __init__(self, most: int) -> None:
        self._found = most
        self._is_known = False

    def see(self, size: int) -> None:
        """Takes note of an outcome."""
        self._found = max(self._found, size) if self._is_known else size
        self._is_known = True

    @property
    def joined(self) -> int:
        """How many outcomes are handed on together, if they are finished."""
        return min(JOINED, JOINED_BYTES // max(1, self._found))

    def __call__(self) -> int:
        """The bytes."""
        return self._found


class _Room:
    """Room for the results that are ahead of their consumer: so many, of so many bytes. One result always fits."""

    def __init__(self, results: int, size: float) -> None:
        self._free = [results, size]
        self._most = size
        self._closed = False
        self._changed = threading.Condition()

    def take(self, size: int, *, wait: bool) -> bool:
        """Takes room for a result of that size, and waits for it if told so; whether there was some."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or self._fits(size))
            if not self._closed and not self._fits(size):
                return False
            self._free[0] -= 1
            self._free[1] -= size
        return True

    def give_back(self, results: int, size: float) -> None:
        """The consumer has taken results of so many bytes in all."""
        with self._changed:
            self._free[0] += results
            self._free[1] += size
            self._changed.notify_all()

    def close(self) -> None:
        """Lets nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self._free[0] > 0 and (size <= self._free[1] or self._free[1] == self._most)


@dataclass(frozen=True)
class _Group(Generic[Out]):
    """A group under way.

    Attributes:
        shares: What its threads will return.
        size: The bytes for which its results have room.
    """

    shares: list[Future[list[Out]]]
    size: int


class MapAhead(Generic[In, Out]):
    """Maps over groups of elements in threads, at most `window` elements ahead of the consumer.

    Args:
        window: Elements.
        most_bytes: Of results; a single one may have more. A group that has more is split.
        size: The bytes that the next result may have.
    """

    def __init__(self, window: int, most_bytes: float = math.inf, size: Callable[[], int] = lambda: 0) -> None:
        self._room = _Room(window, most_bytes)
        self._size = size
        # The groups; then None at the end, or the exception of the iterable.
        self._taken: queue.SimpleQueue[_Group[Out] | BaseException | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="prepare")
        self._closed = False
        self._seen: list[_Group[Out] | BaseException | None] = []  # taken from the queue and put back

    def map(
        self,
        function: Callable[[Sequence[In]], list[Out]],
        groups: Iterable[Sequence[In]],
        shares: Callable[[Sequence[In]], Iterable[Sequence[In]]],
    ) -> Iterator[list[Out]]:
        """Yields what function returns for each group, in order; it is called for shares of a group.

        An exception of the iterable is raised after the groups before it.
        """
        take = partial(copy_context().run, self._take, function, groups, shares)  # the context: whose call it is
        threading.Thread(target=take, name="ahead", daemon=True).start()
        try:
            while (taken := self._seen.pop() if self._seen else self._taken.get()) is not None:
                if isinstance(taken, BaseException):
                    raise taken
                yield self._results(taken)
        finally:
            # Lets the thread that takes elements end: it may wait for room.
            self._closed = True
            self._room.close()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def next_if(self, condition: Callable[[Out], bool]) -> list[Out] | None:
        """What `map` would yield next, if it is there and the condition holds for every element; otherwise None."""
        if not self._seen:
            try:
                self._seen.append(self._taken.get_nowait())
            except queue.Empty:
                return None
        group = self._seen[0]
        if not isinstance(group, _Group) or not all(
            share.done() and share.exception() is None for share in group.shares
        ):
            return None
        if not all(condition(element) for share in group.shares for element in share.result()):
            return None
        self._seen.clear()
        return self._results(group)

    def _begin(self, function: Callable[[Sequence[In]], list[Out]], shares: Iterable[Sequence[In]], size: int) -> None:
        self._taken.put(_Group([self._pool.submit(copy_context().run, function, share) for share in shares], size))

    def _results(self, group: _Group[Out]) -> list[Out]:
        results = [result for share in group.shares for result in share.result()]
        self._room.give_back(len(results), group.size)
        return results

    def _take(
        self,
        function: Callable[[Sequence[In]], list[Out]],
        groups: Iterable[Sequence[In]],
        shares: Callable[[Sequence[In]], Iterable[Sequence[In]]],
    ) -> None:
        try:
            for group in groups:
                start = size = 0
                for end in range(len(group)):
                    more = self._size()
                    if not self._room.take(more, wait=end == start):
                        # What is at hand is not kept back by what has no room: its consumer makes the room.
                        self._begin(function, shares(group[start:end]), size)
                        start, size = end, 0
                        self._room.take(more, wait=True)
                    size += more
                    if self._closed:
                        return
                self._begin(function, shares(group[start:]), size)
        except BaseException as error:
            self._taken.put(error)
        else:
            self._taken.put(None)
