"""Maps as runs: each waits for its turn, has its checkpoints in the store, and can be resumed by its name."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
from gramlet.embed.settings import Descriptor, MapSettings, Method, Metric, Preset
from gramlet.embed.types import BadItem, Item, MapEvent, MapStart, Started, StyleMap
from gramlet.errors import FailedPrecondition, InvalidInput, NotFound, counted
from gramlet.feature.types import Model, find_stage
from gramlet.run.types import RunKind
from gramlet.types import Limits

from gramlet_server.embed import bounds, project, stored
from gramlet_server.embed.distances import Budget
from gramlet_server.embed.kind import MAP
from gramlet_server.embed.memory import MapSize, memory_bound
from gramlet_server.embed.pipeline import MapPipeline, Tools
from gramlet_server.embed.stored import KIND, ItemSet, Plan
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

T = TypeVar("T")
_DESCRIBING = ("descriptor", "stages", "resize", "balance_stages", "exactness", "sketch_size")
"""The settings that are decided when items are described."""
_STAGES = {
    "resnet": ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"),
    "vgg": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
}
"""The stages of each family of networks that maps compare. The classic map uses the first four."""
_DEFAULT_STAGE = {"resnet": "layer3", "vgg": "relu4_1"}
_CLASSIC_STAGES = 4
_LEAST_SKETCH, _LARGEST_SKETCH = 512, 4096
_SKETCHES_BYTES = 2**28


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
            FailedPrecondition: The items of the map to resume had not all arrived and are not sent again; or the map to
                start from does not fit.
            OtherWeights: The network is not the wanted one, or not that of the map to resume.
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
        run = stored.open_run(self._tools.store, map_id)
        if not (stored.has_items(run) or stored.get_plan(run).items_of_map_id):
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
        bounds.check_start(start)
        bounds.check_settings(settings)
        project.check_installed(settings.method)
        plan = Plan(
            settings=settings,
            created=time.time(),
            from_map_id=start.from_map_id,
            items_of_map_id=start.items_of_map_id,
            report_every=max(start.report_every, 1),
            omit_coordinates=start.omit_coordinates,
        )
        plan, size = self._of_map(plan) if start.items_of_map_id else self._of_items(plan, start, start.weights_digest)
        check_memory(size, plan.settings, self._tools.budget)
        if start.from_map_id:
            _check_earlier(stored.get_map(self._tools.store, start.from_map_id), plan.settings)
        with Run.new(self._tools.store, KIND, start.map_id) as run:
            stored.put_plan(run, plan)
            return run, self._pipeline(run, plan, size, items)

    def _of_items(self, plan: Plan, start: MapStart, wanted: str) -> tuple[Plan, MapSize]:
        """The plan of a map whose items will come, and are described by the network with the wanted weights."""
        settings = replace(plan.settings, sketch_size=plan.settings.sketch_size or default_sketch_size(start.count))
        if settings.descriptor is Descriptor.VECTOR and settings.preset is Preset.NONE:
            settings = replace(settings, stages=())
            return replace(plan, settings=settings), MapSize.of_vectors(start.count, settings, start.vector_size)
        _, model = pin(self._tools.features, wanted)
        settings = complete(settings, model)
        compared = _of_family(_STAGES, model.backbone) if settings.compare else ()
        plan = replace(
            plan,
            settings=settings,
            backbone=model.backbone,
            weights_digest=model.weights_digest,
            compared_stages=compared,
        )
        return plan, MapSize.of_pictures(start.count, settings, model)

    def _of_map(self, plan: Plan) -> tuple[Plan, MapSize]:
        """The plan of a map whose items are those of an earlier one, described as they are there."""
        earlier = stored.get_map(self._tools.store, plan.items_of_map_id)
        described = {name: getattr(earlier.settings, name) for name in _DESCRIBING}
        settings = replace(plan.settings, **described, preset=Preset.NONE, compare=False)
        plan = replace(plan, settings=settings, backbone=earlier.backbone, weights_digest=earlier.weights_digest)
        count, size = len(earlier.places), earlier.measured.descriptor_size
        return plan, MapSize(count, size, pictures=settings.descriptor is not Descriptor.VECTOR)

    def _resumed(self, start: MapStart, items: Iterable[Item | BadItem]) -> tuple[Run, MapPipeline]:
        found = Run.find(self._tools.store, KIND, start.resume_map_id, "resume_run_id")
        plan = stored.get_plan(found)
        if plan.weights_digest and start.count and not stored.has_items(found):
            # Before the map is taken over: where this network is another one, the map is left alone.
            made = f"map {start.resume_map_id}"
            pin_to(self._tools.features, plan.weights_digest, made, "start.resume_map_id")
        run = Run.take_over(self._tools.store, KIND, start.resume_map_id)
        plan = replace(plan, report_every=max(start.report_every, 1), omit_coordinates=start.omit_coordinates)
        if stored.has_items(run):
            item_set = stored.get_items(run)
            pictures = plan.settings.descriptor is not Descriptor.VECTOR
            size = MapSize(len(item_set.items), item_set.measured.descriptor_size, pictures)
            return run, self._pipeline(run, plan, size, (), item_set)
        if plan.items_of_map_id:
            return run, self._pipeline(run, plan, self._of_map(plan)[1], ())
        if not start.count:
            raise FailedPrecondition(
                f"not all items of map {run.run_id} had arrived: send them again, with their count",
                field="start.resume_map_id",
            )
        bounds.check_start(start)
        size = self._of_items(plan, start, plan.weights_digest)[1]
        check_memory(size, plan.settings, self._tools.budget)
        return run, self._pipeline(run, plan, size, items)

    def _pipeline(
        self, run: Run, plan: Plan, size: MapSize, items: Iterable[Item | BadItem], item_set: ItemSet | None = None
    ) -> MapPipeline:
        bound = memory_bound(size, plan.settings)
        started = Started(run.run_id, plan.settings, bound, item_set is not None, plan.weights_digest)
        tools = self._tools
        # Vectors, and the pictures of an earlier map, need no network.
        if plan.weights_digest and item_set is None and not plan.items_of_map_id:
            tools = replace(tools, features=tools.features.pinned(plan.weights_digest))
        return MapPipeline(tools, run, plan, started, size, items, item_set)


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
    """The settings of a map of pictures with its preset applied and its stages filled in.

    Raises:
        InvalidInput: The network has no such stage, or no stages are given and it has no default ones.
    """
    if settings.preset is Preset.CLASSIC:
        stages = settings.stages or _of_family(_STAGES, model.backbone)[:_CLASSIC_STAGES]
        settings = replace(
            settings, descriptor=Descriptor.GRAM, stages=stages, balance_stages=False, metric=Metric.EUCLIDEAN
        )
    stages = settings.stages or (_of_family(_DEFAULT_STAGE, model.backbone),)
    for index, stage in enumerate(stages):
        find_stage(stage, model.stages, model.backbone, f"start.settings.stages[{index}]")
    return replace(settings, stages=stages)


def default_sketch_size(count: int) -> int:
    """The elements of a sketch, so that the sketches of all items take at most 256 MiB, or few elements each."""
    return int(np.clip(_SKETCHES_BYTES // (4 * count), _LEAST_SKETCH, _LARGEST_SKETCH))


def check_memory(size: MapSize, settings: MapSettings, budget: Budget) -> None:
    """Checks that a map fits into the memory that the budget allows.

    Raises:
        InvalidInput: It does not fit.
    """
    bound = memory_bound(size, settings)
    PROCESS.check(bound, "start.count")
    if bound > budget.memory_bytes:
        raise InvalidInput(
            f"{counted(size.count, 'item')} by {settings.method.value} may take {bound / 2**30:.1f} GiB of memory, and "
            f"{budget.memory_bytes / 2**30:.1f} GiB are allowed: send fewer items, use a smaller sketch_size, or use "
            "t-SNE or PCA",
            field="start.count",
        )


def _of_family(values: Mapping[str, T], backbone: str) -> T:
    """The value for the family of a network.

    Raises:
        InvalidInput: There is none.
    """
    for family, value in values.items():
        if backbone.startswith(family):
            return value
    raise InvalidInput(f"{backbone} has no default stages: name some", field="start.settings.stages")
