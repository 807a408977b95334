"""Stylizations and sweeps as runs: their states are kept in the store, and they can be resumed by their ids."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial

from gramlet.errors import NotFound, Overloaded
from gramlet.json_codec import from_json, to_json
from gramlet.stylize.types import (
    Adjustment,
    Preview,
    Queued,
    Result,
    StylizeEvent,
    StylizeOrder,
    StylizeSettings,
    StylizeStatus,
    SweepEvent,
    SweepOrder,
    SweepQueued,
)
from gramlet.types import Limits

from gramlet_server import __version__
from gramlet_server.feature_source import FeatureSource
from gramlet_server.runs.lifecycle import Execution, Lifecycle, Work
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.stylize.adjustments import Inbox, record
from gramlet_server.stylize.interruption import Interruption
from gramlet_server.stylize.plan import Pictures, PreparedStylization
from gramlet_server.stylize.prepare import prepare_stylization
from gramlet_server.stylize.presets import names
from gramlet_server.stylize.stylization import STATE_SECONDS, Control, Position, started, stylize
from gramlet_server.stylize.sweep import (
    Cell,
    PreparedSweep,
    prepare_sweep,
    result_from_bytes,
    result_to_bytes,
    sweep,
)
from gramlet_server.telemetry import Observer

KIND = "stylize"
SWEEPS = "sweep"


@dataclass(frozen=True)
class RunSettings:
    """How many stylizations run, and how often they are saved.

    Attributes:
        running_limit: The number of stylizations and sweeps that run at once. Each is a thread that waits for the
            device, which has a queue of its own.
        queue_limit: The number of stylizations and sweeps that may wait; more are refused.
        state_seconds: Seconds between checkpoints, if the request does not say.
    """

    running_limit: int = 256
    queue_limit: int = 32
    state_seconds: float = STATE_SECONDS


@dataclass(frozen=True)
class _Order:
    """What the store keeps of an order beside its pictures. The last two fields are a sweep's."""

    settings: StylizeSettings
    weights_digest: str
    ratios: tuple[float, ...] = ()
    deepest_stages: tuple[str, ...] = ()


class Runs:
    """All stylizations and sweeps of a process.

    Args:
        features: The network.
        store: Where runs are kept.
        settings: How many runs, and how often they are saved.
        limits: The limits on pictures and messages.
        observer: Is given the numbers of running and of waiting runs.

    Attributes:
        lifecycle: Executes the runs.
    """

    def __init__(
        self,
        features: FeatureSource,
        store: Store,
        settings: RunSettings | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._features = features
        self._store = store
        self._settings = settings or RunSettings()
        self._limits = limits or Limits()
        self.lifecycle = Lifecycle(
            self._settings.running_limit,
            self._settings.queue_limit,
            replaceable=(Preview,),
            changed=partial((observer or Observer()).runs, KIND),
        )
        self._inboxes: dict[str, Inbox] = {}

    def status(self) -> StylizeStatus:
        """How busy the process is, and what it offers."""
        queue = self.lifecycle.queue
        return StylizeStatus(
            running=queue.running,
            running_limit=queue.running_limit,
            queued=queue.queued,
            queue_limit=queue.queue_limit,
            presets=names(self._features.model()),
            features=self._features.address,
            server_version=__version__,
        )

    def start(self, order: StylizeOrder) -> Execution[StylizeEvent]:
        """Starts or resumes a stylization.

        Raises:
            Overloaded: The queue is full. Nothing was done.
            Unavailable: The server is shutting down. Nothing was done.
            InvalidInput: A picture or a setting is wrong.
            AlreadyExists: The run id is taken.
            NotFound: There is no such run to resume.
            FailedPrecondition: The run to resume was made with other weights.
        """

        def prepare() -> Work[StylizeEvent]:
            if order.stylization is not None:
                prepared = prepare_stylization(order.stylization, self._features, self._limits)
                run = Run.create(self._store, KIND, order.run_id)
                self._put(run, prepared.pictures, _Order(prepared.settings, self._weights_digest()))
            else:
                run = Run.take_over(self._store, KIND, order.resume_run_id)
                kept = self._order(run, "resume_run_id")
                prepared = PreparedStylization(self._pictures(run), kept.settings)
            interruption = self._interruption(run)
            return Work(
                run.run_id, _queued, lambda: self._events(run, prepared, order, interruption), interruption.wake
            )

        return self.lifecycle.start(prepare)

    def sweep(self, order: SweepOrder) -> Execution[SweepEvent]:
        """Starts or resumes a sweep, which is one run for all its cells.

        Raises:
            Overloaded: The queue is full. Nothing was done.
            Unavailable: The server is shutting down. Nothing was done.
            InvalidInput: A picture, a setting, a ratio or a stage is wrong.
            AlreadyExists: The run id is taken.
            NotFound: There is no such sweep to resume.
            FailedPrecondition: The sweep to resume was made with other weights.
        """

        def prepare() -> Work[SweepEvent]:
            if order.stylization is not None:
                prepared = prepare_stylization(order.stylization, self._features, self._limits)
                model = self._features.model()
                made = prepare_sweep(prepared, order.ratios, order.deepest_stages, model, self._limits)
                run = Run.create(self._store, SWEEPS, order.run_id)
                kept = _Order(made.stylization.settings, model.weights_digest, made.ratios, made.deepest_stages)
                self._put(run, prepared.pictures, kept)
            else:
                run = Run.take_over(self._store, SWEEPS, order.resume_run_id)
                kept = self._order(run, "resume_run_id")
                prepared = PreparedStylization(self._pictures(run), kept.settings)
                made = PreparedSweep(prepared, kept.ratios, kept.deepest_stages)
            interruption = self._interruption(run)
            return Work(
                run.run_id, _sweep_queued, lambda: self._sweep_events(run, made, interruption), interruption.wake
            )

        return self.lifecycle.start(prepare)

    def adjust(self, run_id: str, adjustment: Adjustment) -> StylizeSettings:
        """Changes the weights of a run from its next iteration on, in any process that executes it.

        Another process sees the change within `adjustments.POLL_SECONDS`. A run that waits or was interrupted applies
        it when it goes on. A run that has begun its last iteration rejects it, even if the run is interrupted there and
        resumed from an earlier state.

        Returns:
            The settings of the run with the change.

        Raises:
            NotFound: There is no such run.
            FailedPrecondition: It is done or in its last iteration, or was made with other weights.
            InvalidInput: There is no such stage, or all weights would be 0.
        """
        run = Run.find(self._store, KIND, run_id)
        settings = record(run, adjustment, self._order(run, "run_id").settings, self._features.model())
        if inbox := self._inboxes.get(run_id):
            inbox.notify()
        return settings

    def _put(self, run: Run, pictures: Pictures, order: _Order) -> None:
        # The order is written last: a run that has one has its pictures.
        run.put("pictures", pictures.to_bytes())
        run.put("order", to_json(order))

    def _order(self, run: Run, field: str) -> _Order:
        try:
            order = from_json(_Order, run.get("order"))
        except NotFound:
            raise NotFound(
                f"run {run.run_id} ended before its pictures were stored: send the stylization again", field=field
            ) from None
        run.check_weights(order.weights_digest, self._weights_digest(), field)
        return order

    def _pictures(self, run: Run) -> Pictures:
        return Pictures.from_bytes(run.get("pictures"))

    def _weights_digest(self) -> str:
        return self._features.model().weights_digest

    def _interruption(self, run: Run) -> Interruption:
        return Interruption(partial(self.lifecycle.check_draining, run.run_id), lambda: self.lifecycle.draining)

    def _events(
        self, run: Run, prepared: PreparedStylization, order: StylizeOrder, interruption: Interruption
    ) -> Generator[StylizeEvent, None, None]:
        inbox = self._inboxes[run.run_id] = Inbox(run)
        control = Control(
            save=lambda position: run.put("state", position.to_bytes()),
            preview_every=order.preview_every,
            state_seconds=self._settings.state_seconds if order.state_seconds is None else order.state_seconds,
            adjustments=inbox.after,
            interruption=interruption,
        )
        try:
            position = _position(run) if order.resume_run_id else None
            if result := _result(run) if order.resume_run_id else None:
                position = replace(position or Position(settings=prepared.settings), iteration=result.iteration)
                yield started(prepared, self._features.model(), position)
                yield result
                return
            for event in stylize(prepared, self._features, control, position):
                if isinstance(event, Result):
                    run.put("result", result_to_bytes(event))
                yield event
        except Overloaded:
            if order.stylization is not None:
                run.delete()  # nothing was done, and the caller may send the order again
            raise
        finally:
            if self._inboxes.get(run.run_id) is inbox:  # another call may have resumed the run meanwhile
                del self._inboxes[run.run_id]

    def _sweep_events(
        self, run: Run, prepared: PreparedSweep, interruption: Interruption
    ) -> Generator[SweepEvent, None, None]:
        def save(cell: Cell, result: Result) -> None:
            run.put(_key(cell), result_to_bytes(result))

        finished = {cell: result_from_bytes(run.get(_key(cell))) for cell in prepared.cells if run.has(_key(cell))}
        yield from sweep(prepared, self._features, finished=finished, save=save, interruption=interruption)


def _position(run: Run) -> Position | None:
    """The position of the last checkpoint; None if there is none."""
    state = run.value("state")
    return None if state is None else Position.from_bytes(state)


def _result(run: Run) -> Result | None:
    """The result; None if the run has not ended."""
    result = run.value("result")
    return None if result is None else result_from_bytes(result)


def _queued(position: int) -> StylizeEvent:
    return Queued(position=position)


def _sweep_queued(position: int) -> SweepEvent:
    return SweepQueued(position=position)


def _key(cell: Cell) -> str:
    return "cell-{}-{}".format(*cell)
