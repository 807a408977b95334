"""Training runs of a process: each is checked, waits for its turn, and is told to one reader."""

from __future__ import annotations

import importlib
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace

import torch
from gramlet.errors import FailedPrecondition, NotFound, Unavailable
from gramlet.feature.types import Model
from gramlet.json_codec import from_json, to_json
from gramlet.train.configuration import Configuration, TrainOrder, Upload
from gramlet.train.types import Event, Extracting, Queued, Step

from gramlet_server.feature_source import FeatureSource
from gramlet_server.runs.events import Conflated
from gramlet_server.runs.queue import Turn, Turns
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.telemetry import Observer
from gramlet_server.train import data as data_sets
from gramlet_server.train.cache import FeatureCache
from gramlet_server.train.classifier import BaseStages
from gramlet_server.train.data import Limits
from gramlet_server.train.datasets import Datasets
from gramlet_server.train.job import Job, Tools
from gramlet_server.train.registry import Registry

KIND = "train"


@dataclass(frozen=True)
class RunSettings:
    """How many trainings run, and what they may use.

    Attributes:
        running_limit: Trainings under way at once.
        queue_limit: Trainings that may wait; more are refused.
        checkpoint_seconds: Least time between two checkpoints.
        dataset_roots: Folders and s3:// prefixes that clients may name as data sets.
        device: Where heads and late stages are trained.
        limits: What a run may ask for.
    """

    running_limit: int = 2
    queue_limit: int = 32
    checkpoint_seconds: float = 5.0
    dataset_roots: tuple[str, ...] = ()
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class _Order:
    configuration: Configuration
    weights_digest: str


class Training:
    """One run being read: an iterator of its events. Cancelling it stops the work within one batch."""

    def __init__(self, run_id: str, events: Iterator[Event], turn: Turn) -> None:
        self.run_id = run_id
        self._turn = turn
        self._conflated = Conflated(events, lambda event: isinstance(event, Step | Extracting))

    def __iter__(self) -> Iterator[Event]:
        return self._conflated

    def cancel(self) -> None:
        """Stops the run; it can be resumed. Returns at once."""
        self._turn.leave()
        self._conflated.cancel()

    def join(self) -> None:
        """Waits until the work has stopped."""
        self._conflated.join()


class Runs:
    """All trainings of a process."""

    def __init__(
        self,
        features: FeatureSource,
        store: Store,
        base: BaseStages,
        settings: RunSettings | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self._settings = settings or RunSettings()
        self._tools = Tools(
            features=features,
            registry=Registry(store),
            cache=FeatureCache(store),
            datasets=Datasets(self._settings.dataset_roots),
            base=base,
            device=self._settings.device,
            checkpoint_seconds=self._settings.checkpoint_seconds,
        )
        observer = observer or Observer()
        self._turns = Turns(
            self._settings.running_limit,
            self._settings.queue_limit,
            lambda running, queued: observer.runs(KIND, running, queued),
        )
        self._draining = threading.Event()

    def warm_up(self) -> None:
        """Loads what the first run would wait for: torch's compiler comes with its first optimizer, and takes 2 s."""
        torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
        importlib.import_module("matplotlib.figure")
        importlib.import_module("matplotlib.backends.backend_agg")

    def drain(self) -> None:
        """Ends all runs after their batch with Unavailable, so that they go on elsewhere."""
        self._draining.set()

    def start(self, order: TrainOrder, uploads: Iterable[Upload]) -> Training:
        """Starts or resumes a run.

        Args:
            order: The run.
            uploads: The pictures that `Accepted` asks for. Taken when it has been told.

        Raises:
            Overloaded: As many runs are under way and wait as may. Nothing was done.
            InvalidInput: Something is wrong with the order.
            PermissionDenied: The data set is not below an allowed root.
            AlreadyExists: The run id is taken.
            NotFound: There is no such run to resume.
            FailedPrecondition: The run to resume was made with other weights, or stages cannot be unfrozen here.
        """
        with ExitStack() as undo:
            turn = self._turns.take()
            undo.callback(turn.leave)
            model = self._tools.features.model()
            if order.configuration is not None:
                configuration = self._checked(order.configuration, model)
                run = Run.create(self._store, KIND, order.run_id or uuid.uuid4().hex)
                run.put("configuration", to_json(_Order(configuration, model.weights_digest)))
            else:
                run = Run.take_over(self._store, KIND, order.resume_run_id)
                configuration = self._resumed(run, model)
            job = Job(self._tools, run, configuration, model)
            undo.pop_all()
        return Training(run.run_id, self._events(turn, job, uploads), turn)

    def _checked(self, configuration: Configuration, model: Model) -> Configuration:
        limits = self._settings.limits
        data_sets.check_configuration(configuration, limits, model)
        if any(recipe.stages for recipe in configuration.recipes):
            self._tools.base.weights(model.weights_digest)
        if configuration.dataset:
            configuration = replace(configuration, entries=self._tools.datasets.entries(configuration.dataset))
        data_sets.check_entries(configuration.entries, limits)
        split = data_sets.split(configuration.entries, configuration.validation_fraction, configuration.seed)
        return replace(configuration, entries=tuple(split))

    def _resumed(self, run: Run, model: Model) -> Configuration:
        try:
            order = from_json(_Order, run.get("configuration"))
        except NotFound:
            raise NotFound(
                f"run {run.run_id} was cut off before it began: start it again", field="resume_run_id"
            ) from None
        if order.weights_digest != model.weights_digest:
            raise FailedPrecondition(
                f"run {run.run_id} was made with other weights than this network's ({model.weights_digest[:12]})",
                field="resume_run_id",
            )
        return order.configuration

    def _events(self, turn: Turn, job: Job, uploads: Iterable[Upload]) -> Iterator[Event]:
        try:
            for position in turn.positions():
                yield Queued(position)
            with closing(job.events(uploads)) as events:
                for event in events:
                    yield event
                    if self._draining.is_set() and not job.done:
                        job.abandon()
                        raise Unavailable(f"the server is going away: resume run {job.run.run_id} elsewhere")
        finally:
            turn.leave()
