"""Work for the device, as its scheduler takes it: how much of it goes together in a pass, and how passes run."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from gramlet.errors import Cancelled
from gramlet.types import Timing

from gramlet_server.feature.steps import Steps, advance

_log = logging.getLogger(__name__)


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
            begins the pass, and the results come later, or after some steps.
        payload: What `run` needs for this picture.
        overlaps: Whether its pass may begin while another one computes.
        is_long: Whether `run` returns steps, between which other work is served. While such a pass is suspended it
            holds memory, so that no other one begins before it has ended.
    """

    kind: str
    key: Hashable
    pixels: int
    run: Callable[[Sequence[Any]], Sequence[Any] | Later | Steps[Sequence[Any]]]
    payload: Any
    overlaps: bool = False
    is_long: bool = False
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
        """Cancels the work that still waits. A pass that is running is finished, or its turn; its result is dropped."""
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


def waiting(callers: Iterable[Caller], key: Hashable) -> int:
    """How many pictures of a key wait."""
    return sum(work.key == key for caller in callers for work in caller.waiting)


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


@dataclass(frozen=True, eq=False)
class UnderWay:
    """A pass that has begun: when, and what its results will come from."""

    batch: Batch
    began: float
    later: Later


@dataclass(eq=False)
class Suspended:
    """A pass between two turns.

    Attributes:
        batch: Whose it is.
        steps: What is still to be done.
        seconds: That its turns have taken.
    """

    batch: Batch
    steps: Steps[Sequence[Any]]
    seconds: float = 0.0

    @property
    def priority(self) -> tuple[float, float]:
        """As for callers that wait."""
        return min((caller.clock, work.submitted) for caller, work in self.batch)


def following(callers: Iterable[Caller], suspended: Suspended | None) -> Caller | None:
    """The caller to be served next. None: nobody waits, or the suspended pass is to go on first."""
    able = (each for each in callers if each.waiting and not (suspended and each.waiting[0].is_long))
    first = min(able, key=priority, default=None)
    goes_on = suspended is not None and (first is None or suspended.priority <= priority(first))
    return None if goes_on else first


class PassRunner:
    """Begins passes and ends them, on the device thread. The futures of their work get the results.

    Args:
        charge: Called with a pass and a time when it has worked since then; returns the seconds that count.
        account: Called with a pass and its seconds as soon as it has ended.

    Attributes:
        suspended: A pass that is computed in turns and has not ended.
    """

    def __init__(self, charge: Callable[[Batch, float], float], account: Callable[[Batch, float], None]) -> None:
        self._charge = charge
        self._account = account
        self.suspended: Suspended | None = None

    def begin(self, batch: Batch) -> UnderWay | None:
        """Begins a pass; None where it has ended, has failed, or is suspended."""
        began = time.monotonic()
        try:
            results = batch[0][1].run([work.payload for _, work in batch])
        except Exception as error:
            self._failed(batch, self._charge(batch, began), error)
            return None
        if isinstance(results, Generator):
            self.suspended = Suspended(batch, results)
            self.advance()
            return None
        if not isinstance(results, Later):
            self._settle(batch, self._charge(batch, began), results)
            return None
        under_way = UnderWay(batch, began, results)
        if batch[0][1].overlaps:
            return under_way
        self.end(under_way)
        return None

    def end(self, under_way: UnderWay) -> None:
        """Waits for the results of a pass, and hands them over."""
        batch, began = under_way.batch, under_way.began
        try:
            results = under_way.later.wait()
        except Exception as error:
            self._failed(batch, self._charge(batch, began), error)
        else:
            self._settle(batch, self._charge(batch, began), results)

    def advance(self) -> None:
        """Gives the suspended pass a turn, or ends it if all its callers have left."""
        suspended, self.suspended = self.suspended, None
        assert suspended is not None
        batch, began = suspended.batch, time.monotonic()
        if all(caller.closed for caller, _ in batch):
            suspended.steps.close()
            for _, work in batch:
                work.future.set_exception(Cancelled("the call was closed while the device worked for it"))
            return
        try:
            turn = advance(suspended.steps)
        except Exception as error:
            self._failed(batch, suspended.seconds + self._charge(batch, began), error)
            return
        suspended.seconds += self._charge(batch, began)
        if turn.ended:
            self._settle(batch, suspended.seconds, turn.result)
        else:
            self.suspended = suspended

    def _failed(self, batch: Batch, seconds: float, error: Exception) -> None:
        self._account(batch, seconds)
        if len(batch) == 1:
            batch[0][1].future.set_exception(error)
            return
        # One picture of the batch caused this. In passes of one, each picture gets its own outcome.
        _log.warning("a pass of %d pictures failed, trying each by itself: %s", len(batch), error)
        other = self.suspended
        for one in batch:
            if (under_way := self.begin([one])) is not None:
                self.end(under_way)
            while self.suspended is not None and self.suspended is not other:
                self.advance()

    def _settle(self, batch: Batch, seconds: float, results: Sequence[Any]) -> None:
        self._account(batch, seconds)
        now = time.monotonic()
        # That would be a bug of the pass. Callers whose result is missing must get an error: they would wait for ever.
        if len(results) != len(batch):
            error = RuntimeError(f"{len(results)} results of a pass of {len(batch)} pictures")
            for _, work in batch:
                work.future.set_exception(error)
            return
        for (_, work), result in zip(batch, results, strict=True):
            waited = max(0.0, now - work.submitted - seconds)
            work.future.set_result((result, Timing(waited, seconds, len(batch))))
