"""A descent: a picture with its optimizer, where the network is.

`Descent.run` is a generator. It yields what happens, and None wherever the device may serve others. It is advanced on
the device thread.

The host reads the loss of an iteration only after the device has begun with the next ones (`Device.reads_late` of
them), so that the device never waits for the host. What happens does not depend on that: when a loss turns out to be
divergence, the iterations begun since are dropped; when something needs the descent as it is, such as a state, all
losses are read first. Points are never changed in place, so the best one is remembered by reference.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial

from gramlet.errors import FailedPrecondition, InvalidInput
from gramlet.feature.descent_types import (
    DescentEnding,
    DescentFinished,
    DescentIteration,
    DescentRecovered,
    DescentReweighted,
    DescentStart,
    DescentWaiting,
    LineSearch,
    RecoveryReason,
)
from gramlet.types import Timing
from torch import Tensor

from gramlet_server.feature.canvas import Canvas
from gramlet_server.feature.descent_parts import (
    PREVIEW_SIDE,
    Control,
    Happening,
    Loss,
    PreviewPixels,
    Terms,
    copies_on_cpu,
    describe,
    make_optimizer,
    make_preview,
)
from gramlet_server.feature.device import Device
from gramlet_server.feature.lbfgs import LBFGS, Optimizer, Search, State
from gramlet_server.feature.snapshot import Counts, Snapshot
from gramlet_server.feature.steps import Pause, Steps

DIVERGED = 1e3
"""The descent has diverged when the loss exceeds DIVERGED × the first loss and the loss of the inverted picture. The
second test matters when the start is already the optimum: the first loss is then only rounding error. The factor is
large because steps without a line search may overshoot and recover."""

MOST_RESTARTS = 40
"""The descent fails after this many restarts. Steps are then 2^40 times shorter and cannot be the cause."""


@dataclass(frozen=True)
class _Begun:
    """An iteration whose loss the host has not read."""

    point: Tensor
    terms: Callable[[], Tensor]


@dataclass(frozen=True)
class _Reached:
    """An evaluation that the host has read."""

    terms: Terms
    gradient: Tensor


class Descent:
    """A picture on its way down.

    Args:
        start: How the optimizer steps, how far, and what is reported.
        loss: The objective.
        canvas: What of the picture is moved.
        device: Where the tensors are.
        control: What the caller asks for.
        point: (C, H, W): the canvas to start from.
        snapshot: The state that it goes on from. If the point has another size, the history of the state is dropped.

    Attributes:
        iteration: The last one whose loss is read.
        queue_seconds, compute_seconds: The time of all iterations. The caller adds to it.

    Raises:
        InvalidInput: The state was made with other settings, or of another canvas.
    """

    def __init__(
        self,
        start: DescentStart,
        loss: Loss,
        canvas: Canvas,
        device: Device,
        control: Control,
        point: Tensor,
        snapshot: Snapshot | None = None,
    ) -> None:
        self._start, self._control = start, control
        self._loss, self._canvas, self._device = loss, canvas, device
        counts = snapshot.counts if snapshot is not None else Counts()
        self.iteration, self._evaluations, self._number = counts.iteration, counts.evaluations, counts.number
        self.queue_seconds, self.compute_seconds = counts.queue_seconds, counts.compute_seconds
        self._restarts = 0
        self._begun: deque[_Begun] = deque()
        self._optimizer: Optimizer | None = None
        if snapshot is not None and snapshot.is_complete and snapshot.picture.shape == point.shape:
            try:
                self._restore(snapshot, point)
            except (KeyError, ValueError):
                raise InvalidInput("the state's tensors do not go together", field="start.state") from None
        else:
            self._begin(point)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        _, height, width = self._point.shape
        return height, width

    def run(self) -> Generator[Happening | Pause, None, None]:
        """Descends, and yields what happens; None where the device may serve others.

        Raises:
            FailedPrecondition: The loss is no number at the start, or however short the steps are.
        """
        control = self._control
        while True:
            if control.needs(self._start, self.iteration + len(self._begun)):
                yield from self._read(0)
                if control.stop:
                    yield (yield from self._snapshot())
                    return
                if control.weights is not None:
                    yield from self._reweight(*control.weights)
                    continue
                if control.state:
                    snapshot = yield from self._snapshot()
                    control.state = False  # only now, because it may have been asked for again meanwhile
                    yield snapshot
                if self.iteration >= self._start.iterations:
                    break
                if control.holds(self._start, self.iteration):
                    yield DescentWaiting(iteration=self.iteration)
                    continue
            yield from self._searched() if self._searches else self._stepped()
        yield from self._end()

    def _snapshot(self, *, history: bool = True, reached: bool = True) -> Steps[Snapshot]:
        """The state, on the CPU; all losses must be read. It shares no memory with the descent."""
        assert not self._begun
        counts = Counts(
            iteration=self.iteration,
            evaluations=self._evaluations,
            number=self._number,
            queue_seconds=self.queue_seconds,
            compute_seconds=self.compute_seconds,
        )
        tensors: dict[str, Tensor] = {"picture": self._point}
        optimizer: State = {}
        if history:
            at = self._reached if reached else None
            counts = replace(
                counts,
                restarts=self._restarts,
                bound=self._bound,
                best=self._best_terms,
                reached=None if at is None else at.terms,
                settings=self._start.settings,
            )
            tensors["best"] = self._best
            if at is not None:
                tensors["reached"] = at.gradient
            optimizer = self._stepper.state()
        copies, seconds = yield from copies_on_cpu([*tensors.values(), *optimizer.values()])
        of_picture = dict(zip(tensors, copies, strict=False))
        of_optimizer = dict(zip(optimizer, copies[len(tensors) :], strict=True))
        return Snapshot(counts, of_picture.pop("picture"), of_picture, of_optimizer, seconds=seconds)

    # --- begin, begin again, end ---

    def _begin(self, point: Tensor) -> None:
        """Goes on from a point without a history."""
        self._point = self._best = point
        self._best_terms: Terms | None = None
        self._bound: float | None = None  # a larger loss is divergence
        self._reached: _Reached | None = None  # where a line search ended
        self._begin_optimizer()

    def _begin_optimizer(self) -> None:
        self._optimizer = None  # so that its history is freed before the next one's is allocated
        self._optimizer = self._device.with_room(
            partial(make_optimizer, self._start.settings, self._point, self._restarts)
        )

    def _restore(self, snapshot: Snapshot, point: Tensor) -> None:
        counts = snapshot.counts
        if counts.settings != self._start.settings:
            raise InvalidInput("the state was made with other settings of the optimizer", field="start.state")
        self._restarts, self._bound, self._best_terms = counts.restarts, counts.bound, counts.best
        self._point, self._best, self._reached = point, snapshot.tensors["best"].to(point), None
        if counts.reached is not None:
            self._reached = _Reached(counts.reached, snapshot.tensors["reached"].to(point))
        self._begin_optimizer()
        self._stepper.restore(snapshot.optimizer)

    def _reweight(self, loss: Loss, number: int) -> Generator[Happening | Pause, None, None]:
        self._control.weights = None
        self._loss, self._number = loss, number
        # What L-BFGS learned of the curvature was another loss's, and losses of two objectives do not compare.
        self._begin(self._point)
        yield replace((yield from self._snapshot()), reweighted=True)
        yield DescentReweighted(iteration=self.iteration, number=number)

    def _restart(self) -> DescentRecovered:
        self._restarts += 1
        if self._restarts > MOST_RESTARTS:
            raise FailedPrecondition("the loss is no number however short the steps are: try other settings")
        self._begun.clear()
        self._point, self._reached = self._best, None
        self._begin_optimizer()
        return DescentRecovered(
            iteration=self.iteration + 1,
            reason=RecoveryReason.DIVERGED,
            message="the loss grew without bound: back to the best picture, with shorter steps",
            restarts=self._restarts,
        )

    def _end(self) -> Generator[Happening | Pause, None, None]:
        if self._start.ending is not DescentEnding.BEST:
            yield (yield from self._snapshot(history=self._start.ending is DescentEnding.STATE, reached=False))
            return
        last = self._reached or (yield from self._evaluated(self._point))
        point, terms = self._point, last.terms
        if self._best_terms is not None and not terms[0] <= self._best_terms[0]:
            point, terms = self._best, self._best_terms
        (picture,), _ = yield from copies_on_cpu([self._canvas.shown(point)])
        yield DescentFinished(
            iteration=self.iteration,
            picture=picture.numpy(),
            timing=Timing(self.queue_seconds, self.compute_seconds),
            **vars(describe(terms, self._loss.stages)),
        )

    # --- one iteration ---

    @property
    def _stepper(self) -> Optimizer:
        assert self._optimizer is not None
        return self._optimizer

    @property
    def _searches(self) -> bool:
        """Whether steps search along their direction. After a divergence they do: a search finds a way from there."""
        wanted = self._start.settings.line_search is LineSearch.STRONG_WOLFE or self._restarts > 0
        return wanted and isinstance(self._optimizer, LBFGS)

    def _stepped(self) -> Generator[Happening | Pause, None, None]:
        """Begins an iteration, and reads as many losses as are due."""
        point = self._point
        terms, gradient = yield from self._evaluate(point)
        reached = self._device.with_room(lambda: self._stepper.step(point.flatten(), gradient.flatten()))
        self._begun.append(_Begun(point, self._device.fetch(terms)))
        self._point = reached.view_as(point)
        yield from self._read(self._device.reads_late)

    def _searched(self) -> Generator[Happening | Pause, None, None]:
        """An iteration with a line search, which reads every loss at once."""
        point = self._point
        first = self._reached or (yield from self._evaluated(point))
        if (yield from self._has_diverged(point, first.terms)):
            yield self._restart()
            return
        assert isinstance(self._optimizer, LBFGS)
        search = self._optimizer.search(point.flatten(), first.terms[0], first.gradient.flatten())
        reached, self._reached = yield from _answered(search, first, lambda to: self._evaluated(to.view_as(point)))
        self._point = reached.view_as(point)
        yield from self._done(first.terms, self._point)

    def _read(self, late: int) -> Generator[Happening | Pause, None, None]:
        """Reads the losses of all iterations but so many."""
        while len(self._begun) > late:
            begun = self._begun.popleft()
            terms = tuple(begun.terms().tolist())
            self._evaluations += 1
            if (yield from self._has_diverged(begun.point, terms)):
                yield self._restart()
            else:
                yield from self._done(terms, self._begun[0].point if self._begun else self._point)

    def _done(self, terms: Terms, reached: Tensor) -> Generator[Happening, None, None]:
        """Reports an iteration, given the loss where it began and the point where it ended."""
        self.iteration += 1
        yield DescentIteration(
            iteration=self.iteration, evaluations=self._evaluations, **vars(describe(terms, self._loss.stages))
        )
        if self._start.preview_every and self.iteration % self._start.preview_every == 0:
            small = make_preview(self._canvas.shown(reached), self._start.preview_side or PREVIEW_SIDE)
            yield PreviewPixels(self.iteration, self._device.fetch(small))

    def _has_diverged(self, point: Tensor, terms: Terms) -> Steps[bool]:
        """Whether the loss at a point is divergence. If it is not, the point may be the best one."""
        loss = terms[0]
        if self._bound is None:
            if not math.isfinite(loss):
                raise FailedPrecondition("the loss at the initial picture is not a number")
            self._bound = DIVERGED * loss
        if self._bound < loss < math.inf:
            inverted = (self._best < 0.5).to(self._best)  # every pixel as far away as it can be
            opposite = (yield from self._evaluated(inverted)).terms[0]
            self._bound = max(self._bound, opposite if math.isfinite(opposite) else 0.0)
        if not loss <= self._bound:
            return True
        if self._best_terms is None or loss < self._best_terms[0]:
            self._best, self._best_terms = point, terms
        return False

    def _evaluated(self, point: Tensor) -> Steps[_Reached]:
        """An evaluation that the host waits for."""
        terms, gradient = yield from self._evaluate(point)
        self._evaluations += 1
        return _Reached(tuple(self._device.fetch(terms)().tolist()), gradient)

    def _evaluate(self, point: Tensor) -> Steps[tuple[Tensor, Tensor]]:
        terms, gradient = yield from self._loss.evaluate(self._canvas.seen(point))
        return terms, self._canvas.gradient(gradient)


def _answered(
    search: Search, first: _Reached, evaluate: Callable[[Tensor], Steps[_Reached]]
) -> Steps[tuple[Tensor, _Reached]]:
    """Evaluates what a line search tries, until it has ended; its point, and the evaluation there."""
    tried = [first]
    try:
        trial = next(search)
        while True:
            tried.append((yield from evaluate(trial)))
            trial = search.send((tried[-1].terms[0], tried[-1].gradient.flatten()))
    except StopIteration as ended:
        point, which = ended.value
        return point, tried[which]
