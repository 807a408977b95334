"""One device, many callers: a thread that owns the device and takes its work from a fair queue, in batches.

The queue is start-time fair queueing (Goyal, Vin, Cheng, 1996). Each caller has a clock, which advances by the device
time that its work took, and the caller with the earliest clock is served next. A caller that comes back after a pause
starts at the clock of the caller served last, so a pause earns no credit. Work with the same key as the first in the
queue joins its pass, from any caller.

While a pass computes, the next one may begin, so that its pictures are copied to the device meanwhile: if both are of a
kind that can, and if the next is at least as large. A smaller one waits for more pictures while the device is busy.

Work that takes long, such as a picture in tiles, is submitted in pieces, each a pass of its own. Other callers are
served between two pieces. A pass that is long by itself is computed in turns: after each it is suspended, and it goes
on when the clock of its caller is the earliest again. One pass at most is suspended, because it holds memory.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from gramlet.errors import Cancelled, Overloaded, Unavailable, counted

from gramlet_server.feature.work import (
    Batch,
    Batching,
    Caller,
    PassRunner,
    UnderWay,
    Work,
    following,
    take,
    waiting,
)


@dataclass(frozen=True)
class _Expected:
    """How many pictures of a key the next pass may wait for, and until when (`time.monotonic`)."""

    key: Hashable = None
    pictures: int = 0
    until: float = 0.0


@dataclass(frozen=True, eq=False)
class _Returning:
    """A caller whose work nobody shares, for whose next piece the device may wait until then (`time.monotonic`)."""

    caller: Caller
    until: float


def _ignore(*_: object) -> None:
    pass


class Scheduler:
    """Owns the device thread.

    Args:
        batching: The limits.
        report_queue: Called with the number of waiting pictures whenever it changes.
        report_pass: Called after every pass with its kind, its number of pictures and its seconds.

    Attributes:
        device_seconds: The time that passes took so far.
    """

    def __init__(
        self,
        batching: Batching,
        report_queue: Callable[[int], None] = _ignore,
        report_pass: Callable[[str, int, float], None] = _ignore,
    ) -> None:
        self._batching = batching
        self._report_queue = report_queue
        self._report_pass = report_pass
        self._changed = threading.Condition()
        self._callers: set[Caller] = set()
        self._queued = 0
        self._stopping = False
        self._clock = 0.0
        self._paces: dict[str, float] = {}
        self._expected = _Expected()
        self._returning: _Returning | None = None
        self._passes = PassRunner(self._charge, self._account)
        self._under_way: UnderWay | None = None
        self._awaited: Callable[[], object] = lambda: True  # by the device thread
        self._ended = 0.0
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

    @property
    def backlog_seconds(self) -> float:
        """Estimate of the time that the waiting pictures need."""
        with self._changed:
            return self._waiting_seconds()

    @property
    def queue_limit(self) -> int:
        """Pictures that may wait before new callers are refused."""
        return self._batching.queue_limit

    @property
    def pictures_per_pass(self) -> int:
        """The most pictures that share a pass."""
        return self._batching.pictures

    def pace(self, kind: str) -> float:
        """Seconds for each pixel of work of a kind; 0: none was done yet."""
        return self._paces.get(kind, 0.0)

    def room(self, pixels: int) -> int:
        """How many pictures of so many pixels may share a pass."""
        return self._batching.room(pixels)

    def caller(self, pictures: int = 1) -> Caller:
        """Admits a caller that is about to send so many pictures.

        Raises:
            Overloaded: The queue has no room for them; `retry_after` estimates when it will have.
        """
        caller = Caller(self)
        with self._changed:
            if pictures and self._queued and self._queued + pictures > self.queue_limit:
                raise Overloaded(
                    f"the queue of the device has {counted(self._queued, 'picture')} and takes {self.queue_limit}",
                    retry_after=min(30.0, max(0.1, self._waiting_seconds() / 2)),
                )
            self._callers.add(caller)
        return caller

    def close(self) -> None:
        """Stops after the pass that is running; work that still waits fails with Unavailable."""
        with self._changed:
            self._stopping = True
            self._wake()
        self._thread.join()
        with self._changed:
            left = [work for caller in self._callers for work in caller.waiting]
        for work in left:
            if work.future.set_running_or_notify_cancel():
                work.future.set_exception(_closed())

    def enqueue(self, caller: Caller, works: Sequence[Work]) -> None:
        """Queues a caller's work; see `Caller.submit`."""
        with self._changed:
            if self._stopping:
                raise _closed()
            if caller.closed:
                raise Cancelled("the call is closed")
            # Between two pieces of long work the queue of its caller is empty. That is no pause: what it has waited
            # for its turn still counts.
            is_returning = self._returning is not None and self._returning.caller is caller
            if not caller.waiting and not is_returning:
                caller.clock = max(caller.clock, self._clock)
            caller.waiting.extend(works)
            self._count(len(works))
            self._wake()

    def remove(self, caller: Caller) -> None:
        """Forgets a caller and cancels its waiting work; see `Caller.close`."""
        with self._changed:
            caller.closed = True
            self._callers.discard(caller)
            self._count(-len(caller.waiting))
            for work in caller.waiting:
                work.future.cancel()
            caller.waiting.clear()
            self._wake()

    def _wake(self) -> None:
        """Wakes the device thread if what it waits for has come. It would otherwise wake up for every picture."""
        if self._awaited():
            self._changed.notify_all()

    def _count(self, change: int) -> None:
        self._queued += change
        self._report_queue(self._queued)

    def _waiting_seconds(self) -> float:
        return sum(work.pixels * self.pace(work.kind) for caller in self._callers for work in caller.waiting)

    # --- the device thread ---

    def _work(self) -> None:
        while self._serve():
            pass

    def _serve(self) -> bool:
        """Begins the next pass or gives the suspended one a turn, and ends the one before; whether there is more."""
        # Nothing is kept of a pass that has ended: it may hold gigabytes.
        batch = self._next_batch()
        before, self._under_way = self._under_way, None
        if batch:
            self._under_way = self._passes.begin(batch)
        elif self._passes.suspended is not None:
            self._passes.advance()
        if before is not None:
            self._passes.end(before)
        return batch is not None or self._passes.suspended is not None

    def _next_batch(self) -> Batch | None:
        """Waits for work; None when the scheduler is closed. Empty where a pass under way is to end or to go on."""
        with self._changed:
            self._wait_until(lambda: self._queued or self._under_way or self._passes.suspended or self._stopping)
            if self._stopping:
                return None
            suspended = self._passes.suspended
            if not self._queued and suspended is None:
                return []
            if self._under_way is None:
                self._await_returning()
            first = following(self._callers, suspended)
            if first is None:
                self._clock = max(self._clock, suspended.priority[0] if suspended else 0.0)
                return []
            under_way, head = self._under_way, first.waiting[0]
            if under_way and not (head.overlaps and waiting(self._callers, head.key) >= len(under_way.batch)):
                return []
            self._clock = max(self._clock, first.clock)
            if not self._under_way and not suspended:
                self._linger(head)
            batch, popped = take(self._callers, head.key, self._batching)
            self._count(-popped)
            return batch

    def _await_returning(self) -> None:
        """Waits a little for the caller of long work to send the next piece, if it would be served next.

        Between two pieces its queue is empty for a moment. Without this wait, everybody else who has work in the queue
        would be served after each piece, however little the device has worked for this caller.
        """
        returning = self._returning
        if returning is None:
            return
        caller, suspended = returning.caller, self._passes.suspended

        def is_decided() -> bool:
            clocks = [other.clock for other in self._callers if other.waiting]
            clocks += [suspended.priority[0]] if suspended else []
            is_late = min(clocks, default=0.0) <= caller.clock
            return self._stopping or caller.closed or bool(caller.waiting) or is_late

        self._wait_until(is_decided, returning.until)
        self._returning = None

    def _linger(self, head: Work) -> None:
        """Waits a little for the callers of the last pass: they tend to send the next picture at once.

        A full pass costs each of them less than a pass of its own. After a pass of a single caller nobody is expected;
        after a pass of eight, eight pictures are. A caller that does not return costs one wait; the scheduler then
        stops waiting for it.
        """
        expected = self._expected
        if head.key is None or head.key != expected.key:
            return
        wanted = min(self._batching.room(head.pixels), expected.pictures)

        def is_decided() -> bool:
            return self._stopping or self._queued >= wanted or self._queued > waiting(self._callers, head.key)

        self._wait_until(is_decided, expected.until)

    def _wait_until(self, is_decided: Callable[[], object], until: float = math.inf) -> None:
        """Waits on the device thread for a condition, which those who change something check, or for a time."""
        self._awaited = is_decided
        while not is_decided() and (rest := until - time.monotonic()) > 0:
            self._changed.wait(None if math.isinf(rest) else rest)

    def _expected_after(self, served: Batch, until: float) -> _Expected:
        key = served[0][1].key
        more = waiting(self._callers, key)
        returning = [caller for caller, _ in served if not caller.waiting]  # the others still have work in the queue
        if not more and len(set(returning)) == 1:
            return _Expected()
        return _Expected(key, more + len(returning), until)

    def _charge(self, batch: Batch, began: float) -> float:
        """Charges the callers of a pass for its seconds since then, and returns those."""
        now = time.monotonic()
        # It may have begun while the one before it computed. Those seconds are charged once.
        seconds, self._ended = now - max(began, self._ended), now
        pixels = sum(work.pixels for _, work in batch)
        with self._changed:
            self.device_seconds += seconds
            for caller, work in batch:
                caller.clock += seconds * work.pixels / pixels
            # Calls with one picture each are too short for their own clocks to advance. The common clock therefore
            # advances at the pace of a fair share; otherwise an endless series of such calls would always be served
            # before a caller that came earlier.
            self._clock += seconds / max(1, len(self._callers))
        return seconds

    def _account(self, batch: Batch, seconds: float) -> None:
        """Learns from a pass that has ended, and reports it."""
        kind, pixels = batch[0][1].kind, sum(work.pixels for _, work in batch)
        with self._changed:
            until = time.monotonic() + self._batching.linger * seconds
            self._expected = self._expected_after(batch, until)
            self._returning = _Returning(batch[0][0], until) if batch[0][1].key is None else None
            pace = seconds / pixels
            self._paces[kind] = 0.8 * self._paces[kind] + 0.2 * pace if kind in self._paces else pace
        self._report_pass(kind, len(batch), seconds)


def _closed() -> Unavailable:
    return Unavailable("the server is shutting down", retry_after=1.0)
