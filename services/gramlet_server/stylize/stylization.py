"""A stylization under way: a generator of events around a descent, which can go on after any interruption."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gramlet.errors import Unavailable
from gramlet.feature.types import Evaluation, Objective
from gramlet.stylize.types import (
    Adjusted,
    Adjustment,
    Checkpoint,
    Iteration,
    Recovered,
    RecoveryReason,
    Result,
    Started,
    StylizeEvent,
)
from gramlet.types import Array, Timing

from gramlet_server.feature_source import Differentiation, FeatureSource
from gramlet_server.pictures.encode import encode_png, to_uint8
from gramlet_server.stylize.adjustments import adjusted
from gramlet_server.stylize.descent import Canvas, Descent, make_canvas
from gramlet_server.stylize.plan import PreparedStylization, Scale


@dataclass(frozen=True, kw_only=True)
class PreviewPicture(StylizeEvent):
    """The picture after `iteration`, (3, H, W); values may lie outside of 0..1."""

    picture: Array


@dataclass(frozen=True)
class Control:
    """How a stylization is saved, reported, adjusted and interrupted.

    Attributes:
        save: Stores the state of the descent.
        preview_every: Iterations between previews; 0 for none.
        checkpoint_every: Iterations between checkpoints; 0 for none but the last one of an interrupted run.
        check_interrupted: Called after every iteration; raises Unavailable if the run has to end here.
        adjustments: Returns the adjustments that follow the first `applied` ones, given (applied, last). Called before
            every iteration until it returns none; `last` says that the iteration is the last one.
    """

    save: Callable[[bytes], None] = lambda _: None
    preview_every: int = 0
    checkpoint_every: int = 25
    check_interrupted: Callable[[], None] = lambda: None
    adjustments: Callable[[int, bool], Sequence[Adjustment]] = lambda applied, last: ()


def stylize(
    prepared: PreparedStylization,
    features: FeatureSource,
    control: Control | None = None,
    descent: Descent | None = None,
) -> Iterator[StylizeEvent]:
    """Runs a stylization. Closing the generator stops the work within one iteration.

    Args:
        prepared: What to do.
        features: The network.
        control: How the run is saved, reported, adjusted and interrupted.
        descent: The descent to go on with; None starts one at the initial picture.

    Yields:
        Started, then Iteration, PreviewPicture, Checkpoint, Adjusted and Recovered events, and last the Result.

    Raises:
        Unavailable: The network stayed lost, or the run was interrupted. The state has been saved.
        FailedPrecondition: The loss is not a number where the run starts, or the network is another one now.
    """
    run = _Run(prepared, features, control or Control(), descent)
    yield run.started()
    try:
        *coarse, full = run.levels
        for level in coarse:
            if run.descent.iteration < level.scale.end:
                with run.network(level) as network:
                    yield from run.descend(level, network)
        with run.network(full) as network:
            yield from run.descend(full, network)
            canvas, evaluation = run.descent.finish(full.canvas.evaluating(network.evaluate))
    except Unavailable:
        run.save()
        raise
    run.save()
    yield run.result(full.canvas.shown(canvas), evaluation)


@dataclass(frozen=True)
class _Level:
    """A scale, with the canvas that the descent moves there."""

    scale: Scale
    canvas: Canvas


class _Run:
    """The parts of `stylize`, with what they share."""

    def __init__(
        self, prepared: PreparedStylization, features: FeatureSource, control: Control, descent: Descent | None
    ) -> None:
        self._model = features.model()
        self._prepared = prepared
        self._features = features
        self._control = control
        scales = prepared.scales(mixed=self._model.precision == "mixed")
        self.levels = [_Level(scale, make_canvas(prepared.settings, scale.pictures.content)) for scale in scales]
        first = self.levels[0]
        self.descent = descent or Descent(first.canvas.of(first.scale.pictures.initial), prepared.settings)

    def save(self) -> None:
        """Stores the state."""
        self._control.save(self.descent.to_bytes())

    @contextmanager
    def network(self, level: _Level) -> Iterator[Differentiation]:
        """Brings the descent to a level, and sets the level's objective at the network."""
        if level is not self.levels[0]:
            _, height, width = level.scale.pictures.content.shape
            self.descent.resize(height, width)
        with self._features.differentiate(self._objective(level)) as network:
            yield network

    def _objective(self, level: _Level) -> Objective:
        """The objective with the settings in force, which adjustments change."""
        prepared = dataclasses.replace(self._prepared, settings=self.descent.settings)
        return prepared.objective(level.scale.factor, reduced_precision=level.scale.reduced_precision)

    def descend(self, level: _Level, network: Differentiation) -> Iterator[StylizeEvent]:
        """Goes down to the end of a level."""
        descent, control = self.descent, self._control
        while descent.iteration < level.scale.end:
            yield from self._adjust(level, network)
            yield from self._iterate(level, network)
            # After a divergence the iteration is still the one before: its preview and checkpoint come again.
            if control.preview_every and descent.iteration % control.preview_every == 0:
                yield PreviewPicture(iteration=descent.iteration, picture=level.canvas.shown(descent.picture))
            if control.checkpoint_every and descent.iteration % control.checkpoint_every == 0:
                self.save()
                yield Checkpoint(iteration=descent.iteration)
            control.check_interrupted()

    def _adjust(self, level: _Level, network: Differentiation) -> Iterator[StylizeEvent]:
        """Applies the adjustments that have come since the last iteration."""
        descent = self.descent
        last = descent.iteration + 1 == self.levels[-1].scale.end
        # The last iteration begins only when nothing was returned for it: from then on adjustments are rejected.
        while new := self._control.adjustments(descent.adjustments, last):
            descent.adjust(adjusted(descent.settings, new), descent.adjustments + len(new))
            network.replace(self._objective(level))
            # Saved before any iteration, so that a resumed run applies the adjustments at this iteration too.
            self.save()
            yield Adjusted(iteration=descent.iteration, settings=descent.settings, number=descent.adjustments)

    def _iterate(self, level: _Level, network: Differentiation) -> Iterator[StylizeEvent]:
        """Does one iteration. Reports it, or the divergence, and before that whether the network was lost meanwhile."""
        descent = self.descent
        queued, computed = descent.queue_seconds, descent.compute_seconds
        reconnects = network.reconnects
        evaluation = descent.step(level.canvas.evaluating(network.evaluate))
        if network.reconnects != reconnects:
            yield Recovered(
                iteration=descent.iteration,
                reason=RecoveryReason.RECONNECTED,
                message="the connection to the FeatureService was lost and made again; the run is as it was",
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

    def started(self) -> Started:
        """The first event."""
        _, height, width = self._prepared.pictures.content.shape
        return Started(
            iteration=self.descent.iteration,
            height=height,
            width=width,
            settings=self.descent.settings,
            backbone=self._model.backbone,
            weights_digest=self._model.weights_digest,
        )

    def result(self, picture: Array, evaluation: Evaluation) -> Result:
        """The last event."""
        return Result(
            iteration=self.descent.iteration,
            loss=evaluation.loss,
            style_loss=evaluation.style_loss,
            content_loss=evaluation.content_loss,
            png=encode_png(to_uint8(picture)),
            timing=Timing(self.descent.queue_seconds, self.descent.compute_seconds),
        )
