"""Training runs of a process: each is checked, waits for its turn, and is told to one reader."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from gramlet.errors import NotFound
from gramlet.feature.types import Model
from gramlet.json_codec import from_json, to_json
from gramlet.train.configuration import Configuration, TrainOrder, Upload
from gramlet.train.types import Event, Extracting, Queued, Step

from gramlet_server.feature_source import FeatureSource
from gramlet_server.runs.lifecycle import Execution, Lifecycle, Work
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
        self.lifecycle = Lifecycle(
            self._settings.running_limit,
            self._settings.queue_limit,
            replaceable=(Step, Extracting),
            changed=partial(observer.runs, KIND),
        )

    def warm_up(self) -> None:
        """Loads what the first run would wait for: torch's compiler comes with its first optimizer, and takes 2 s."""
        torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
        importlib.import_module("matplotlib.figure")
        importlib.import_module("matplotlib.backends.backend_agg")

    def start(self, order: TrainOrder, uploads: Iterable[Upload]) -> Execution[Event]:
        """Starts or resumes a run.

        Args:
            order: The run.
            uploads: The pictures that `Accepted` asks for. Taken when it has been told.

        Raises:
            Overloaded: The queue is full. Nothing was done.
            Unavailable: The server is shutting down. Nothing was done.
            InvalidInput: Something is wrong with the order.
            PermissionDenied: The data set is not below an allowed root.
            AlreadyExists: The run id is taken.
            NotFound: There is no such run to resume.
            FailedPrecondition: The run to resume was made with other weights, or stages cannot be unfrozen here.
        """

        def prepare() -> Work[Event]:
            model = self._tools.features.model()
            if order.configuration is not None:
                configuration = self._checked(order.configuration, model)
                run = Run.create(self._store, KIND, order.run_id)
                run.put("configuration", to_json(_Order(configuration, model.weights_digest)))
            else:
                run = Run.take_over(self._store, KIND, order.resume_run_id)
                configuration = self._resumed(run, model)
            job = Job(self._tools, run, configuration, model, self.lifecycle)
            return Work(run.run_id, queued=Queued, events=lambda: job.events(uploads))

        return self.lifecycle.start(prepare)

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
        run.check_weights(order.weights_digest, model.weights_digest)
        return order.configuration
