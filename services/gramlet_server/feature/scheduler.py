"""One device, many callers: a thread that owns the device and takes its work from a fair, batching queue.

Fairness is start-time fair queueing (Goyal, Vin, Cheng, 1996): every caller has a clock that runs while the device
works for it, and the caller whose clock is behind goes next. A caller that was away starts at the clock of the one
served last, so that absence earns no credit. Work that fits the head of the queue joins its pass, whoever sent it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

from gramlet.errors import Cancelled, Overloaded, Unavailable
from gramlet.types import Timing

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batching:
    """Bounds of one device pass, and of the queue.

    Attributes:
        pictures: Pictures in one pass.
        pixels: Pixels in one pass. A single larger picture is a pass of its own.
        queue_limit: Pictures that may wait before callers are refused.
        linger: How long the device may stand idle for those to come back whom the last pass served, as a share of its
            time. Whoever was alone is not waited for, nor is anybody while there is other work.
    """

    pictures: int = 16
    pixels: int = 2 * 1024 * 1024
    queue_limit: int = 256
    linger: float = 0.2

    def room(self, pixels: int) -> int:
        """How many pictures of so many pixels fit one pass."""
        return max(1, min(self.pictures, self.pixels // max(1, pixels)))


@dataclass(frozen=True)
class _Company:
    """Whom to expect in the next pass over pictures of a key, and until when (of `time.monotonic`)."""

    key: Hashable = None
    pictures: int = 0
    until: float = 0.0


@dataclass(eq=False)
class Work:
    """One picture's worth of device work.

    Attributes:
        kind: For the metrics.
        key: Work of equal keys may share a pass. None never shares.
        pixels: What it costs, roughly.
        run: Does all the work of a pass, one outcome each; it is called with the payloads of the whole pass.
        payload: What `run` needs of this one.
    """

    kind: str
    key: Hashable
    pixels: int
    run: Callable[[Sequence[Any]], Sequence[Any]]
    payload: Any
    future: Future[tuple[Any, Timing]] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)


class Caller:
    """One stream or call, for as long as it may send work. Closing it cancels what still waits."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.clock = 0.0
        self.waiting: deque[Work] = deque()
        self.closed = False

    def submit(self, work: Work) -> Future[tuple[Any, Timing]]:
        """Queues work behind this caller's earlier work."""
        return self.submit_together([work])[0]

    def submit_together(self, works: Sequence[Work]) -> list[Future[tuple[Any, Timing]]]:
        """Queues several pieces at once, so that the device does not begin with the first alone."""
        self._scheduler._submit(self, works)
        return [work.future for work in works]

    def close(self) -> None:
        """Cancels what still waits; what is on the device is finished and forgotten."""
        self._scheduler._close(self)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _turn(caller: Caller) -> tuple[float, float]:
    """Whose clock is behind; of equals, who came first."""
    return caller.clock, caller.waiting[0].submitted


def outcome(future: Future[tuple[Any, Timing]]) -> tuple[Any, Timing]:
    """Waits for work.

    Raises:
        Cancelled: The caller was closed meanwhile.
    """
    try:
        return future.result()
    except CancelledError:
        raise Cancelled("the call was closed while it waited for the device") from None


class Scheduler:
    """Owns the device thread.

    Args:
        batching: The bounds.
        queued: Told the number of waiting pictures whenever it changes.
        passed: Told of every pass: its kind, its pictures, its seconds.
    """

    def __init__(
        self,
        batching: Batching,
        queued: Callable[[int], None] = lambda _: None,
        passed: Callable[[str, int, float], None] = lambda *_: None,
    ) -> None:
        self._batching = batching
        self._tell_queued = queued
        self._tell_passed = passed
        self._changed = threading.Condition()
        self._callers: set[Caller] = set()
        self._queued = 0
        self._stopping = False
        self._clock = 0.0
        self._seconds_per_pixel = 0.0
        self._expected = _Company()
        self.device_seconds = 0.0
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Pictures that wait for the device."""
        return self._queued

    @property
    def callers(self) -> int:
        """Streams and calls that are open."""
        return len(self._callers)

    def caller(self, pictures: int = 1) -> Caller:
        """Admits a caller that is about to send so many pictures.

        Raises:
            Overloaded: The queue has no room for them; `retry_after` estimates when it will.
        """
        caller = Caller(self)
        with self._changed:
            if pictures and self._queued and self._queued + pictures > self._batching.queue_limit:
                raise Overloaded(
                    f"{self._queued} pictures wait for the device and the queue takes {self._batching.queue_limit}",
                    retry_after=self._drain_seconds(),
                )
            self._callers.add(caller)
        return caller

    def close(self) -> None:
        """Stops after the pass under way; what still waits fails with Unavailable."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        for caller in list(self._callers):
            for work in caller.waiting:
                if work.future.set_running_or_notify_cancel():
                    work.future.set_exception(Unavailable("the server is shutting down", retry_after=1.0))

    def _submit(self, caller: Caller, works: Sequence[Work]) -> None:
        with self._changed:
            if self._stopping:
                raise Unavailable("the server is shutting down", retry_after=1.0)
            if caller.closed:
                raise Cancelled("the call is closed")
            if not caller.waiting:
                caller.clock = max(caller.clock, self._clock)
            caller.waiting.extend(works)
            self._count(len(works))
            self._changed.notify_all()

    def _close(self, caller: Caller) -> None:
        with self._changed:
            caller.closed = True
            self._callers.discard(caller)
            self._count(-len(caller.waiting))
            for work in caller.waiting:
                work.future.cancel()
            caller.waiting.clear()

    def _count(self, change: int) -> None:
        self._queued += change
        self._tell_queued(self._queued)

    def _drain_seconds(self) -> float:
        pixels = sum(work.pixels for caller in self._callers for work in caller.waiting)
        return min(30.0, max(0.1, pixels * self._seconds_per_pixel / 2))

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._pass(batch)

    def _next_batch(self) -> list[tuple[Caller, Work]] | None:
        """Waits for work; None when the scheduler is closed."""
        with self._changed:
            while not self._queued:
                if self._stopping:
                    return None
                self._changed.wait()
            if self._stopping:
                return None
            first = self._next_caller()
            self._clock = max(self._clock, first.clock)
            head = first.waiting[0]
            self._linger(head)
            return self._take(head.key)

    def _linger(self, head: Work) -> None:
        """Waits a little for those whom the last pass served. They tend to come back, and a full pass costs them less.

        Who expects whom follows the load: one caller alone makes passes of one and expects nobody else; eight that
        come back together are waited for; those that stay away are missed once, and not expected again.
        """
        expected = self._expected
        if head.key is None or head.key != expected.key:
            return
        wanted = min(self._batching.room(head.pixels), expected.pictures)
        while not self._stopping:
            rest = expected.until - time.monotonic()
            waiting = self._waiting(head.key)
            if waiting >= wanted or self._queued > waiting or rest <= 0:
                return
            self._changed.wait(rest)

    def _company(self, served: list[tuple[Caller, Work]], until: float) -> _Company:
        key = served[0][1].key
        waiting = self._waiting(key)
        leaving = [caller for caller, _ in served if not caller.waiting]  # who still has work here need not come back
        if not waiting and len(set(leaving)) == 1:
            return _Company()
        return _Company(key, waiting + len(leaving), until)

    def _waiting(self, key: Hashable) -> int:
        return sum(work.key == key for caller in self._callers for work in caller.waiting)

    def _next_caller(self) -> Caller:
        return min((caller for caller in self._callers if caller.waiting), key=_turn)

    def _take(self, key: Hashable) -> list[tuple[Caller, Work]]:
        """The head of the queue and all that may join it, in the order of the callers' clocks."""
        batch: list[tuple[Caller, Work]] = []
        pixels = 0
        # A lap takes one picture of each caller, so that nobody's corpus fills the pass before others had a place.
        fitting = sorted((caller for caller in self._callers if caller.waiting), key=_turn)
        while fitting:
            rest = []
            for caller in fitting:
                if not caller.waiting or caller.waiting[0].key != key:
                    continue
                work = caller.waiting[0]
                full = len(batch) >= self._batching.pictures or pixels + work.pixels > self._batching.pixels
                if batch and (full or key is None):
                    return batch
                caller.waiting.popleft()
                self._count(-1)
                rest.append(caller)
                if work.future.set_running_or_notify_cancel():
                    batch.append((caller, work))
                    pixels += work.pixels
            fitting = rest
        return batch

    def _pass(self, batch: list[tuple[Caller, Work]]) -> None:
        works = [work for _, work in batch]
        began = time.monotonic()
        try:
            results: Sequence[Any] = works[0].run([work.payload for work in works])
        except Exception as error:
            if len(batch) > 1:
                # One of them is at fault; alone, each gets its own outcome.
                _log.warning("a pass of %d failed, each is tried alone: %s", len(batch), error)
                for one in batch:
                    self._pass([one])
                return
            works[0].future.set_exception(error)
            results = []
        seconds = time.monotonic() - began
        self._account(batch, seconds)
        for work, result in zip(works, results, strict=False):
            timing = Timing(began - work.submitted, seconds, len(batch))
            work.future.set_result((result, timing))

    def _account(self, batch: list[tuple[Caller, Work]], seconds: float) -> None:
        pixels = sum(work.pixels for _, work in batch)
        with self._changed:
            self.device_seconds += seconds
            for caller, work in batch:
                caller.clock += seconds * work.pixels / pixels
            self._expected = self._company(batch, time.monotonic() + self._batching.linger * seconds)
            # Callers that come for one picture never fall behind by their own clock. Everybody's clock goes on at the
            # pace of a fair share, or an endless row of them would pass those who came before.
            self._clock += seconds / max(1, len(self._callers))
            rate = seconds / pixels
            self._seconds_per_pixel = (
                rate if not self._seconds_per_pixel else 0.8 * self._seconds_per_pixel + 0.2 * rate
            )
        self._tell_passed(batch[0][1].kind, len(batch), seconds)
