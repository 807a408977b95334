"""The training runs of a process: each order is checked, becomes a run or resumes one, and is queued."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from gramlet.errors import NotFound, counted
from gramlet.feature.types import Model
from gramlet.json_codec import from_json, to_json
from gramlet.run.types import RunKind
from gramlet.train.configuration import Configuration, TrainOrder, Upload
from gramlet.train.types import Event

from gramlet_server.backbone.architecture import architecture
from gramlet_server.feature_source import FeatureSource, pin, pin_to
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.runs.execution import Work
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.records import LEASE_SECONDS, Records
from gramlet_server.runs.rescue import keep_rescuing
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.runs.watch import Watch
from gramlet_server.telemetry import Observer
from gramlet_server.train import data
from gramlet_server.train.cache import FeatureCache
from gramlet_server.train.classifier import BaseStages
from gramlet_server.train.data import TrainLimits
from gramlet_server.train.datasets import Datasets
from gramlet_server.train.kind import training_kind
from gramlet_server.train.memory import findings_bytes
from gramlet_server.train.registry import Registry
from gramlet_server.train.training import Environment, TrainingRun, stored_result

KIND = RunKind.TRAIN.value


@dataclass(frozen=True)
class RunSettings:
    """How many training runs are executed, and what they may use.

    Attributes:
        running_limit: Runs that are executed at once.
        queue_limit: Runs that may wait; more are refused.
        checkpoint_seconds: Least time between two checkpoints.
        dataset_roots: Folders and s3:// prefixes below which clients may name data sets.
        device: Where heads and late stages are trained.
        limits: What a run may ask for.
        lease_seconds: How long a process that does not renew the lease of a run keeps the run.
    """

    running_limit: int = 2
    queue_limit: int = 32
    checkpoint_seconds: float = 5.0
    dataset_roots: tuple[str, ...] = ()
    device: str = "cpu"
    limits: TrainLimits = field(default_factory=TrainLimits)
    lease_seconds: float = LEASE_SECONDS


class Runs:
    """The training runs of a process.

    Args:
        features: The network.
        store: Where runs, features and heads are kept.
        base: The network's weights, for unfrozen stages.
        settings: How many runs, and what they may use.
        observer: Gets the numbers of running and waiting runs.

    Attributes:
        lifecycle: Queues and executes the runs, and drains them.
    """

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
        self._kind = training_kind(self._finished)
        self.lifecycle = Lifecycle(
            Records(store, self._settings.lease_seconds),
            self._settings.running_limit,
            self._settings.queue_limit,
            changed=partial((observer or Observer()).runs, KIND),
        )
        self._environment = Environment(
            features=features,
            registry=Registry(store),
            cache=FeatureCache(store),
            datasets=Datasets(self._settings.dataset_roots),
            base=base,
            lifecycle=self.lifecycle,
            checkpoint_seconds=self._settings.checkpoint_seconds,
            device=self._settings.device,
        )

    def warm_up(self) -> None:
        """Imports what the first run would wait for: torch imports its compiler with the first optimizer, in 2 s."""
        torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
        importlib.import_module("matplotlib.figure")
        importlib.import_module("matplotlib.backends.backend_agg")

    def start(self, order: TrainOrder, uploads: Iterable[Upload]) -> Watch[Event]:
        """Starts, resumes or watches a run.

        Args:
            order: A configuration, or the run to resume or to watch.
            uploads: The pictures that the `Accepted` event asks for; read after that event.

        Raises:
            Overloaded: The queue is full. Nothing was done.
            Unavailable: The server is shutting down. Nothing was done.
            InvalidInput: Something is wrong with the configuration.
            PermissionDenied: The data set is not below an allowed root.
            AlreadyExists: The run id is taken.
            NotFound: There is no such run to resume or to watch.
            FailedPrecondition: Stages cannot be unfrozen here.
            OtherWeights: The network is not the wanted one, or not that of the run to resume.
        """
        if order.watch_run_id:
            return self.lifecycle.watch(self._kind, order.watch_run_id)
        if order.configuration is not None:
            return self.lifecycle.start(lambda: self._prepare(order, uploads))
        return self.lifecycle.resume(
            self._kind,
            order.resume_run_id,
            lambda: self._prepare(order, uploads),
            detached=order.detached,
            take_over=order.take_over,
        )

    def keep_rescuing(self) -> None:
        """Goes on with detached runs of other processes that were lost, as long as this process lives."""
        keep_rescuing(self.lifecycle, RunKind.TRAIN, lambda run_id: self._prepare(TrainOrder(resume_run_id=run_id), ()))

    def _prepare(self, order: TrainOrder, uploads: Iterable[Upload]) -> Work[Event]:
        source = self._environment.features
        if order.configuration is not None:
            features, model = pin(source, order.weights_digest)
            configuration = self._checked(order.configuration, model)
            with Run.new(self._store, KIND, order.run_id) as run:
                run.put("configuration", to_json(_StoredConfiguration(configuration, model.weights_digest)))
        else:
            stored = _stored_configuration(Run.find(self._store, KIND, order.resume_run_id, "resume_run_id"))
            # Before the run is taken over: where this network is another one, the run is left alone.
            made = f"run {order.resume_run_id}"
            features, model = pin_to(source, stored.weights_digest, made, "resume_run_id")
            configuration = stored.configuration
            run = Run.take_over(self._store, KIND, order.resume_run_id)
        training = TrainingRun(run, configuration, model, replace(self._environment, features=features))
        return Work(
            run,
            self._kind,
            lambda: training.events(uploads),
            settings=f"head {configuration.name}, {counted(len(configuration.entries), 'picture')}",
            detached=order.detached,
        )

    def _finished(self, store: Store, run_id: str) -> Iterator[Event]:
        yield stored_result(Run(store, KIND, run_id, 0), self._environment.registry)

    def _checked(self, configuration: Configuration, model: Model) -> Configuration:
        """The configuration with all its entries."""
        limits = self._settings.limits
        data.check_configuration(configuration, limits, model)
        if any(recipe.stages for recipe in configuration.recipes):
            self._environment.base.weights(model.weights_digest)
        if configuration.dataset:
            entries = self._environment.datasets.entries(configuration.dataset)
            configuration = replace(configuration, entries=entries)
        data.check_entries(configuration.entries, limits)
        PROCESS.check(findings_bytes(configuration.entries, architecture(model.backbone)), "entries")
        return configuration


@dataclass(frozen=True)
class _StoredConfiguration:
    configuration: Configuration
    weights_digest: str


def _stored_configuration(run: Run) -> _StoredConfiguration:
    stored = run.value("configuration")
    if stored is None:
        raise NotFound(f"run {run.run_id} was interrupted before it began: start it again", field="resume_run_id")
    with run.intact("configuration"):
        return from_json(_StoredConfiguration, stored)
