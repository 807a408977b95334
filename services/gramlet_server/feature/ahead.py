"""Work on pictures ahead of those who read its results: in several threads, in groups, and in order."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Generic, TypeVar

from gramlet.errors import GramletError
from gramlet.tensor.fitting import picture_bytes
from gramlet.types import Picture

PREPARING_THREADS = min(8, os.cpu_count() or 1)
"""Threads in which the pictures of one call are decoded and resized."""
SHARE_BYTES = 64 * 1024
"""Pictures that are decoded by one thread at a time have together at least so many bytes, as they travel."""
SHARES = 4
"""Of many pictures, each thread takes a part about so often: often enough to end together."""

In = TypeVar("In")
Out = TypeVar("Out")


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


class MapAhead(Generic[In, Out]):
    """Maps over groups of elements in threads, at most `window` elements ahead of the consumer."""

    def __init__(self, window: int) -> None:
        self._room = threading.Semaphore(window)
        # The futures of each group; then None at the end, or the exception of the iterable.
        self._taken: queue.SimpleQueue[list[Future[list[Out]]] | BaseException | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="prepare")
        self._closed = False
        self._seen: list[list[Future[list[Out]]] | BaseException | None] = []  # taken from the queue and put back

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
            self._room.release()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def next_if(self, condition: Callable[[Out], bool]) -> list[Out] | None:
        """What `map` would yield next, if it is there and the condition holds for every element; otherwise None."""
        if not self._seen:
            try:
                self._seen.append(self._taken.get_nowait())
            except queue.Empty:
                return None
        group = self._seen[0]
        if not isinstance(group, list) or not all(share.done() and share.exception() is None for share in group):
            return None
        if not all(condition(element) for share in group for element in share.result()):
            return None
        self._seen.clear()
        return self._results(group)

    def _results(self, group: list[Future[list[Out]]]) -> list[Out]:
        results = [result for share in group for result in share.result()]
        self._room.release(len(results))
        return results

    def _take(
        self,
        function: Callable[[Sequence[In]], list[Out]],
        groups: Iterable[Sequence[In]],
        shares: Callable[[Sequence[In]], Iterable[Sequence[In]]],
    ) -> None:
        try:
            for group in groups:
                for _ in group:
                    self._room.acquire()
                    if self._closed:
                        return
                self._taken.put([self._pool.submit(copy_context().run, function, share) for share in shares(group)])
        except BaseException as error:
            self._taken.put(error)
        else:
            self._taken.put(None)
