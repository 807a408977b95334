"""Work for the device, as its scheduler takes it, and how much of it goes together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from gramlet.errors import Cancelled
from gramlet.types import Timing


@dataclass(frozen=True)
class Batching:
    """Limits of one device pass, and of the queue. The defaults suit a CPU.

    Attributes:
        pictures: Pictures in one pass.
        pixels: Pixels in one pass. A single larger picture is a pass of its own.
        queue_limit: Pictures that may wait before new callers are refused.
        linger: How long the device waits for the callers of the last pass to send their next pictures, as a share of
            that pass's time. It does not wait after a pass of one caller, nor while other work is queued. For the next
            piece of long work it waits as long, if its caller would be served next.
    """

    pictures: int = 16
    pixels: int = 2 * 1024 * 1024
    queue_limit: int = 256
    linger: float = 0.2

    def completed(self, other: Batching) -> Batching:
        """This one, with the limits of another where it has 0."""
        return Batching(
            self.pictures or other.pictures, self.pixels or other.pixels, self.queue_limit or other.queue_limit
        )

    def room(self, pixels: int) -> int:
        """How many pictures of so many pixels fit one pass."""
        return max(1, min(self.pictures, self.pixels // max(1, pixels)))


@dataclass(frozen=True, eq=False)
class Later:
    """Results of a pass that has begun.

    Attributes:
        wait: Waits for them: one for each picture.
    """

    wait: Callable[[], Sequence[Any]]


@dataclass(eq=False)
class Work:
    """Device work for one picture.

    Attributes:
        kind: For the metrics.
        key: Work of equal keys may share a pass. None never shares.
        pixels: Estimate of its cost.
        run: Does the work of a whole pass: takes the payloads of all its pictures, returns one result for each. Or it
            begins the pass, and the results come later.
        payload: What `run` needs for this picture.
        overlaps: Whether its pass may begin while another one computes.
    """

    kind: str
    key: Hashable
    pixels: int
    run: Callable[[Sequence[Any]], Sequence[Any] | Later]
    payload: Any
    overlaps: bool = False
    future: Future[tuple[Any, Timing]] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)


class Queue(Protocol):
    """The part of the scheduler that callers use: a queue for their work."""

    def enqueue(self, caller: Caller, works: Sequence[Work]) -> None:
        """Queues work behind the caller's earlier work."""
        ...

    def remove(self, caller: Caller) -> None:
        """Cancels the caller's work that still waits."""
        ...


class Caller:
    """One stream or call, for as long as it may send work. Closing it cancels its work that still waits."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.clock = 0.0
        self.waiting: deque[Work] = deque()
        self.closed = False

    def submit(self, work: Work) -> Future[tuple[Any, Timing]]:
        """Queues work behind this caller's earlier work.

        Raises:
            Cancelled: This caller is closed.
            Unavailable: The scheduler is closed.
        """
        return self.submit_together([work])[0]

    def submit_together(self, works: Sequence[Work]) -> list[Future[tuple[Any, Timing]]]:
        """Queues several pieces of work at once, so that the device does not start with the first alone."""
        self._queue.enqueue(self, works)
        return [work.future for work in works]

    def close(self) -> None:
        """Cancels the work that still waits. A pass that is running is finished and its result dropped."""
        self._queue.remove(self)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def outcome(future: Future[tuple[Any, Timing]]) -> tuple[Any, Timing]:
    """Waits for the result of work.

    Raises:
        Cancelled: The caller was closed meanwhile.
    """
    try:
        return future.result()
    except CancelledError:
        raise Cancelled("the call was closed while it waited for the device") from None


Batch = list[tuple[Caller, Work]]
"""The work of one pass, and whose each is."""


def priority(caller: Caller) -> tuple[float, float]:
    """The earliest clock first; of equal clocks, the work that was submitted first."""
    return caller.clock, caller.waiting[0].submitted


def take(callers: Iterable[Caller], key: Hashable, batching: Batching) -> tuple[Batch, int]:
    """Takes the first work of the callers and all that may join its pass, in the order of the callers' clocks.

    Returns:
        The pass, and how many pictures no longer wait: those of the pass, and those that were cancelled.
    """
    batch: Batch = []
    pixels = taken = 0
    # Each round takes one picture of every caller. So one caller's long collection cannot fill the pass before the
    # other callers had room in it.
    fitting = sorted((caller for caller in callers if caller.waiting), key=priority)
    while fitting:
        rest = []
        for caller in fitting:
            if not caller.waiting or caller.waiting[0].key != key:
                continue
            work = caller.waiting[0]
            full = len(batch) >= batching.pictures or pixels + work.pixels > batching.pixels
            if batch and (full or key is None):
                return batch, taken
            caller.waiting.popleft()
            taken += 1
            rest.append(caller)
            if work.future.set_running_or_notify_cancel():
                batch.append((caller, work))
                pixels += work.pixels
        fitting = rest
    return batch, taken
