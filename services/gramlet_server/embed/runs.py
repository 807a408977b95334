"""Maps as runs: each waits for its turn, has its checkpoints in the store, and can be resumed by its name."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from gramlet.embed.settings import Descriptor, Gradient, MapSettings, Method
from gramlet.embed.types import BadItem, Item, MapEvent, MapStart, Started, StyleMap
from gramlet.errors import FailedPrecondition, InvalidInput, NotFound
from gramlet.feature.types import Model, find_stage
from gramlet.run.types import RunKind
from gramlet.types import Limits

from gramlet_server.embed import project, stored
from gramlet_server.embed.distances import BLOCK_BYTES, SLICE_BYTES, Budget
from gramlet_server.embed.kind import MAP
from gramlet_server.embed.pipeline import MapPipeline, Tools
from gramlet_server.embed.stored import KIND, ItemSet, Plan
from gramlet_server.feature_source import FeatureSource
from gramlet_server.runs.execution import Work
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.records import LEASE_SECONDS, Records
from gramlet_server.runs.rescue import keep_rescuing
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.runs.watch import Watch
from gramlet_server.telemetry import Observer

_DEFAULT_STAGES = {
    "resnet": {
        Descriptor.GRAM: ("conv1", "maxpool", "layer1", "layer2"),
        Descriptor.POOLED: ("avgpool",),
    },
    "vgg": {
        Descriptor.GRAM: ("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
        Descriptor.POOLED: ("relu5_1",),
    },
}


@dataclass(frozen=True)
class RunSettings:
    """How many maps are computed, and the resources of each.

    Attributes:
        running_limit: Maps that are computed at once.
        queue_limit: Maps that may wait; more are refused.
        checkpoint_every: Iterations between two checkpoints.
        budget: Memory and disk space of one map.
        lease_seconds: How long a process that does not renew the lease of a map keeps the map.
    """

    running_limit: int = 1
    queue_limit: int = 16
    checkpoint_every: int = 50
    budget: Budget = field(default_factory=Budget)
    lease_seconds: float = LEASE_SECONDS


class Maps:
    """All maps that a process computes.

    Attributes:
        lifecycle: Of the runs.
    """

    def __init__(
        self,
        features: FeatureSource,
        store: Store,
        settings: RunSettings | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
    ) -> None:
        settings = settings or RunSettings()
        self.lifecycle = Lifecycle(
            Records(store, settings.lease_seconds),
            settings.running_limit,
            settings.queue_limit,
            changed=partial((observer or Observer()).runs, KIND),
        )
        self._tools = Tools(
            features, store, limits or Limits(), settings.budget, settings.checkpoint_every, self.lifecycle
        )

    def start(self, start: MapStart, items: Iterable[Item | BadItem]) -> Watch[MapEvent]:
        """Starts, resumes or watches a map.

        Args:
            start: The settings of a new map, or the name of the map to resume or to watch.
            items: The items, taken one by one while the map is computed.

        Raises:
            Overloaded: The queue is full. Nothing was done.
            Unavailable: The server is shutting down. Nothing was done.
            InvalidInput: A setting is wrong, or a map of so many items could take more memory than is allowed.
            AlreadyExists: The map's name is taken.
            NotFound: There is no such map to resume, to watch, or to start from.
            FailedPrecondition: The items of the map to resume had not all arrived and are not sent again, or they
                would be described by other weights; or the map to start from does not fit.
        """
        if start.watch_map_id:
            return self.lifecycle.watch(MAP, start.watch_map_id)
        if start.settings is not None:
            return self.lifecycle.start(lambda: self.prepare(start, items))
        return self.lifecycle.resume(
            MAP,
            start.resume_map_id,
            lambda: self.prepare(start, items),
            detached=start.detached,
            take_over=start.take_over,
        )

    def keep_rescuing(self) -> None:
        """Goes on with detached maps of other processes that were lost, as long as this process lives."""
        keep_rescuing(self.lifecycle, RunKind.EMBED, self._rescued)

    def _rescued(self, map_id: str) -> Work[MapEvent]:
        if not stored.has_items(stored.open_run(self._tools.store, map_id)):
            raise NotFound(f"the process that made map {map_id} was lost before all items had arrived: send them again")
        return self.prepare(MapStart(None, map_id), ())

    def prepare(self, start: MapStart, items: Iterable[Item | BadItem]) -> Work[MapEvent]:
        """Creates the run of a new map, or takes over that of an interrupted one. Errors are those of `start`."""
        if start.settings is not None:
            run, pipeline = self._new(start, start.settings, items)
        else:
            run, pipeline = self._resumed(start, items)
        return Work(run, MAP, pipeline.events, settings=pipeline.in_short, detached=start.detached)

    def _new(self, start: MapStart, settings: MapSettings, items: Iterable[Item | BadItem]) -> tuple[Run, MapPipeline]:
        if start.count < 1:
            raise InvalidInput("say how many items will come, at least 1", field="start.count")
        backbone = weights_digest = ""
        if settings.descriptor is Descriptor.VECTOR:
            settings = replace(settings, stages=())
        else:
            model = self._tools.features.model()
            settings = complete(settings, model)
            backbone, weights_digest = model.backbone, model.weights_digest
        check_ranges(settings)
        check_memory(start.count, settings, self._tools.budget)
        if start.from_map_id:
            _check_earlier(stored.get_map(self._tools.store, start.from_map_id), settings)
        plan = Plan(
            settings=settings,
            created=time.time(),
            backbone=backbone,
            weights_digest=weights_digest,
            from_map_id=start.from_map_id,
            report_every=max(start.report_every, 1),
            omit_coordinates=start.omit_coordinates,
        )
        run = Run.create(self._tools.store, KIND, start.map_id)
        stored.put_plan(run, plan)
        return run, self._pipeline(run, plan, start.count, items)

    def _resumed(self, start: MapStart, items: Iterable[Item | BadItem]) -> tuple[Run, MapPipeline]:
        run = Run.take_over(self._tools.store, KIND, start.resume_map_id)
        plan = stored.get_plan(run)
        plan = replace(plan, report_every=max(start.report_every, 1), omit_coordinates=start.omit_coordinates)
        if stored.has_items(run):
            item_set = stored.get_items(run)
            return run, self._pipeline(run, plan, len(item_set.items), (), item_set)
        if not start.count:
            raise FailedPrecondition(
                f"not all items of map {run.run_id} had arrived: send them again, with their count",
                field="start.resume_map_id",
            )
        if plan.weights_digest:
            serving = self._tools.features.model().weights_digest
            run.check_weights(plan.weights_digest, serving, "start.resume_map_id")
        check_memory(start.count, plan.settings, self._tools.budget)
        return run, self._pipeline(run, plan, start.count, items)

    def _pipeline(
        self, run: Run, plan: Plan, count: int, items: Iterable[Item | BadItem], item_set: ItemSet | None = None
    ) -> MapPipeline:
        bound = memory_bound(count, plan.settings)
        started = Started(run.run_id, plan.settings, bound, resumed=item_set is not None)
        return MapPipeline(self._tools, run, plan, started, count, items, item_set)


def _check_earlier(earlier: StyleMap, settings: MapSettings) -> None:
    """Checks that a map with these settings can start from an earlier one.

    Raises:
        InvalidInput: The method is not t-SNE.
        FailedPrecondition: The earlier map has another number of dimensions.
    """
    if settings.method is not Method.TSNE:
        raise InvalidInput("only t-SNE starts from another map", field="start.from_map_id")
    if earlier.settings.dimensions != settings.dimensions:
        raise FailedPrecondition(
            f"map {earlier.map_id} has {earlier.settings.dimensions} dimensions, not {settings.dimensions}",
            field="start.from_map_id",
        )


def complete(settings: MapSettings, model: Model) -> MapSettings:
    """The settings of a map of pictures with its stages filled in.

    Raises:
        InvalidInput: The network has no such stage, or no stages are given and it has no default ones.
    """
    stages = settings.stages or default_stages(model.backbone, settings.descriptor)
    for index, stage in enumerate(stages):
        find_stage(stage, model.stages, model.backbone, f"start.settings.stages[{index}]")
    return replace(settings, stages=stages)


def default_stages(backbone: str, descriptor: Descriptor) -> tuple[str, ...]:
    """The stages that a map uses when the caller names none.

    Raises:
        InvalidInput: The network has no default stages.
    """
    for family, stages in _DEFAULT_STAGES.items():
        if backbone.startswith(family):
            return stages[descriptor]
    raise InvalidInput(f"{backbone} has no default stages: name some", field="start.settings.stages")


def check_ranges(settings: MapSettings) -> None:
    """Checks every setting that can be checked before the first item arrives.

    Raises:
        InvalidInput: A setting is out of its range.
        FailedPrecondition: UMAP is not installed here.
    """
    tsne = settings.tsne
    rules = {
        "dimensions": (1 <= settings.dimensions <= 3, "is 1, 2 or 3"),
        "neighbors": (settings.neighbors >= 1, "is at least 1"),
        "quality_neighbors": (settings.quality_neighbors >= 1, "is at least 1"),
        "sketch_size": (settings.sketch_size >= 64, "is at least 64"),
        "tsne.perplexities": (
            bool(tsne.perplexities) and all(1 <= perplexity < np.inf for perplexity in tsne.perplexities),
            "are one or more numbers of at least 1",
        ),
        "tsne.iterations": (tsne.iterations >= 1, "is at least 1"),
        "tsne.early_exaggeration": (tsne.early_exaggeration >= 1, "is at least 1"),
        "tsne.learning_rate": (tsne.learning_rate is None or tsne.learning_rate > 0, "is positive"),
        "tsne.angle": (0 <= tsne.angle <= 1, "lies between 0 and 1"),
        "tsne.gradient": (
            settings.dimensions <= 2 or tsne.gradient is not Gradient.INTERPOLATION,
            "by interpolation has at most 2 dimensions",
        ),
    }
    for name, (right, rule) in rules.items():
        if not right:
            raise InvalidInput(f"{name.rpartition('.')[2]} {rule}", field=f"start.settings.{name}")
    project.check_installed(settings.method)


def check_memory(count: int, settings: MapSettings, budget: Budget) -> None:
    """Checks that a map of `count` items fits into the memory that the budget allows.

    Raises:
        InvalidInput: It does not fit.
    """
    bound = memory_bound(count, settings)
    if bound > budget.memory_bytes:
        raise InvalidInput(
            f"{count} items by {settings.method.value} may take {bound / 2**30:.1f} GiB of memory, and "
            f"{budget.memory_bytes / 2**30:.1f} GiB are allowed: send fewer items, or use t-SNE or PCA",
            field="start.count",
        )


def memory_bound(count: int, settings: MapSettings) -> int:
    """The most memory in bytes that a map of `count` items takes, without the pictures that are being processed.

    The number of N × N matrices by method is that of scikit-learn's and umap-learn's implementations.
    """
    square = 4 * count * count
    by_method = {
        Method.TSNE: 0,
        Method.PCA: 0,
        Method.LLE: 2 * square,
        Method.UMAP: 4 * square,
        Method.ISOMAP: 8 * square,
        Method.MDS: 12 * square,
    }
    # t-SNE keeps indices, distances and probabilities of the neighbors, twice while they are made symmetric.
    per_item = 3 * max(settings.tsne.perplexities, default=0.0) * 64 if settings.method is Method.TSNE else 4096
    fixed = 3 * SLICE_BYTES + 4 * BLOCK_BYTES
    return int(fixed + square + by_method[settings.method] + count * (per_item + 8 * settings.sketch_size))
