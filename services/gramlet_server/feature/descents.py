"""Descents as callers of the device: their queue, and one as its caller sees it."""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from gramlet.errors import InvalidInput
from gramlet.feature.descent_types import (
    DescentEvent,
    DescentPreview,
    DescentQueued,
    DescentStart,
    DescentState,
    DescentWeights,
)

from gramlet_server.feature.descent_parts import PreviewPixels
from gramlet_server.feature.descent_requests import Requests
from gramlet_server.feature.descent_work import DescentWork, Pace, Report
from gramlet_server.feature.differentiation import Differentiator
from gramlet_server.feature.passes import Passes
from gramlet_server.feature.snapshot import Snapshot
from gramlet_server.feature.targets import TargetBuilder
from gramlet_server.feature_source import check_weights
from gramlet_server.pictures.encode import encode_jpeg
from gramlet_server.runs.events import EventBuffer
from gramlet_server.runs.queue import BEAT_SECONDS, RunQueue
from gramlet_server.telemetry import Observer


@dataclass(frozen=True)
class DescentLimits:
    """How many descents run at once (0: as suits the device), and how many may wait; more are refused."""

    running: int = 0
    queued: int = 64


class Descents:
    """All descents of a device.

    Args:
        passes: The network.
        targets: Computes what objectives compare with.
        differentiator: Evaluates objectives.
        limits: How many descents.
        observer: Is given the numbers of running and of waiting descents, and of gradients.

    Attributes:
        queue: Where descents wait.
    """

    def __init__(
        self,
        passes: Passes,
        targets: TargetBuilder,
        differentiator: Differentiator,
        limits: DescentLimits,
        observer: Observer,
    ) -> None:
        self._passes = passes
        self._targets = targets
        self._differentiator = differentiator
        running = limits.running or (16 if passes.network.device.type == "cuda" else 2)
        self.queue = RunQueue(running, limits.queued, partial(observer.runs, "descend"))
        self._pace = Pace(observer.gradients)
        self._open: set[LocalDescent] = set()
        self._lock = threading.Lock()

    def open(self, start: DescentStart) -> LocalDescent:
        """Puts a descent into the queue. Leave its `with` block in the end.

        Raises:
            InvalidInput: The objective cannot be computed, or there is nothing to start from.
            OtherWeights: Another network is wanted.
            Overloaded: The queue is full. Nothing was done.
            Unavailable: The server is shutting down. Nothing was done.
        """
        self.check(start)
        requests, happened = Requests(), EventBuffer[Report](replaceable=(PreviewPixels,))
        network = self._passes, self._targets, self._differentiator
        work = DescentWork(*network, start, requests, happened, self._pace, lambda: self.queue.running - 1)
        with self._lock:  # `drain` closes the queue in it, and tells all that had a ticket before
            descent = LocalDescent(self.queue, work, requests, happened, self._remove)
            self._open.add(descent)
        return descent

    def check(self, start: DescentStart) -> None:
        """Refuses what cannot begin. The pictures may still be as they travel. Errors are those of `open`."""
        check_weights(start.weights_digest, self._passes.network.digest, "start.weights_digest")
        self.queue.check()
        self._targets.check(start.objective)
        has_content = start.objective.content is not None
        if start.luminance_only and not has_content:
            raise InvalidInput("to keep the content's colors, send the content", field="start.objective.content")
        if not (has_content or start.initial is not None or start.state):
            raise InvalidInput("send a content, or a picture to start from", field="start.initial")

    def drain(self) -> None:
        """Lets every descent hand out its state and fail with Unavailable, so that it goes on at another server."""
        with self._lock:
            self.queue.close()
            descents = list(self._open)
        for descent in descents:
            descent.drain()

    @property
    def backlog_seconds(self) -> float:
        """Estimate of the time that the device needs for all descents, those that wait included."""
        with self._lock:
            return sum(descent.remaining_seconds for descent in self._open)

    def _remove(self, descent: LocalDescent) -> None:
        with self._lock:
            self._open.discard(descent)


class LocalDescent:
    """A descent in this process: an iterator of its events, for one reader, to be used in a `with` block.

    The work has a thread of its own, which begins when the queue's turn has come to it, and does not wait for the
    reader. Of the previews that wait for the reader only the newest is kept. Previews and states become files when the
    reader takes them. Other methods than those of the iterator may be called in any thread.
    """

    def __init__(
        self,
        queue: RunQueue,
        work: DescentWork,
        requests: Requests,
        happened: EventBuffer[Report],
        closed: Callable[[LocalDescent], None],
    ) -> None:
        self._ticket = queue.take()
        self._queue = queue
        self._work = work
        self._requests = requests
        self._happened = happened
        self._closed = closed
        self._thread: threading.Thread | None = None
        self._burst: deque[DescentEvent | Snapshot] = deque()
        self._bursts = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[DescentEvent]:
        return self

    def __next__(self) -> DescentEvent:
        """Waits for the next event.

        Raises:
            StopIteration: The descent has ended.
            InvalidInput: The start, or new weights, are wrong.
            FailedPrecondition: The loss is not a number.
            Cancelled: The descent was cancelled.
            Unavailable: The server is shutting down, or its device has failed. A DescentState came before if possible.
        """
        while not self._burst:
            self._burst.extend(next(self._bursts))
        event = self._burst.popleft()
        return _state(event) if isinstance(event, Snapshot) else event

    def bursts(self) -> Iterator[Sequence[DescentEvent | Snapshot]]:
        """The same events as they arrive, instead of the iterator itself. Nothing for BEAT_SECONDS is an empty burst.

        At the pace of a GPU many iterations come at once. Snapshots stand for states, so that a reader that sends them
        on needs no memory for the whole file.
        """
        return self._bursts

    @property
    def remaining_seconds(self) -> float:
        """Estimate of the time that the device still needs for it."""
        return self._work.remaining_seconds

    def reweight(self, weights: DescentWeights) -> None:
        """Goes on with other weights from the next iteration on. Of several at once only the newest count."""
        self._requests.reweight(weights)

    def proceed(self) -> None:
        """Lets the last iteration begin; see DescentStart.confirm_last."""
        self._requests.proceed()

    def stop(self) -> None:
        """Ends the descent after the iteration under way, with a DescentState."""
        self._requests.stop()

    def drain(self) -> None:
        """The same, and then the descent fails with Unavailable."""
        self._requests.drain()

    def cancel(self) -> None:
        """Ends the work within one step on the device, and wakes the reader. Returns at once."""
        self._queue.cancel(self._ticket)
        self._work.cancel()
        self._happened.cancel()

    def close(self) -> None:
        """Ends the work, if it has not ended, and waits for that."""
        self.cancel()
        if self._thread is not None:
            self._thread.join()
        self._queue.leave(self._ticket)
        self._closed(self)

    def _read(self) -> Iterator[Sequence[DescentEvent | Snapshot]]:
        for position in self._queue.positions(self._ticket, BEAT_SECONDS):
            yield [DescentQueued(position=position)]
        # In the context of the call that it works for, so that its log lines carry that call's id.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=[self._run], name="descent", daemon=True)
        self._thread.start()
        while True:
            try:
                report = self._happened.take(BEAT_SECONDS)
            except StopIteration:
                return
            taken = time.monotonic()
            match report:
                case None:
                    yield []
                case tuple():
                    yield report
                case PreviewPixels(iteration, pixels):
                    jpeg = encode_jpeg(pixels().permute(1, 2, 0).numpy())
                    yield [DescentPreview(iteration=iteration, jpeg=jpeg)]
                case _:
                    yield [report]
            if isinstance(report, Snapshot):
                # The reader asks for the next event, so it has written or sent the state.
                self._requests.state_taken(time.monotonic() - taken)

    def _run(self) -> None:
        try:
            self._work.run()
        finally:
            self._queue.leave(self._ticket)


def _state(snapshot: Snapshot) -> DescentState:
    counts = snapshot.counts
    return DescentState(
        iteration=counts.iteration, number=counts.number, data=snapshot.to_bytes(), reweighted=snapshot.reweighted
    )
