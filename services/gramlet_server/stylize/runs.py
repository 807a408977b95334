"""Stylizations and sweeps as runs: their states are kept in the store, and they can be resumed by their ids."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from gramlet.errors import counted
from gramlet.feature.types import Model
from gramlet.run.types import RunKind
from gramlet.stylize.sweep_types import SweepEvent, SweepOrder, SweepResult
from gramlet.stylize.types import (
    Adjustment,
    Stylization,
    StylizeEvent,
    StylizeOrder,
    StylizeSettings,
    StylizeStatus,
)
from gramlet.types import Limits

from gramlet_server import __version__
from gramlet_server.feature_source import FeatureSource, pin, pin_to
from gramlet_server.runs.execution import Work
from gramlet_server.runs.kind import RESULT, Kind
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.records import LEASE_SECONDS, Records
from gramlet_server.runs.rescue import keep_rescuing
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.runs.watch import Watch
from gramlet_server.stylize.adjustments import Inbox, record
from gramlet_server.stylize.interruption import Interruption
from gramlet_server.stylize.kinds import (
    STYLIZATION,
    SWEEP,
    cell_key,
    finished,
    in_short,
    put_sweep_result,
    stored_result,
    stored_sweep_result,
)
from gramlet_server.stylize.orders import KeptOrder, get_order, get_stylization, put_order
from gramlet_server.stylize.plan import Position, PreparedStylization
from gramlet_server.stylize.prepare import prepare_pictures, prepare_stylization
from gramlet_server.stylize.presets import presets_of, resolve
from gramlet_server.stylize.results import Finished, saving
from gramlet_server.stylize.stylization import STATE_SECONDS, Control, stylize
from gramlet_server.stylize.sweep import (
    Cell,
    PreparedSweep,
    plan_sweep,
    sweep,
)
from gramlet_server.telemetry import Observer

Order = TypeVar("Order", StylizeOrder, SweepOrder)
Event = TypeVar("Event")

KIND = RunKind.STYLIZE.value
SWEEPS = RunKind.SWEEP.value


@dataclass(frozen=True)
class RunSettings:
    """How many stylizations run, and how often they are saved.

    Attributes:
        running_limit: The number of stylizations and sweeps that run at once. Each is a thread that waits for the
            device, which has a queue of its own.
        queue_limit: The number of stylizations and sweeps that may wait; more are refused.
        state_seconds: Seconds between checkpoints, if the request does not say.
        lease_seconds: How long a process that does not renew the lease of a run keeps the run.
    """

    running_limit: int = 256
    queue_limit: int = 32
    state_seconds: float = STATE_SECONDS
    lease_seconds: float = LEASE_SECONDS


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
            Records(store, self._settings.lease_seconds),
            self._settings.running_limit,
            self._settings.queue_limit,
            changed=partial((observer or Observer()).runs, KIND),
        )
        self._inboxes: dict[str, Inbox] = {}

    def status(self) -> StylizeStatus:
        """How busy the process is, and what it offers."""
        queue, presets = self.lifecycle.queue, presets_of(self._features.model())
        return StylizeStatus(
            running=queue.running,
            running_limit=queue.running_limit,
            queued=queue.queued,
            queue_limit=queue.queue_limit,
            presets=tuple(presets),
            features=self._features.address,
            server_version=__version__,
            preset_settings=tuple(presets.values()),
        )

    def keep_rescuing(self) -> None:
        """Goes on with detached runs of other processes that were lost, as long as this process lives."""
        resume, resume_sweep = self._resumed, self._resumed_sweep
        keep_rescuing(self.lifecycle, RunKind.STYLIZE, lambda name: resume(StylizeOrder(resume_run_id=name)))
        keep_rescuing(self.lifecycle, RunKind.SWEEP, lambda name: resume_sweep(SweepOrder(resume_run_id=name)))

    def start(self, order: StylizeOrder) -> Watch[StylizeEvent]:
        """Starts, resumes or watches a stylization.

        Raises:
            Overloaded: The queue is full. Nothing was done.
            Unavailable: The server is shutting down. Nothing was done.
            InvalidInput: A picture or a setting is wrong.
            AlreadyExists: The run id is taken.
            NotFound: There is no such run to resume or to watch.
            OtherWeights: The network is not the wanted one, or not that of the run to resume.
        """
        return self._begin(STYLIZATION, order, self._new, self._resumed)

    def _new(self, order: StylizeOrder, stylization: Stylization) -> Work[StylizeEvent]:
        features, model = pin(self._features, order.weights_digest)
        prepared = prepare_stylization(stylization, features, self._limits)
        kept = KeptOrder(
            prepared.settings,
            model.weights_digest,
            keep_inputs=order.keep_inputs,
            state_seconds=order.state_seconds,
        )
        with Run.new(self._store, KIND, order.run_id) as run:
            put_order(run, stylization, kept)
            return self._work(run, order, kept, features, prepared)

    def _resumed(self, order: StylizeOrder) -> Work[StylizeEvent]:
        return self._taken_over(STYLIZATION, order, stored_result, self._work)

    def _work(
        self,
        run: Run,
        order: StylizeOrder,
        kept: KeptOrder,
        features: FeatureSource,
        prepared: PreparedStylization | None = None,
    ) -> Work[StylizeEvent]:
        interruption = self._interruption(run)
        prepare = self._preparation(run, kept, prepared)

        def events() -> Generator[StylizeEvent, None, None]:
            return self._events(run, prepare(), order, kept, features, interruption)

        return Work(run, STYLIZATION, events, in_short(kept.settings), order.detached, interruption.wake)

    def sweep(self, order: SweepOrder) -> Watch[SweepEvent]:
        """Starts, resumes or watches a sweep, which is one run for all its cells.

        Raises:
            Overloaded: The queue is full. Nothing was done.
            Unavailable: The server is shutting down. Nothing was done.
            InvalidInput: A picture, a setting, a ratio or a stage is wrong.
            AlreadyExists: The run id is taken.
            NotFound: There is no such sweep to resume or to watch.
            OtherWeights: The network is not the wanted one, or not that of the sweep to resume.
        """
        return self._begin(SWEEP, order, self._new_sweep, self._resumed_sweep)

    def _new_sweep(self, order: SweepOrder, stylization: Stylization) -> Work[SweepEvent]:
        features, model = pin(self._features, order.weights_digest)
        settings = resolve(stylization.settings, model)
        plan = plan_sweep(settings, order.ratios, order.deepest_stages, model)  # before any picture is decoded
        made = plan.prepared(prepare_pictures(stylization, settings, self._limits), self._limits)
        kept = KeptOrder(
            made.stylization.settings, model.weights_digest, made.ratios, made.deepest_stages, order.keep_inputs
        )
        with Run.new(self._store, SWEEPS, order.run_id) as run:
            put_order(run, stylization, kept)
            return self._sweep_work(run, order, kept, features, made.stylization)

    def _resumed_sweep(self, order: SweepOrder) -> Work[SweepEvent]:
        return self._taken_over(SWEEP, order, stored_sweep_result, self._sweep_work)

    def _sweep_work(
        self,
        run: Run,
        order: SweepOrder,
        kept: KeptOrder,
        features: FeatureSource,
        prepared: PreparedStylization | None = None,
    ) -> Work[SweepEvent]:
        interruption = self._interruption(run)
        prepare = self._preparation(run, kept, prepared)

        def events() -> Generator[SweepEvent, None, None]:
            made = PreparedSweep(prepare(), kept.ratios, kept.deepest_stages)
            return self._sweep_events(run, made, kept, features, interruption)

        settings = f"{counted(len(kept.ratios) * len(kept.deepest_stages), 'cell')}: {in_short(kept.settings)}"
        return Work(run, SWEEP, events, settings, order.detached, interruption.wake)

    def adjust(self, run_id: str, adjustment: Adjustment) -> StylizeSettings:
        """Changes the weights of a run from its next iteration on, in any process that executes it.

        Another process sees the change within `adjustments.POLL_SECONDS`. A run that waits or was interrupted applies
        it when it goes on. A run that has begun its last iteration rejects it, even if the run is interrupted there and
        resumed from an earlier state.

        Returns:
            The settings of the run with the change.

        Raises:
            NotFound: There is no such run.
            FailedPrecondition: It is done or in its last iteration.
            OtherWeights: It was made with other weights.
            InvalidInput: There is no such stage, or all weights would be 0.
        """
        self.lifecycle.records.check_visible(RunKind.STYLIZE, run_id)
        run = Run.find(self._store, KIND, run_id)
        kept = get_order(run, "run_id")
        settings = record(run, adjustment, kept.settings, self._pinned(run, kept, "run_id")[1])
        if inbox := self._inboxes.get(run_id):
            inbox.notify()
        return settings

    def _begin(
        self,
        kind: Kind[Event],
        order: Order,
        new: Callable[[Order, Stylization], Work[Event]],
        resumed: Callable[[Order], Work[Event]],
    ) -> Watch[Event]:
        if order.watch_run_id:
            return self.lifecycle.watch(kind, order.watch_run_id)
        if order.stylization is not None:
            return self.lifecycle.start(partial(new, order, order.stylization))
        return self.lifecycle.resume(
            kind, order.resume_run_id, partial(resumed, order), detached=order.detached, take_over=order.take_over
        )

    def _taken_over(
        self,
        kind: Kind[Event],
        order: Order,
        stored: Callable[[Run], Generator[Event, None, None]],
        work: Callable[[Run, Order, KeptOrder, FeatureSource], Work[Event]],
    ) -> Work[Event]:
        """The rest of a run that was interrupted; of one that has a result, that result."""
        name, field = kind.kind.value, "resume_run_id"
        found = Run.find(self._store, name, order.resume_run_id, field)
        if found.has(RESULT):  # its process was lost after the result and before the end
            run = Run.take_over(self._store, name, order.resume_run_id)
            return Work(run, kind, lambda: stored(run))
        # Before the run is taken over: where this network is another one, the run is left alone.
        kept = get_order(found, field)
        features, _ = self._pinned(found, kept, field)
        return work(Run.take_over(self._store, name, order.resume_run_id), order, kept, features)

    def _pinned(self, run: Run, kept: KeptOrder, field: str) -> tuple[FeatureSource, Model]:
        """The network with which a run was begun."""
        return pin_to(self._features, kept.weights_digest, f"run {run.run_id}", field)

    def _preparation(
        self, run: Run, kept: KeptOrder, prepared: PreparedStylization | None
    ) -> Callable[[], PreparedStylization]:
        """Prepares the pictures of a run, or has them. A run that waits for its turn does not keep its pixels."""
        waits = self.lifecycle.queue.queued > 0
        ready = None if waits else prepared
        return lambda: ready or prepare_pictures(get_stylization(run, kept.settings), kept.settings, self._limits)

    def _interruption(self, run: Run) -> Interruption:
        return Interruption(partial(self.lifecycle.check_draining, run.run_id), lambda: self.lifecycle.draining)

    def _events(
        self,
        run: Run,
        prepared: PreparedStylization,
        order: StylizeOrder,
        kept: KeptOrder,
        features: FeatureSource,
        interruption: Interruption,
    ) -> Generator[StylizeEvent, None, None]:
        inbox = self._inboxes[run.run_id] = Inbox(run)
        ordered = kept.state_seconds if order.state_seconds is None else order.state_seconds
        control = Control(
            save=lambda position: run.put("state", position.to_bytes()),
            preview_every=order.preview_every,
            preview_side=order.preview_side,
            state_seconds=self._settings.state_seconds if ordered is None else ordered,
            adjustments=inbox.after,
            interruption=interruption,
        )

        def save(result: Finished) -> None:
            run.put(RESULT, result.to_bytes())
            _drop_inputs(run, kept)

        try:
            position = _position(run) if order.resume_run_id else None
            yield from saving(stylize(prepared, features, control, position), save)
        finally:
            if self._inboxes.get(run.run_id) is inbox:  # another call may have resumed the run meanwhile
                del self._inboxes[run.run_id]

    def _sweep_events(
        self, run: Run, prepared: PreparedSweep, kept: KeptOrder, features: FeatureSource, interruption: Interruption
    ) -> Generator[SweepEvent, None, None]:
        def save(cell: Cell, finished: Finished) -> None:
            run.put(cell_key(cell), finished.to_bytes())

        done = {cell: finished(run, cell_key(cell)) for cell in prepared.cells if run.has(cell_key(cell))}
        for event in sweep(prepared, features, finished=done, save=save, interruption=interruption):
            if isinstance(event, SweepResult):
                put_sweep_result(run, event)
                _drop_inputs(run, kept)
            yield event


def _position(run: Run) -> Position | None:
    """The position of the last checkpoint; None if there is none."""
    state = run.value("state")
    with run.intact("state"):
        return Position.from_bytes(state) if state else None


def _drop_inputs(run: Run, kept: KeptOrder) -> None:
    """Drops what a finished run needs no more: the state of the descent, and the pictures unless they are wanted."""
    for name in ("state",) if kept.keep_inputs else ("state", "pictures"):
        if run.has(name):
            run.drop(name)
