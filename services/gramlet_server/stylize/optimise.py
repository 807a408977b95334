"""A stylization: the picture descends on the objective, an iteration at a time, and can go on after any interruption.

`Descent` is the picture with its optimiser: all that a checkpoint holds. `stylize` is the generator around it that the
service, the tests and a notebook read.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from gramlet.errors import FailedPrecondition, Unavailable
from gramlet.feature.types import Evaluation, GramNormalization, Objective, StageBalance, Style
from gramlet.stylize.types import (
    Adjusted,
    Adjustment,
    Checkpoint,
    Colors,
    Initial,
    Iteration,
    LineSearch,
    Optimizer,
    Recovered,
    RecoveryReason,
    Result,
    Started,
    StylizeEvent,
    StylizeSettings,
)
from gramlet.types import Array, Limits, Timing
from torch.nn import functional

from gramlet_server.feature_source import Differentiation, FeatureSource
from gramlet_server.pictures.encode import encode_png, to_uint8
from gramlet_server.pictures.masks import stretch_region
from gramlet_server.pictures.prepare import stretch
from gramlet_server.stylize.adjustments import adjusted
from gramlet_server.stylize.colors import AllColors, Canvas, Evaluate, LuminanceOnly, gray
from gramlet_server.stylize.optimizers import LBFGS, Adam, Stepper

DIVERGED = 1e3
"""A loss so many times the first one is divergence, where it is larger than that of the opposite picture as well: of a
descent that starts where it ends the first is rounding. Steps without line search may overshoot by less and recover."""

MOST_RESTARTS = 40
"""Steps so much shorter do not move the picture any more: something else is wrong."""

RESTART_RATE = 0.5
"""What the learning rate is multiplied by after a divergence, so that the same steps do not lead there again."""


HISTORY_BYTES = 2**30
"""Most memory for the vectors that L-BFGS remembers, and that checkpoints hold: 20 pairs of 2 megapixels, 3 of 12."""

COARSEST = 64
"""Longest side, in pixels, of the smallest scale: the deepest style stages see little in a smaller picture."""

FULL_PRECISION = 0.2
"""Share of the iterations at full size that a network of mixed precision computes in its full one: the last."""


@dataclass(frozen=True)
class Scale:
    """A stretch of a run: at this share of the full size, up to this iteration, perhaps in reduced precision."""

    factor: float
    end: int
    reduced_precision: bool = False


@dataclass(frozen=True)
class Job:
    """A stylization ready to run: pictures at their working sizes, settings complete.

    Attributes:
        content: (3, H, W).
        styles: The style pictures, each of its own size, in the colors that the settings want;
            regions of their pictures' sizes.
        initial: (3, H, W): where the descent starts.
        settings: Without None.
    """

    content: Array
    styles: tuple[Style[Array], ...]
    initial: Array
    settings: StylizeSettings

    def scales(self, mixed: bool = False) -> list[Scale]:
        """The stretches of the run, coarse to fine; see `StylizeSettings.scales`.

        Args:
            mixed: The network is of mixed precision: all but the last iterations are in the reduced one.
        """
        _, height, width = self.content.shape
        halvings = [n for n in range(self.settings.scales or 1) if n == 0 or max(height, width) >> n >= COARSEST]
        # n, ..., 2, 1 parts: the large shapes of a style need the most steps, and cost the least where they are made.
        parts = list(accumulate(range(len(halvings), 0, -1)))
        ends = [round((self.settings.iterations or 0) * part / parts[-1]) for part in parts]
        scales = [Scale(0.5**n, end) for n, end in zip(reversed(halvings), ends, strict=True)]
        if not mixed:
            return scales
        *_, begin, end = 0, *ends
        begin = end - math.ceil((end - begin) * FULL_PRECISION)
        rough = [*scales[:-1], Scale(1.0, begin)]
        return [*(dataclasses.replace(scale, reduced_precision=True) for scale in rough), scales[-1]]

    def objective(self, factor: float = 1.0, *, reduced_precision: bool = False) -> Objective:
        """The loss of this job, with all pictures reduced by a factor."""
        settings = self.settings
        content = _reduced(self.content, factor)
        return Objective(
            content=gray(content) if self._luminance_only else content,
            content_stage=settings.content_stage or "",
            content_weight=settings.content_weight or 0.0,
            styles=tuple(_reduced_style(style, factor) for style in self.styles),
            style_stages=settings.style_stages or {},
            style_weight=settings.style_weight or 0.0,
            total_variation_weight=settings.total_variation_weight or 0.0,
            gram_normalization=settings.gram_normalization or GramNormalization.NONE,
            stage_balance=settings.stage_balance or StageBalance.NONE,
            antialiased=settings.antialiased or False,
            reduced_precision=reduced_precision,
        )

    def canvas(self, factor: float = 1.0) -> Canvas:
        """What of the picture the descent moves, with all pictures reduced by a factor."""
        return LuminanceOnly(_reduced(self.content, factor)) if self._luminance_only else AllColors()

    def start(self) -> Array:
        """The canvas from which the descent starts."""
        factor = self.scales()[0].factor
        return self.canvas(factor).of(_reduced(self.initial, factor))

    @property
    def _luminance_only(self) -> bool:
        return self.settings.colors is Colors.CONTENT_LUMINANCE

    def to_bytes(self) -> bytes:
        """For the store; `from_bytes` gives back exactly this job."""
        arrays: dict[str, Any] = {
            f"{part}{index}": array
            for index, style in enumerate(self.styles)
            for part, array in _parts(style).items()
            if array is not None
        }
        described = {
            "settings": _plain_settings(self.settings),
            "weights": [style.weight for style in self.styles],
        }
        file = io.BytesIO()
        if self.initial is not self.content:
            arrays["initial"] = self.initial
        np.savez(file, content=self.content, described=np.array(json.dumps(described)), **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Job:
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            described = json.loads(str(file["described"]))
            styles = tuple(
                Style(file[f"style{i}"], weight, file.get(f"content_region{i}"), file.get(f"style_region{i}"))
                for i, weight in enumerate(described["weights"])
            )
            content = file["content"]
            return cls(content, styles, file.get("initial", content), _settings(described["settings"]))


_ENUMS = {
    "gram_normalization": GramNormalization,
    "stage_balance": StageBalance,
    "initial": Initial,
    "optimizer": Optimizer,
    "line_search": LineSearch,
    "colors": Colors,
}


def _reduced(picture: Array, factor: float) -> Array:
    if factor == 1:
        return picture
    _, height, width = picture.shape
    return stretch(picture, max(1, round(height * factor)), max(1, round(width * factor)), Limits(), "picture")


def _reduced_style(style: Style[Array], factor: float) -> Style[Array]:
    def region(mask: Array | None) -> Array | None:
        if mask is None or factor == 1:
            return mask
        return stretch_region(mask, *(max(1, round(side * factor)) for side in mask.shape))

    return Style(
        _reduced(style.picture, factor), style.weight, region(style.content_region), region(style.style_region)
    )


def _parts(style: Style[Array]) -> dict[str, Array | None]:
    return {"style": style.picture, "content_region": style.content_region, "style_region": style.style_region}


def _plain_settings(settings: StylizeSettings) -> dict[str, Any]:
    return {name: getattr(value, "value", value) for name, value in vars(settings).items()}


def _settings(plain: dict[str, Any]) -> StylizeSettings:
    values: dict[str, Any] = {n: _ENUMS[n](value) if n in _ENUMS and value else value for n, value in plain.items()}
    return StylizeSettings(**values)


@dataclass(frozen=True, kw_only=True)
class Look(StylizeEvent):
    """How the picture looks after `iteration`: (3, H, W), values may lie outside 0..1."""

    picture: Array


class _Diverged(Exception):
    pass


class Descent:
    """A picture on its way down, with its optimiser.

    Args:
        initial: (C, H, W): the canvas to start from.
        settings: Without None.

    Attributes:
        settings: Those in force.
        adjustments: How many adjustments they contain.
        iteration: The last one done.
    """

    def __init__(self, initial: Array, settings: StylizeSettings) -> None:
        self.settings = settings
        self.adjustments = 0
        self._picture = torch.tensor(initial)
        self._best = self._picture.clone()
        self._best_evaluation: Evaluation | None = None
        self._reached: tuple[torch.Tensor, Evaluation] | None = None  # where a line search ended
        self._bound = math.nan  # a larger loss is divergence
        self._restarts = 0
        self.iteration = 0
        self.evaluations = 0
        self.queue_seconds = 0.0
        self.compute_seconds = 0.0
        self._optimizer = self._fresh_optimizer()

    def move_to(self, height: int, width: int) -> None:
        """Goes on at another size, with a fresh history. The best starts anew: losses of two sizes differ.

        At the same size nothing is new but perhaps the precision of what is evaluated.
        """
        self._reached = None
        if self._picture.shape[1:] == (height, width):
            return
        picture = functional.interpolate(self._picture[None], (height, width), mode="bicubic")[0]
        self._picture = picture.contiguous()
        self._restarts = 0
        self._begin_anew()

    def adjust(self, adjustments: Sequence[Adjustment]) -> None:
        """Goes on with other weights, with a fresh history: what L-BFGS learned of the curvature was another loss's."""
        self.settings = adjusted(self.settings, adjustments)
        self.adjustments += len(adjustments)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._reached = None
        self._best, self._best_evaluation = self._picture, None
        self._optimizer = self._fresh_optimizer()

    @property
    def picture(self) -> Array:
        """The picture now, (C, H, W): a copy."""
        return self._picture.numpy().copy()

    def step(self, evaluate: Evaluate) -> Evaluation | None:
        """One iteration; returns the evaluation at the picture from which it stepped.

        None: the loss there was no number or had grown without bound. That was no iteration: the descent is back at its
        best picture, with a fresh history and shorter steps. If `evaluate` raises, the descent is as it was before.
        """
        known = [] if self._reached is None else [self._reached]
        asked: list[Evaluation] = []

        def loss(point: torch.Tensor) -> tuple[float, torch.Tensor]:
            picture = point.view_as(self._picture)
            evaluation = _known(picture, known) or self._evaluate(picture, evaluate)
            known.append((picture, evaluation))
            asked.append(evaluation)
            if len(asked) == 1:
                self._look_at(evaluation, evaluate)
            return evaluation.loss, torch.tensor(evaluation.gradient).flatten()

        try:
            point = self._optimizer.step(self._picture.flatten(), loss)
        except _Diverged:
            self._restart()
            return None
        self._picture = point.view_as(self._picture)
        reached = _known(self._picture, known)
        self._reached = None if reached is None else (self._picture, reached)
        self.iteration += 1
        return asked[0]

    def finish(self, evaluate: Evaluate) -> tuple[Array, Evaluation]:
        """The best picture on the way, the last one included, and its evaluation."""
        last = self._reached[1] if self._reached else self._evaluate(self._picture, evaluate)
        if self._best_evaluation is None or last.loss <= self._best_evaluation.loss:
            return self.picture, last
        return self._best.numpy(), self._best_evaluation

    def to_bytes(self) -> bytes:
        """For the store. A descent made from it takes exactly the steps that this one would have taken."""
        best = self._best_evaluation
        file = io.BytesIO()
        torch.save(
            {
                "picture": self._picture,
                "best": self._best,
                "best_losses": None if best is None else _losses(best),
                "bound": self._bound,
                "restarts": self._restarts,
                "iteration": self.iteration,
                "evaluations": self.evaluations,
                "seconds": (self.queue_seconds, self.compute_seconds),
                "optimizer": self._optimizer.state(),
                "settings": json.dumps(_plain_settings(self.settings)),
                "adjustments": self.adjustments,
            },
            file,
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Descent:
        """What `to_bytes` wrote."""
        state = torch.load(io.BytesIO(data), weights_only=True)
        descent = cls(state["picture"].numpy(), _settings(json.loads(state["settings"])))
        descent.adjustments = state["adjustments"]
        descent._best = state["best"]
        if state["best_losses"] is not None:
            descent._best_evaluation = Evaluation(**state["best_losses"], gradient=np.zeros(0, np.float32))
        descent._bound = state["bound"]
        descent._restarts = state["restarts"]
        descent.iteration = state["iteration"]
        descent.evaluations = state["evaluations"]
        descent.queue_seconds, descent.compute_seconds = state["seconds"]
        descent._optimizer = descent._fresh_optimizer()
        descent._optimizer.restore(state["optimizer"])
        return descent

    def _evaluate(self, picture: torch.Tensor, evaluate: Evaluate) -> Evaluation:
        evaluation = evaluate(picture.numpy())
        self.evaluations += 1
        self.queue_seconds += evaluation.timing.queue_seconds
        self.compute_seconds += evaluation.timing.compute_seconds
        return evaluation

    def _look_at(self, evaluation: Evaluation, evaluate: Evaluate) -> None:
        if self._best_evaluation is None:
            self._bound = DIVERGED * evaluation.loss
            if not math.isfinite(evaluation.loss):
                raise FailedPrecondition("the loss at the initial picture is not a number")
        if self._bound < evaluation.loss < math.inf:
            opposite = self._evaluate((self._best < 0.5).float(), evaluate).loss  # each level as far off as can be
            self._bound = max(self._bound, opposite if math.isfinite(opposite) else 0.0)
        if not evaluation.loss <= self._bound:
            raise _Diverged
        if self._best_evaluation is None or evaluation.loss < self._best_evaluation.loss:
            self._best_evaluation = dataclasses.replace(evaluation, gradient=np.zeros(0, np.float32))
            self._best = self._picture

    def _restart(self) -> None:
        self._restarts += 1
        if self._restarts > MOST_RESTARTS:
            raise FailedPrecondition("the loss is no number however short the steps are: try other settings")
        self._picture, self._reached = self._best, None
        self._optimizer = self._fresh_optimizer()

    def _fresh_optimizer(self) -> Stepper:
        settings, size = self.settings, self._picture.numel()
        rate = (settings.learning_rate or 1.0) * RESTART_RATE**self._restarts
        if settings.optimizer is Optimizer.ADAM:
            return Adam(size, rate)
        pairs = _bounded_history(settings.history_size or 20, size)
        # From where full steps led nowhere, a line search finds a way, and what the first step tells of the curvature
        # is more than rounding.
        searches = settings.line_search is LineSearch.STRONG_WOLFE or self._restarts > 0
        return LBFGS(size, rate, pairs, searches=searches)


def _known(picture: torch.Tensor, known: Sequence[tuple[torch.Tensor, Evaluation]]) -> Evaluation | None:
    """What was evaluated there: a line search ends at a point that it has tried, where the next step begins."""
    return next((evaluation for point, evaluation in known if torch.equal(point, picture)), None)


def _bounded_history(pairs: int, pixels: int) -> int:
    return max(1, min(pairs, HISTORY_BYTES // (2 * 4 * pixels)))


def _losses(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "loss": evaluation.loss,
        "style_loss": evaluation.style_loss,
        "content_loss": evaluation.content_loss,
        "total_variation_loss": evaluation.total_variation_loss,
        "stage_losses": dict(evaluation.stage_losses),
    }


def stylize(
    job: Job,
    features: FeatureSource,
    *,
    descent: Descent | None = None,
    save: Callable[[bytes], None] = lambda _: None,
    preview_every: int = 0,
    checkpoint_every: int = 25,
    interrupted: Callable[[], bool] = lambda: False,
    adjustments: Callable[[int, bool], Sequence[Adjustment]] = lambda heeded, last: (),
) -> Iterator[StylizeEvent]:
    """Runs a job and yields what happens. Closing the generator stops the work; a closed run goes on from its save.

    Args:
        job: What to do.
        features: Where the network is.
        descent: Where to go on; None starts from the job's initial picture.
        save: Keeps a checkpoint.
        preview_every: Iterations between looks at the picture; 0 is none.
        checkpoint_every: Iterations between checkpoints; 0 is none but at the end of an interrupted run.
        interrupted: Asked after every iteration: True saves and raises Unavailable.
        adjustments: Asked before every iteration for what follows the first so many adjustments, until there are none,
            and told whether the iteration is the last. Any is in force from that iteration on; a checkpoint is saved
            before it, so that no resumption heeds it elsewhere.

    Yields:
        Started, Iteration, Look, Checkpoint, Adjusted and Recovered events; Result is the last.

    Raises:
        Unavailable: The FeatureService stayed lost, or the run was interrupted. A checkpoint has been saved.
        FailedPrecondition: The loss is not a number where the run starts.
    """
    model = features.model()
    scales = job.scales(mixed=model.precision == "mixed")
    descent = descent or Descent(job.start(), job.settings)
    job = dataclasses.replace(job, settings=descent.settings)
    _, height, width = job.content.shape
    yield Started(
        iteration=descent.iteration,
        height=height,
        width=width,
        settings=job.settings,
        backbone=model.backbone,
        weights_digest=model.weights_digest,
    )
    try:
        for scale in scales:
            last = scale is scales[-1]
            if descent.iteration >= scale.end and not last:
                continue
            objective = job.objective(scale.factor, reduced_precision=scale.reduced_precision)
            assert objective.content is not None
            canvas = job.canvas(scale.factor)
            descent.move_to(*objective.content.shape[1:])
            with features.differentiate(objective) as differentiation:
                evaluate = canvas.evaluating(differentiation.evaluate)
                while descent.iteration < scale.end:
                    while new := adjustments(descent.adjustments, descent.iteration + 1 == scales[-1].end):
                        descent.adjust(new)
                        job = dataclasses.replace(job, settings=descent.settings)
                        differentiation.replace(job.objective(scale.factor, reduced_precision=scale.reduced_precision))
                        save(descent.to_bytes())
                        yield Adjusted(
                            iteration=descent.iteration, settings=descent.settings, number=descent.adjustments
                        )
                    yield from _iterate(descent, differentiation, evaluate)
                    if preview_every and descent.iteration % preview_every == 0:
                        yield Look(iteration=descent.iteration, picture=canvas.shown(descent.picture))
                    if checkpoint_every and descent.iteration % checkpoint_every == 0:
                        save(descent.to_bytes())
                        yield Checkpoint(iteration=descent.iteration)
                    if interrupted():
                        raise Unavailable("the server is shutting down: resume the run at another one", retry_after=0.0)
                if last:
                    picture, evaluation = descent.finish(evaluate)
    except Unavailable:
        save(descent.to_bytes())
        raise
    save(descent.to_bytes())
    yield Result(
        iteration=descent.iteration,
        loss=evaluation.loss,
        style_loss=evaluation.style_loss,
        content_loss=evaluation.content_loss,
        png=encode_png(to_uint8(canvas.shown(picture))),
        timing=Timing(descent.queue_seconds, descent.compute_seconds),
    )


def _iterate(descent: Descent, differentiation: Differentiation, evaluate: Evaluate) -> Iterator[StylizeEvent]:
    """One iteration, and what befell the network meanwhile."""
    queued, computed, reconnects = descent.queue_seconds, descent.compute_seconds, differentiation.reconnects
    evaluation = descent.step(evaluate)
    if differentiation.reconnects != reconnects:
        yield Recovered(
            iteration=descent.iteration,
            reason=RecoveryReason.RECONNECTED,
            message="the FeatureService was lost and found again; nothing was lost",
        )
    if evaluation is None:
        yield Recovered(
            iteration=descent.iteration + 1,
            reason=RecoveryReason.DIVERGED,
            message="the loss grew without bound: back to the best picture, with shorter steps",
        )
        return
    yield Iteration(
        iteration=descent.iteration,
        loss=evaluation.loss,
        style_loss=evaluation.style_loss,
        content_loss=evaluation.content_loss,
        total_variation_loss=evaluation.total_variation_loss,
        stage_losses=evaluation.stage_losses,
        evaluations=descent.evaluations,
        timing=Timing(descent.queue_seconds - queued, descent.compute_seconds - computed),
    )
