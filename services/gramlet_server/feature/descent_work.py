"""The thread of one descent: gives the device its turns, hands on what happened, and passes on what the caller sends.

The thread waits for the device most of the time. Only the turns run on the device thread.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import replace

import torch
from gramlet.errors import Cancelled, InvalidInput, Overloaded, counted
from gramlet.feature.descent_types import (
    DescentFinished,
    DescentIteration,
    DescentReady,
    DescentStart,
    DescentWaiting,
)
from gramlet.types import Array, Timing
from torch import Tensor

from gramlet_server.backbone.precision import Precision
from gramlet_server.feature.canvas import AllColors, Canvas, LuminanceOnly, gray, resized
from gramlet_server.feature.descent import Descent
from gramlet_server.feature.descent_parts import Control, Happening
from gramlet_server.feature.descent_requests import Requests
from gramlet_server.feature.differentiation import Differentiator
from gramlet_server.feature.memory import descent_bytes, state_bytes
from gramlet_server.feature.objective import Targets
from gramlet_server.feature.passes import Passes
from gramlet_server.feature.snapshot import Snapshot
from gramlet_server.feature.steps import Holding, Pause, Steps
from gramlet_server.feature.targets import TargetBuilder
from gramlet_server.feature.work import Caller
from gramlet_server.process.memory_budget import PROCESS, Place, Reservation
from gramlet_server.runs.events import EventBuffer
from gramlet_server.runs.queue import RETRY_SECONDS, shutting_down

REPORT_SECONDS = 0.05
"""Iterations that follow each other faster are reported together."""

ROOM_SECONDS = 30.0
"""How long a descent waits for memory that others have."""

Report = Happening | tuple[DescentIteration, ...]
"""A report to the reader: one happening, or several iterations together."""


class Pace:
    """How fast the device descends, over all descents.

    Args:
        report: Called with the number of gradients that were computed.

    Attributes:
        seconds_per_pixel: Of one iteration; 0 until the first is done.
    """

    def __init__(self, report: Callable[[int], None]) -> None:
        self._report = report
        self.seconds_per_pixel = 0.0

    def add(self, iterations: int, pixels: int, timing: Timing) -> None:
        """A turn has taken so long for so many iterations."""
        self._report(iterations)
        found = timing.compute_seconds / (iterations * pixels)
        self.seconds_per_pixel = 0.8 * self.seconds_per_pixel + 0.2 * found if self.seconds_per_pixel else found


class DescentWork:
    """One descent, from its start to its end.

    Args:
        passes: The network.
        targets: Computes what objectives compare with.
        differentiator: Evaluates objectives.
        start: What to do.
        requests: What the caller sends meanwhile.
        happened: Where to report.
        pace: Is kept up to date.
        count_others: Returns how many other descents are under way on the device.
    """

    def __init__(
        self,
        passes: Passes,
        targets: TargetBuilder,
        differentiator: Differentiator,
        start: DescentStart,
        requests: Requests,
        happened: EventBuffer[Report],
        pace: Pace,
        count_others: Callable[[], int],
    ) -> None:
        self._passes, self._targets, self._differentiator = passes, targets, differentiator
        self._start, self._requests, self._happened = start, requests, happened
        self._pace, self._count_others = pace, count_others
        self._control = Control()
        content = start.objective.content if start.objective.content is not None else start.initial
        self._pixels = 0 if content is None else content[0].size
        self._remaining = start.iterations  # a state may leave fewer, which is known when it is read
        self._objective = start.objective
        self._number = 0  # of the weights in force
        self._unreported = Timing()  # time of turns since the last iteration
        self._unsent: list[DescentIteration] = []
        self._sent = 0.0
        self._began = 0.0
        self._lock = threading.Lock()
        self._cancelled = False
        self._held: list[Reservation | Place] = []
        self._caller: Caller | None = None
        self._is_long = False  # whether its passes are suspended for others

    @property
    def remaining_seconds(self) -> float:
        """Estimate of the time that the device still needs."""
        return self._remaining * self._pixels * self._pace.seconds_per_pixel

    def cancel(self) -> None:
        """Ends the work within one step on the device."""
        with self._lock:
            self._cancelled = True
            caller = self._caller
        if caller is not None:
            caller.close()
        self._requests.stop()  # so that it does not wait for the caller's confirmation

    def run(self) -> None:
        """Works until the descent has ended, failed, or was cancelled. Failures are reported to the reader."""
        try:
            with self._called() as caller:
                self._descend(caller)
        except BaseException as error:
            _free(error)
            self._send()
            self._happened.end(self._blamed(error))
        else:
            self._send()
            self._happened.end()
        finally:
            for each in self._held:
                each.close()

    def _blamed(self, error: BaseException) -> BaseException:
        """The error, unless the device's memory was full of other descents: then the picture is not at fault."""
        if isinstance(error.__context__, torch.OutOfMemoryError) and (others := self._count_others()):
            message = f"the device's memory is full, with {counted(others, 'other descent')} under way"
            return Overloaded(message, retry_after=RETRY_SECONDS)
        return error

    def _called(self) -> Caller:
        # Descents have a queue of their own: the scheduler never refuses one that has left it.
        with self._lock:
            if self._cancelled:
                raise Cancelled("the descent was cancelled")
            self._caller = self._passes.scheduler.caller(0)
            return self._caller

    def _descend(self, caller: Caller) -> None:
        descent = self._begin(caller)
        height, width = descent.size
        self._pixels = height * width
        self._began = time.monotonic()
        digest = self._passes.network.digest
        self._happened.put(DescentReady(iteration=descent.iteration, height=height, width=width, weights_digest=digest))
        steps = descent.run()
        while isinstance(last := self._take_turns(caller, descent, steps), DescentWaiting):
            self._requests.wait()
        if self._requests.draining and not isinstance(last, DescentFinished):
            raise shutting_down()

    def _take_turns(
        self, caller: Caller, descent: Descent, steps: Generator[Happening | Pause, None, None]
    ) -> Happening | None:
        """Gives the device turns until the descent waits for its caller, or has ended; returns what happened last."""
        happened: list[Happening] = []
        running = _until_waiting(steps, happened)
        while True:
            self._pass_requests(caller, descent.size)
            try:
                turn, timing = self._passes.run_turn(caller, "descent", self._pixels, running, self._is_long)
                self._add(descent, timing)
            finally:
                self._report(descent, happened)  # also what happened before a failure
                happened.clear()
            if turn.ended:
                return turn.result

    # --- the start ---

    def _begin(self, caller: Caller) -> Descent:
        start = self._start
        snapshot = Snapshot.from_bytes(start.state, "start.state") if start.state else None
        self._number = snapshot.counts.number if snapshot is not None else 0
        self._requests.was_interrupted = self._was_interrupted(snapshot)
        start = self._start = replace(start, state=b"")  # up to a gigabyte; the descent makes its own copy
        content = self._objective.content
        if start.luminance_only and content is not None:
            self._objective = replace(self._objective, content=gray(content))
        initial = content if start.initial is None else start.initial
        first = content if content is not None else initial if snapshot is None else snapshot.picture
        if first is not None:
            self._reserve(first.shape[1] * first.shape[2])
        targets = self._targets.build(caller, self._objective)
        if first is not None:
            size = (first.shape[1], first.shape[2])
            place, self._is_long = self._differentiator.room(size, targets, "start.objective.content")
            self._held.append(place)

        def begin() -> Descent:
            canvas, point = self._first_point(content, initial, snapshot)
            loss = self._loss(targets, (point.shape[1], point.shape[2]))
            return Descent(start, loss, canvas, self._passes.device, self._control, point, snapshot)

        descent, timing = self._passes.run_single(caller, "descent", max(1, self._pixels), begin)
        self._add(descent, timing)
        return descent

    def _was_interrupted(self, snapshot: Snapshot | None) -> bool:
        # In mixed precision, the last iterations of an undisturbed run go on from a state too.
        precision = self._passes.network.precision
        is_last_stretch = precision is Precision.MIXED and not self._objective.reduced_precision
        return snapshot is not None and snapshot.is_complete and not is_last_stretch

    def _first_point(
        self, content: Array | None, initial: Array | None, snapshot: Snapshot | None
    ) -> tuple[Canvas, Tensor]:
        """The canvas, and where on it to start, (C, H, W) at the size of the content; on the device thread."""
        place, is_gray = self._passes.device.place, self._start.luminance_only
        canvas: Canvas = AllColors()
        if is_gray and content is not None:
            canvas = LuminanceOnly(place(torch.tensor(content)))
        if snapshot is not None:
            point = place(snapshot.picture)
        elif initial is not None:
            point = canvas.of(place(torch.tensor(initial)))
        else:
            raise InvalidInput("send a content, or a picture to start from", field="start.initial")
        if len(point) != (1 if is_gray else 3):
            raise InvalidInput("the state was made with another luminance_only", field="start.state")
        return canvas, point if content is None else resized(point, *content.shape[1:])

    def _reserve(self, pixels: int) -> None:
        """Reserves the memory of a descent at a picture, beside its passes. Others may have to end first."""
        start, memory = self._start, self._passes.memory
        numbers = (1 if start.luminance_only else 3) * pixels
        needed = descent_bytes(start.settings, numbers, start.iterations, memory.on_cpu)
        until = time.monotonic() + ROOM_SECONDS
        while not self._held:
            try:
                self._held.append(PROCESS.reserve(needed, "start.settings.history_size", wait=1.0))
            except Overloaded:
                if self._cancelled or time.monotonic() > until:
                    raise

    def _loss(self, targets: Targets, size: tuple[int, int]) -> NetworkLoss:
        height, width = size
        if targets.picture_shape not in (None, size):
            raise InvalidInput(f"the picture is {width} x {height}, the objective's is not", field="start.initial")
        self._passes.check_size(size, targets.stages, "start.initial")
        return NetworkLoss(self._differentiator, targets)

    # --- between two turns ---

    def _pass_requests(self, caller: Caller, size: tuple[int, int]) -> None:
        """Passes on what the caller has sent, and asks for a state when one is due."""
        weights = self._requests.take(self._control)
        if weights is not None and weights.number > self._number:  # after a broken connection some come twice
            self._number = weights.number
            new = {name: value for name, value in vars(weights).items() if name != "number"}
            self._objective = replace(self._objective, **new)
            loss = self._loss(self._targets.build(caller, self._objective), size)
            self._control.weights = loss, weights.number
        elapsed = time.monotonic() - self._began
        if self._requests.state_due(self._start.state_seconds, elapsed, self._state_bytes(), self.remaining_seconds):
            self._control.state = True

    def _state_bytes(self) -> int:
        """Of a state after the next iteration."""
        start = self._start
        numbers = self._pixels * (1 if start.luminance_only else 3)
        return state_bytes(start.settings, numbers, start.iterations - self._remaining + 1)

    def _add(self, descent: Descent, timing: Timing) -> None:
        """Adds the time of a turn."""
        descent.queue_seconds += timing.queue_seconds
        descent.compute_seconds += timing.compute_seconds
        queued, computed = self._unreported.queue_seconds, self._unreported.compute_seconds
        self._unreported = Timing(queued + timing.queue_seconds, computed + timing.compute_seconds)

    def _report(self, descent: Descent, happened: list[Happening]) -> None:
        """Hands on what happened in a turn. Its iterations share its time."""
        count = sum(isinstance(each, DescentIteration) for each in happened)
        self._remaining = self._start.iterations - descent.iteration
        if count:
            self._pace.add(count, self._pixels, self._unreported)
        queued, computed = self._unreported.queue_seconds, self._unreported.compute_seconds
        for happening in happened:
            if isinstance(happening, DescentIteration):
                self._unsent.append(replace(happening, timing=Timing(queued, computed / count)))
                queued, self._unreported = 0.0, Timing()
                continue
            self._send()
            if isinstance(happening, DescentFinished):
                happening = replace(happening, timing=Timing(descent.queue_seconds, descent.compute_seconds))
            elif isinstance(happening, Snapshot):
                elapsed = time.monotonic() - self._began
                self._requests.state_made(happening.seconds, elapsed, self._state_bytes())
            self._happened.put(happening)
        if time.monotonic() >= self._sent + REPORT_SECONDS:
            self._send()

    def _send(self) -> None:
        if self._unsent:
            self._happened.put(tuple(self._unsent))
            self._unsent.clear()
            self._sent = time.monotonic()


class NetworkLoss:
    """An objective in place at the network."""

    def __init__(self, differentiator: Differentiator, targets: Targets) -> None:
        self._differentiator = differentiator
        self._targets = targets
        self.stages = tuple(targets.style)

    def evaluate(self, picture: Tensor) -> Steps[tuple[Tensor, Tensor]]:
        """See Loss."""
        return self._differentiator.resident(picture, self._targets)


def _free(error: BaseException) -> None:
    """Frees what the frames of an error hold: the descent, whose history would stay in the device's memory."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__context__


def _until_waiting(
    steps: Generator[Happening | Pause, None, None], happened: list[Happening]
) -> Steps[Happening | None]:
    """Collects what happens until the descent waits for its caller, or ends; returns what happened last.

    Closing it before that closes the descent.
    """
    last: Happening | None = None
    try:
        for happening in steps:
            if happening is None or isinstance(happening, Holding):
                yield happening
                continue
            last = happening
            happened.append(last)
            if isinstance(last, DescentWaiting):
                return last
            yield None
    except GeneratorExit:
        steps.close()
        raise
    return last
