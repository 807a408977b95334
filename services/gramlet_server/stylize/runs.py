"""Stylizations as runs: each waits for its turn, has its checkpoints in the store, and can be resumed by its id."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Generic, TypeVar

from gramlet.errors import FailedPrecondition, NotFound
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
from gramlet_server.backbone.threads import set_single_threaded
from gramlet_server.feature_source import FeatureSource
from gramlet_server.pictures.encode import encode_jpeg
from gramlet_server.runs.events import Conflated
from gramlet_server.runs.queue import Turn, Turns
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.stylize import adjustments, presets
from gramlet_server.stylize import sweep as sweeps
from gramlet_server.stylize.adjustments import Inbox
from gramlet_server.stylize.optimise import Descent, Job, Look, stylize
from gramlet_server.stylize.prepare import prepare_job
from gramlet_server.stylize.sweep import Place, Plan
from gramlet_server.telemetry import Observer

KIND = "stylize"
SWEEPS = "sweep"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """How many stylizations run, and how often they are saved.

    Attributes:
        running_limit: Stylizations under way at once.
        queue_limit: Stylizations that may wait; more are refused.
        checkpoint_every: Iterations between checkpoints, where the request does not say.
    """

    running_limit: int = 2
    queue_limit: int = 32
    checkpoint_every: int = 25


E = TypeVar("E", bound=StylizeEvent | SweepEvent)


class Stylizing(Generic[E]):
    """One run being read: an iterator of its events. Cancelling it stops the work within one iteration."""

    def __init__(self, run_id: str, events: Iterator[E], turn: Turn) -> None:
        self.run_id = run_id
        self._turn = turn
        self._conflated: Conflated[E] = Conflated(_alone(events), lambda event: isinstance(event, Look))

    def __iter__(self) -> Iterator[E]:
        return map(_seen, self._conflated)

    def cancel(self) -> None:
        """Stops the run; what its checkpoints hold can be resumed. Returns at once."""
        self._turn.leave()
        self._conflated.cancel()

    def join(self) -> None:
        """Waits until the work has stopped."""
        self._conflated.join()


class Runs:
    """All stylizations of a process."""

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
        observer = observer or Observer()
        self._turns = Turns(
            self._settings.running_limit,
            self._settings.queue_limit,
            lambda running, queued: observer.runs(KIND, running, queued),
        )
        self._draining = threading.Event()
        self._inboxes: dict[str, Inbox] = {}

    def status(self) -> StylizeStatus:
        """How busy the process is, and what it offers."""
        return StylizeStatus(
            running=self._turns.running,
            running_limit=self._turns.running_limit,
            queued=self._turns.queued,
            queue_limit=self._turns.queue_limit,
            presets=presets.names(self._features.model()),
            features=self._features.address,
            server_version=__version__,
        )

    def drain(self) -> None:
        """Ends all runs after their iteration with a checkpoint and Unavailable, so that they go on elsewhere."""
        self._draining.set()

    def start(self, order: StylizeOrder) -> Stylizing[StylizeEvent]:
        """Starts or resumes a run.

        Raises:
            Overloaded: As many runs are under way and wait as may. Nothing was done.
            InvalidInput: A picture or a setting is wrong.
            AlreadyExists: The run id is taken.
            NotFound: There is no such run to resume.
            FailedPrecondition: The run to resume was made with other weights.
        """
        with ExitStack() as undo:
            turn = self._turns.take()
            undo.callback(turn.leave)
            if order.stylization is not None:
                job = prepare_job(order.stylization, self._features, self._limits)
                run = Run.create(self._store, KIND, order.run_id or uuid.uuid4().hex)
                run.put("weights", self._features.model().weights_digest.encode())
                run.put("job", job.to_bytes())
                descent = None
            else:
                run = Run.take_over(self._store, KIND, order.resume_run_id)
                job, descent = self._resumed(run)
            every = self._settings.checkpoint_every if order.checkpoint_every is None else order.checkpoint_every
            events = self._events(turn, run, job, descent, order.preview_every, every)
            undo.pop_all()
        return Stylizing(run.run_id, events, turn)

    def sweep(self, order: SweepOrder) -> Stylizing[SweepEvent]:
        """Starts or resumes a sweep, which takes one turn for all its cells.

        Raises:
            Overloaded: As many runs are under way and wait as may. Nothing was done.
            InvalidInput: A picture, a setting, a ratio or a stage is wrong.
            AlreadyExists: The run id is taken.
            NotFound: There is no such sweep to resume.
            FailedPrecondition: The sweep to resume was made with other weights.
        """
        with ExitStack() as undo:
            turn = self._turns.take()
            undo.callback(turn.leave)
            if order.stylization is not None:
                model = self._features.model()
                job = prepare_job(order.stylization, self._features, self._limits)
                made = sweeps.plan(job, order.ratios, order.deepest_stages, model, self._limits)
                run = Run.create(self._store, SWEEPS, order.run_id or uuid.uuid4().hex)
                run.put("weights", model.weights_digest.encode())
                run.put("plan", made.to_bytes())
                run.put("job", made.job.to_bytes())
            else:
                run = Run.take_over(self._store, SWEEPS, order.resume_run_id)
                job = self._job(run, "resume_run_id")
                made = Plan.from_bytes(run.get("plan"), job)
            events = self._sweep_events(turn, run, made)
            undo.pop_all()
        return Stylizing(run.run_id, events, turn)

    def _sweep_events(self, turn: Turn, run: Run, made: Plan) -> Iterator[SweepEvent]:
        def save(place: Place, result: Result) -> None:
            run.put(_cell(place), _result_to_bytes(result))

        try:
            for position in turn.positions():
                yield SweepQueued(position=position)
            finished = {p: _result_from_bytes(run.get(_cell(p))) for p in made.places if run.has(_cell(p))}
            yield from sweeps.sweep(
                made, self._features, finished=finished, save=save, interrupted=self._draining.is_set
            )
        finally:
            turn.leave()

    def adjust(self, run_id: str, adjustment: Adjustment) -> StylizeSettings:
        """Changes a run's weights from its next iteration on, whichever process runs it; returns its new settings.

        A process that runs it elsewhere sees the change within `adjustments.POLL_SECONDS`. A run that waits or was
        interrupted heeds it when it goes on. One that has begun its last iteration takes no more changes, not even if
        it is interrupted there and resumed from earlier.

        Raises:
            NotFound: There is no such run.
            FailedPrecondition: It is done or in its last iteration, or was made with other weights.
            InvalidInput: No such stage, or nothing would be left to minimize.
        """
        run = Run.find(self._store, KIND, run_id)
        job = self._job(run, "run_id")
        settings = adjustments.record(run, adjustment, job.settings, self._features.model())
        if inbox := self._inboxes.get(run_id):
            inbox.tell()
        return settings

    def _job(self, run: Run, field: str) -> Job:
        try:
            job = Job.from_bytes(run.get("job"))
        except NotFound:
            raise NotFound(
                f"run {run.run_id} ended before its pictures were stored: send the stylization again", field=field
            ) from None
        digest = self._features.model().weights_digest
        if run.get("weights").decode() != digest:
            raise FailedPrecondition(
                f"run {run.run_id} was made with other weights than this network's ({digest[:12]})", field=field
            )
        return job

    def _resumed(self, run: Run) -> tuple[Job, Descent | None]:
        job = self._job(run, "resume_run_id")
        try:
            return job, Descent.from_bytes(run.get("checkpoint"))
        except NotFound:
            return job, None

    def _events(
        self, turn: Turn, run: Run, job: Job, descent: Descent | None, preview_every: int, checkpoint_every: int
    ) -> Iterator[StylizeEvent]:
        def save(checkpoint: bytes) -> None:
            run.put("checkpoint", checkpoint)

        inbox = self._inboxes[run.run_id] = Inbox(run)
        try:
            for position in turn.positions():
                yield Queued(position=position)
            yield from stylize(
                job,
                self._features,
                descent=descent,
                save=save,
                preview_every=preview_every,
                checkpoint_every=checkpoint_every,
                interrupted=self._draining.is_set,
                adjustments=inbox.after,
            )
        finally:
            if self._inboxes.get(run.run_id) is inbox:  # not that of a call that has resumed the run meanwhile
                del self._inboxes[run.run_id]
            turn.leave()


def _alone(events: Iterator[E]) -> Iterator[E]:
    """Computes the events with one processor thread: more would be in the way of a network's in the same process."""
    set_single_threaded()
    yield from events


def _cell(place: Place) -> str:
    return "cell-{}-{}".format(*place)


def _result_to_bytes(result: Result) -> bytes:
    """A line of JSON, and the PNG file."""
    told = {"iteration": result.iteration, "loss": result.loss}
    told |= {"style_loss": result.style_loss, "content_loss": result.content_loss}
    return json.dumps(told).encode() + b"\n" + result.png


def _result_from_bytes(data: bytes) -> Result:
    told, _, png = data.partition(b"\n")
    return Result(png=png, **json.loads(told))


def _seen(event: Any) -> Any:
    """A look becomes a file only when the reader takes it."""
    if isinstance(event, Look):
        return Preview(iteration=event.iteration, jpeg=encode_jpeg(event.picture))
    return event
