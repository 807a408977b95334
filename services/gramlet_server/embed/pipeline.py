"""The work on one map: describe the items, measure their distances, compute the layouts, store the result.

    Started → (RefusedItem, Described) for each item → MeasuredItems → LayoutIteration again and again → StyleMap

with Working between them, so that no part of the work is silent.

After MeasuredItems the items are in the store, and the map can be resumed without them. During a layout its state is
stored every few iterations. A resumed map continues from there and becomes the same map, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from gramlet.embed.types import (
    BadItem,
    Comparison,
    Described,
    Item,
    Layout,
    LayoutIteration,
    MapEvent,
    MeasuredItems,
    Refused,
    RefusedItem,
    Started,
    Task,
    Working,
)
from gramlet.errors import InvalidInput, counted
from gramlet.types import Limits

from gramlet_server.embed import project, quality, stored, thumbnails
from gramlet_server.embed.collected import Collected, notes_of
from gramlet_server.embed.compare import Comparer
from gramlet_server.embed.descriptors import Describer, describe
from gramlet_server.embed.distances import Budget, Measurer
from gramlet_server.embed.geometry import Kept, Points, points_of
from gramlet_server.embed.kind import reported
from gramlet_server.embed.memory import MapSize
from gramlet_server.embed.project import FinishedLayout, LayoutProgress, NeighborsFound, fit_to_items, fit_to_start
from gramlet_server.embed.stored import FRAMES, Checkpoint, Frame, ItemSet, Plan, StoredLayout
from gramlet_server.embed.stored_arrays import get_kept
from gramlet_server.embed.tsne import EarlierLayout
from gramlet_server.feature_source import FeatureSource
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

R = TypeVar("R")
_NOT_COMPARED = "Descriptors were not compared: that needs two labels."


@dataclass(frozen=True)
class Tools:
    """What all maps of a process share.

    Attributes:
        features: The network.
        store: Holds this map, and the map that it may start from.
        limits: Of the pictures.
        budget: Of memory and disk space.
        checkpoint_every: Iterations between two checkpoints.
        lifecycle: Knows whether the server is shutting down.
    """

    features: FeatureSource
    store: Store
    limits: Limits
    budget: Budget
    checkpoint_every: int
    lifecycle: Lifecycle


class MapPipeline:
    """Computes one map.

    Args:
        tools: What all maps share.
        run: The run in the store, which this process owns.
        plan: The map to compute.
        started: The first event.
        size: Of the map; of items still to come, the count at most.
        arriving: The items still to come.
        item_set: The items, if an earlier owner of the run has described them all.
    """

    def __init__(
        self,
        tools: Tools,
        run: Run,
        plan: Plan,
        started: Started,
        size: MapSize,
        arriving: Iterable[Item | BadItem],
        item_set: ItemSet | None = None,
    ) -> None:
        self._tools = tools
        self._run = run
        self._plan = plan
        self._started = started
        self._size = size
        self._count = size.count
        self._arriving = arriving
        self._item_set = item_set
        self._began = time.monotonic()

    @property
    def in_short(self) -> str:
        """What it makes, for a list of runs."""
        return f"{self._plan.settings.method.value} of {counted(self._count, 'item')}"

    def events(self) -> Generator[MapEvent, None, None]:
        """Does the work. Closing the generator stops it within one item or one iteration.

        Raises:
            InvalidInput: More items came than announced, or none of them could be described.
            Unavailable: The server is shutting down.
        """
        with PROCESS.reserve(self._started.memory_bound, "start.count"):
            yield from self._events()

    def _events(self) -> Generator[MapEvent, None, None]:
        yield self._started
        if self._item_set is not None and stored.is_finished(self._run):
            # The caller lost the connection just before the last event.
            yield from reported(self._run)
            yield stored.get_map(self._tools.store, self._run.run_id)
            return
        if self._item_set is not None:
            items, kept = self._item_set, get_kept(self._run)
            yield from reported(self._run)
        elif self._plan.items_of_map_id:
            items, kept = self._copy_items()
            yield MeasuredItems(self._run.run_id, items.measured)
        else:
            items, kept = yield from self._describe_items()
            yield MeasuredItems(self._run.run_id, items.measured)
        points = points_of(kept, items.settings.metric, items.settings.seed)
        del kept
        layouts = yield from self._lay_out(items, points)
        yield stored.put_map(self._run, self._plan, items, layouts, time.monotonic() - self._began)

    # --- items ---

    def _describe_items(self) -> Generator[MapEvent, None, tuple[ItemSet, Kept]]:
        """Describes and stores all items. Returns them with what is kept of their descriptors."""
        settings = self._plan.settings
        collected = Collected(self._count, self._tools.limits)
        describer = Describer(settings, self._size.descriptor_size)
        comparer = Comparer(settings, self._plan.compared_stages, self._count) if self._plan.compared_stages else None
        with Measurer(self._count, settings, self._tools.budget) as measurer:
            yield from self._collect(collected, measurer, describer, comparer)
            yield Working(self._run.run_id, Task.DISTANCES, 0, 1)
            kept, measured = measurer.measure()
        comparison: tuple[Comparison, ...] = ()
        if comparer is not None:
            comparison = yield from self._working(Task.COMPARISON, comparer.compare())
        base = ItemSet(
            settings=settings,
            items=tuple(collected.items),
            contents=tuple(collected.contents),
            measured=measured,
            refused=tuple(collected.refused),
            notes=tuple(collected.notes(measured.duplicates))
            + ((_NOT_COMPARED,) if comparer and not comparison else ()),
            comparison=comparison,
        )
        items = self._fitted(base, kept)
        stored.put_items(self._run, items, kept, thumbnails.pack(collected.jpegs))
        return items, kept

    def _collect(
        self, collected: Collected, measurer: Measurer, describer: Describer, comparer: Comparer | None
    ) -> Generator[MapEvent, None, None]:
        """Describes item after item as they arrive. A bad one is refused, and the others go on."""
        described = describe(self._counted(), describer, self._tools.features, comparer.parts if comparer else ())
        for index, one in enumerate(described):
            error = collected.add(one, measurer, describer)
            if error is not None:
                refused = Refused(index, one.item.id, error.code, error.message, error.field)
                collected.refused.append(refused)
                yield RefusedItem(self._run.run_id, refused)
            elif comparer is not None and one.features is not None:
                comparer.add(one.features, collected.items[-1].label)
            yield Described(self._run.run_id, len(collected.items), len(collected.refused), self._count)
            self._tools.lifecycle.check_draining(self._run.run_id)
        collected.check_not_empty()

    def _copy_items(self) -> tuple[ItemSet, Kept]:
        """The items of an earlier map with what it kept of their descriptors, stored once more with this one."""
        earlier = stored.open_run(self._tools.store, self._plan.items_of_map_id)
        kept = get_kept(earlier)
        items = stored.get_items(earlier)
        base = replace(items, notes=items.described_notes, comparison=())
        items = self._fitted(base, kept)
        stored.put_items(self._run, items, kept, earlier.get("thumbnails"))
        return items, kept

    def _fitted(self, items: ItemSet, kept: Kept) -> ItemSet:
        """The items with settings that fit their number, and with notes on it."""
        count = len(items.items)
        settings, fit_notes = fit_to_items(self._plan.settings, count)
        notes = [*items.notes, *notes_of(kept.directed(settings.metric)), *fit_notes]
        earlier = self._earlier_layout(items.contents)
        if earlier is not None:
            settings = fit_to_start(settings, count)
        if self._plan.from_map_id:
            known = 0 if earlier is None else earlier.known
            notes.append(
                f"{known} of {counted(count, 'item')} started from their coordinates on {self._plan.from_map_id}."
            )
        seconds = time.monotonic() - self._began
        return replace(items, settings=settings, notes=tuple(notes), described_notes=items.notes, seconds=seconds)

    def _working(self, task: Task, steps: Generator[tuple[int, int], None, R]) -> Generator[MapEvent, None, R]:
        """Reports each step of a task, and returns its result."""
        while True:
            try:
                done, total = next(steps)
            except StopIteration as end:
                result: R = end.value
                return result
            yield Working(self._run.run_id, task, done, total)
            self._tools.lifecycle.check_draining(self._run.run_id)

    def _counted(self) -> Iterator[Item | BadItem]:
        for index, item in enumerate(self._arriving):
            if index >= self._count:
                raise InvalidInput(f"more items came than the {self._count} announced", field="item")
            yield item

    # --- layouts ---

    def _lay_out(self, items: ItemSet, points: Points) -> Generator[MapEvent, None, list[Layout]]:
        """Computes the layouts that are not in the store yet, and returns all of them."""
        finished = stored.get_layouts(self._run, len(items.settings.tsne.perplexities))
        layouts = {number: one.layout for number, one in finished.items()}
        checkpoint = stored.get_checkpoint(self._run)
        frames = list(checkpoint.frames) if checkpoint else []
        earlier = self._earlier_layout(items.contents)
        steps = project.layouts(
            points,
            items.settings,
            start=earlier.initial_coordinates(points) if earlier else None,
            states={checkpoint.layout: checkpoint.state} if checkpoint else {},
            done=layouts,
            report_every=self._plan.report_every,
        )
        recall = 1.0
        yield Working(self._run.run_id, Task.DISTANCES, 0, 1)
        for step in steps:
            if isinstance(step, NeighborsFound):
                recall = step.recall
                continue
            if isinstance(step, FinishedLayout):
                layout = yield from self._working(Task.QUALITY, self._judge(step, items, points, earlier))
                layout = replace(layout, quality=replace(layout.quality, neighbor_recall=recall))
                stored.put_layout(self._run, step.layout, StoredLayout(layout, tuple(frames)))
                layouts[step.layout] = layout
                frames = []  # the next layout has its own
                continue
            yield from self._report(step, frames)
            self._save_progress(step, frames)
        return [layouts[number] for number in sorted(layouts)]

    def _report(self, step: LayoutProgress, frames: list[Frame]) -> Iterator[LayoutIteration]:
        """Reports one of every `report_every` iterations, and keeps some of these as frames."""
        if step.kl_divergence is not None:
            frame = Frame(step.iteration, step.kl_divergence, step.state.coordinates.astype(np.float32))
            if self._is_kept(step):
                frames.append(frame)
            yield self._iteration(step, frame)

    def _is_kept(self, step: LayoutProgress) -> bool:
        """Whether an iteration becomes a frame of the page: at most FRAMES of those that are reported do."""
        every = self._plan.report_every
        frame_every = every * max(1, -(-step.iterations // (FRAMES * every)))
        return step.iteration % frame_every == 0

    def _iteration(self, step: LayoutProgress, frame: Frame) -> LayoutIteration:
        return LayoutIteration(
            map_id=self._run.run_id,
            layout=step.layout,
            perplexity=step.perplexity,
            iteration=step.iteration,
            iterations=step.iterations,
            kl_divergence=frame.kl_divergence,
            coordinates=None if self._plan.omit_coordinates else frame.coordinates,
        )

    def _save_progress(self, step: LayoutProgress, frames: list[Frame]) -> None:
        """Stores a checkpoint if one is due, or if the server is shutting down; then the work ends here."""
        lifecycle = self._tools.lifecycle
        draining = lifecycle.draining
        if draining or step.iteration % self._tools.checkpoint_every == 0:
            stored.put_checkpoint(self._run, Checkpoint(step.layout, step.state, tuple(frames)))
        if draining:
            lifecycle.check_draining(self._run.run_id)

    def _judge(
        self, step: FinishedLayout, items: ItemSet, points: Points, earlier: EarlierLayout | None
    ) -> Generator[tuple[int, int], None, Layout]:
        coordinates = earlier.align(step.coordinates) if earlier else step.coordinates
        labels = [item.label for item in items.items]
        judged = yield from quality.judge(points, coordinates, labels, items.settings.quality_neighbors)
        return Layout(coordinates.astype(np.float32), judged, step.perplexity, step.kl_divergence)

    def _earlier_layout(self, contents: Iterable[str]) -> EarlierLayout | None:
        """The first layout of the map that this one starts from; None if there is none, or it has none of the items."""
        if not self._plan.from_map_id:
            return None
        run = stored.open_run(self._tools.store, self._plan.from_map_id)
        row_of = {content: row for row, content in enumerate(stored.get_items(run).contents)}
        rows = tuple(row_of.get(content) for content in contents)
        found = stored.get_layouts(run, 1)
        if not found or all(row is None for row in rows):
            return None
        return EarlierLayout(rows, found[0].layout.coordinates.astype(np.float64))
