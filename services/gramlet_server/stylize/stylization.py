"""A stylization under way: a generator of events around its descents, scale by scale. The network does the work.

The newest state of the descent under way, with its scale and the weights in force, is a `Position`. A stylization that
starts from a position takes the same steps as the one that it comes from.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from gramlet.errors import Cancelled, Overloaded, Unavailable
from gramlet.feature.descent_types import (
    DescentEnding,
    DescentEvent,
    DescentFinished,
    DescentIteration,
    DescentPreview,
    DescentQueued,
    DescentReady,
    DescentRecovered,
    DescentReweighted,
    DescentStart,
    DescentState,
    DescentWaiting,
)
from gramlet.feature.types import Model
from gramlet.stylize.types import (
    Adjusted,
    Adjustment,
    Checkpoint,
    Iteration,
    Preview,
    Queued,
    Recovered,
    Result,
    ScaleStarted,
    Started,
    StylizeEvent,
)
from gramlet.types import Pixels

from gramlet_server.feature.memory import state_bytes
from gramlet_server.feature_source import FIRST_STATE_SECONDS, Descent, FeatureSource
from gramlet_server.pictures.encode import encode_png, to_uint8
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.stylize.adjustments import adjusted, weights
from gramlet_server.stylize.interruption import Interruption
from gramlet_server.stylize.plan import REPORTED, Position, PreparedStylization, Scale

STATE_SECONDS = 10.0
"""Seconds between two states."""

SHORT_SCALE = 0.1
"""A state is stored if the last one is older than this share of the time between states, or than the time to the first
state. So short scales, each of which ends with a state, cost no writes, and little more than that time is ever lost."""

RETRY_SECONDS = 5.0
"""When to ask again for a place in a full queue that gives no time itself."""


@dataclass(frozen=True)
class Control:
    """How a stylization is saved, reported, adjusted and interrupted.

    Attributes:
        save: Stores a position; None: nothing is stored.
        preview_every: Iterations between previews; 0 for none.
        preview_side: The longest side of a preview in pixels; 0 for the network's choice.
        state_seconds: Seconds between states at most; 0 for none but those of adjustments and of an interrupted run.
        adjustments: Returns the adjustments that follow the first so many, given (applied, last): `last` says that the
            next iteration is the last one, and is then asked until it returns none. None: there are no adjustments.
        interruption: Ends the run from another thread.
        is_patient: At the start, too, wait as long as the device's queue is full, instead of raising Overloaded.
    """

    save: Callable[[Position], None] | None = None
    preview_every: int = 0
    preview_side: int = 0
    state_seconds: float = STATE_SECONDS
    adjustments: Callable[[int, bool], Sequence[Adjustment]] | None = None
    interruption: Interruption = field(default_factory=Interruption)
    is_patient: bool = False


def stylize(
    prepared: PreparedStylization,
    features: FeatureSource,
    control: Control | None = None,
    position: Position | None = None,
) -> Iterator[StylizeEvent]:
    """Runs a stylization. Closing the generator stops the work within one iteration.

    Args:
        prepared: What to do.
        features: The network.
        control: How the run is saved, reported, adjusted and interrupted.
        position: Where to go on; None starts at the initial picture.

    Yields:
        Queued events while the run waits for the device, then Started, ScaleStarted at each scale, Iteration, Preview,
        Checkpoint, Adjusted and Recovered events, and last the Result. From a position on, the iterations that it
        remembers come first.

    Raises:
        Overloaded: The device's queue is full, and nothing was done.
        Unavailable: The network stayed lost, or the run was interrupted. The newest state has been saved.
        FailedPrecondition: The loss is not a number where the run starts.
        OtherWeights: The network is another one now.
    """
    run = _Run(prepared, features, control or Control(), position or Position(settings=prepared.settings))
    with run.room:
        for index in range(min(run.position.scale, len(run.scales) - 1), len(run.scales)):
            yield from run.descend(index)
    assert run.finished is not None
    yield result_of(run.finished, run.model.weights_digest, prepared.alpha)


def started(prepared: PreparedStylization, model: Model, position: Position) -> Started:
    """The first event of a run at a position."""
    _, height, width = prepared.pictures.content.shape
    return Started(
        iteration=position.iteration,
        height=height,
        width=width,
        settings=position.settings,
        backbone=model.backbone,
        weights_digest=model.weights_digest,
    )


def result_of(finished: DescentFinished, weights_digest: str, alpha: Pixels | None = None) -> Result:
    """The last event. The picture is as transparent as its content."""
    pixels = to_uint8(finished.picture)
    return Result(
        iteration=finished.iteration,
        loss=finished.loss,
        style_loss=finished.style_loss,
        content_loss=finished.content_loss,
        png=encode_png(pixels if alpha is None else np.dstack([pixels, alpha])),
        timing=finished.timing,
        weights_digest=weights_digest,
    )


class _Run:
    """The parts of `stylize`, with what they share.

    Attributes:
        scales: Of the run.
        model: The network.
        position: Where the run is.
        finished: The end of the last descent.
        room: Memory for states.
    """

    def __init__(
        self, prepared: PreparedStylization, features: FeatureSource, control: Control, position: Position
    ) -> None:
        self._prepared = prepared
        self._features = features
        self._control = control
        self.model = features.model()
        self.scales = prepared.scales(mixed=self.model.precision == "mixed")
        self.position = position
        self.finished: DescentFinished | None = None
        self._index = position.scale
        self._reported = deque(position.reported, REPORTED)
        self._settings = {position.adjustments: position.settings}  # by the number of adjustments in them
        self._is_saved = True
        self._saved_at = time.monotonic()
        self._has_started = False
        self.room = PROCESS.reserve(0)

    @property
    def _scale(self) -> Scale:
        return self.scales[self._index]

    def descend(self, index: int) -> Iterator[StylizeEvent]:
        """Goes down to the end of a scale."""
        self._index = index
        interruption = self._control.interruption
        try:
            while True:
                try:
                    yield from self._descent()
                    break
                except Overloaded as error:
                    # A run that has begun waits as long as the device's queue is full.
                    if not (self._has_started or self._control.is_patient):
                        raise
                    interruption.wait(error.retry_after or RETRY_SECONDS)
        except (Unavailable, Cancelled):
            self._save()
            interruption.check_draining()
            raise
        self.position = replace(self.position, scale=index + 1)

    def _descent(self) -> Iterator[StylizeEvent]:
        interruption = self._control.interruption
        interruption.check_draining()
        with self._features.descend(self._start()) as descent, interruption.of(descent):
            self._reweight(descent)
            for event in descent:
                yield from self._relayed(event, descent)
        if self.finished is None:
            interruption.check_draining()  # which would have ended the descent early

    def _start(self) -> DescentStart:
        scale, control = self._scale, self._control
        is_first = not self.position.state
        pictures = scale.pictures
        prepared = replace(self._prepared, settings=self.position.settings)
        return DescentStart(
            objective=prepared.objective(scale.factor, reduced_precision=scale.reduced_precision),
            settings=prepared.descent_settings,
            iterations=scale.end,
            initial=pictures.initial if is_first and pictures.initial is not pictures.content else None,
            state=self.position.state,
            luminance_only=prepared.luminance_only,
            ending=self._ending(),
            preview_every=control.preview_every,
            preview_side=control.preview_side,
            state_seconds=control.state_seconds,
            # The last iteration of the run may belong to the scale before the last, if the last one has no iteration.
            confirm_last=control.adjustments is not None and scale.end == self.scales[-1].end,
            weights_digest=self.model.weights_digest,
        )

    def _state_bytes(self) -> int:
        """Bytes of the newest state, and of the file that it becomes; of a run that is not stored, 0."""
        if not self._control.save:
            return 0
        settings = self._prepared.descent_settings
        numbers = self._scale.pictures.content[0 if self._prepared.luminance_only else slice(None)].size
        return 2 * state_bytes(settings, numbers, self._scale.end)

    def _ending(self) -> DescentEnding:
        if self._index == len(self.scales) - 1:
            return DescentEnding.BEST
        is_same_size = self.scales[self._index + 1].factor == self._scale.factor
        return DescentEnding.STATE if is_same_size else DescentEnding.PICTURE

    # --- the events of a descent ---

    def _relayed(self, event: DescentEvent, descent: Descent) -> Iterator[StylizeEvent]:
        """The events of the run for one of the descent."""
        match event:
            case DescentQueued():
                if not self._has_started:
                    yield Queued(position=event.position)
            case DescentReady():
                self.room.resize(self._state_bytes())
                self._control.interruption.begun()
                yield from self._begun(event)
            case DescentIteration():
                iteration = _iteration(event)
                self._reported.append(iteration)
                yield iteration
                self._adjust(descent)
            case DescentPreview():
                yield Preview(iteration=event.iteration, jpeg=event.jpeg)
            case DescentState():
                yield from self._reached(event)
            case DescentReweighted():
                settings = self._settings[event.number]
                yield Adjusted(iteration=event.iteration, settings=settings, number=event.number)
            case DescentRecovered():
                yield Recovered(iteration=event.iteration, reason=event.reason, message=event.message)
            case DescentWaiting():
                self._confirm(descent)
            case DescentFinished():
                self.finished = event

    def _begun(self, ready: DescentReady) -> Iterator[StylizeEvent]:
        # The stretches of one size in two precisions are one scale.
        group = [index for index, scale in enumerate(self.scales) if scale.factor == self._scale.factor]
        before = self.scales[group[0] - 1].end if group[0] else 0
        again = [] if self._has_started else list(self._reported)
        if not self._has_started:
            yield started(self._prepared, self.model, replace(self.position, iteration=ready.iteration))
            yield from (event for event in again if event.iteration <= before)
        if not self._has_started or self._index == group[0]:
            yield ScaleStarted(iteration=before, height=ready.height, width=ready.width)
            yield from (event for event in again if event.iteration > before)
        self._has_started = True

    def _reached(self, state: DescentState) -> Iterator[StylizeEvent]:
        """Takes note of a state, and stores it if it is time."""
        self.position = Position(
            settings=self._settings[state.number],
            adjustments=state.number,
            iteration=state.iteration,
            scale=self._index,
            state=state.data,
            reported=tuple(event for event in self._reported if event.iteration <= state.iteration),
        )
        self._is_saved = False
        seconds = self._control.state_seconds
        since = time.monotonic() - self._saved_at
        if state.reweighted:
            # Before any iteration with the new weights is reported: a resumed run applies them at this iteration too.
            self._save()
        elif seconds and self._control.save and since >= min(FIRST_STATE_SECONDS, SHORT_SCALE * seconds):
            self._save()
            yield Checkpoint(iteration=state.iteration)

    def _save(self) -> None:
        """Stores the position, unless it is stored."""
        if self._control.save and not self._is_saved:
            self._control.save(self.position)
            self._is_saved = True
            self._saved_at = time.monotonic()

    # --- adjustments ---

    def _adjust(self, descent: Descent, last: bool = False) -> bool:
        """Passes new adjustments on to the descent; returns whether there are any."""
        if self._control.adjustments is None:
            return False
        known = max(self._settings)
        new = self._control.adjustments(known, last)
        for number, adjustment in enumerate(new, known + 1):
            self._settings[number] = adjusted(self._settings[number - 1], [adjustment])
        if new:
            descent.reweight(weights(known + len(new), self._settings[known + len(new)]))
        return bool(new)

    def _reweight(self, descent: Descent) -> None:
        """Passes on, before the first iteration, the adjustments that have come since the last descent or attempt."""
        newest = max(self._settings)
        if not self._adjust(descent) and newest > self.position.adjustments:
            # They came when the descent of the scale before had begun its last iteration.
            descent.reweight(weights(newest, self._settings[newest]))

    def _confirm(self, descent: Descent) -> None:
        """Lets the last iteration begin, if there are no adjustments. From then on they are rejected."""
        if not self._adjust(descent, last=True):
            descent.proceed()


def _iteration(event: DescentIteration) -> Iteration:
    return Iteration(
        iteration=event.iteration,
        loss=event.loss,
        style_loss=event.style_loss,
        content_loss=event.content_loss,
        total_variation_loss=event.total_variation_loss,
        stage_losses=event.stage_losses,
        evaluations=event.evaluations,
        timing=event.timing,
    )
