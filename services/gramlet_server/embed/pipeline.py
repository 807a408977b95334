"""The work on one map: describe the items, measure their distances, compute the layouts, store the result.

    Started → (RefusedItem, Described) for each item → MeasuredItems → LayoutIteration again and again → StyleMap

After MeasuredItems the items are in the store, and the map can be resumed without them. During a layout its state is
stored every few iterations. A resumed map continues from there and becomes the same map, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from gramlet.embed.types import (
    BadItem,
    Described,
    Item,
    Layout,
    LayoutIteration,
    MapEvent,
    MeasuredItems,
    Place,
    Refused,
    RefusedItem,
    Started,
)
from gramlet.errors import GramletError, InvalidInput
from gramlet.tensor.hashing import picture_hash
from gramlet.types import Array, Limits, Resize, ResizeMode

from gramlet_server.embed import project, quality, stored, thumbnails
from gramlet_server.embed.descriptors import Describer, ItemDescriptor, describe
from gramlet_server.embed.distances import Budget, Distances, Measurer
from gramlet_server.embed.project import FinishedLayout, LayoutProgress, fit_to_items, fit_to_start
from gramlet_server.embed.stored import Checkpoint, Frame, ItemSet, Plan, StoredLayout
from gramlet_server.embed.tsne import EarlierLayout
from gramlet_server.feature_source import FeatureSource
from gramlet_server.pictures.prepare import prepare
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

_FRAMES = 40


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
        count: How many items there are; of those still to come, at most.
        arriving: The items still to come.
        item_set: The items, if an earlier owner of the run has described them all.
    """

    def __init__(
        self,
        tools: Tools,
        run: Run,
        plan: Plan,
        started: Started,
        count: int,
        arriving: Iterable[Item | BadItem],
        item_set: ItemSet | None = None,
    ) -> None:
        self._tools = tools
        self._run = run
        self._plan = plan
        self._started = started
        self._count = count
        self._arriving = arriving
        self._item_set = item_set
        self._began = time.monotonic()

    @property
    def in_short(self) -> str:
        """What it makes, for a list of runs."""
        return f"{self._plan.settings.method.value} of {self._count} items"

    def events(self) -> Generator[MapEvent, None, None]:
        """Does the work. Closing the generator stops it within one item or one iteration.

        Raises:
            InvalidInput: More items came than announced, or none of them could be described.
            Unavailable: The server is shutting down.
        """
        yield self._started
        if self._item_set is None:
            items, squared = yield from self._describe_items()
        elif stored.is_finished(self._run):  # the caller lost the connection just before the last event
            yield MeasuredItems(self._run.run_id, self._item_set.measured)
            yield stored.get_map(self._tools.store, self._run.run_id)
            return
        else:
            items, squared = self._item_set, stored.get_distances(self._run, self._count)
        yield MeasuredItems(self._run.run_id, items.measured)
        layouts = yield from self._lay_out(items, squared)
        yield stored.put_map(self._run, self._plan, items, layouts, time.monotonic() - self._began)

    # --- items ---

    def _describe_items(self) -> Generator[MapEvent, None, tuple[ItemSet, Array]]:
        """Describes and stores all items. Returns them with their squared distances (N, N)."""
        settings = self._plan.settings
        collected = _Collected(self._count, self._tools.limits)
        describer = Describer(settings)
        with Measurer(self._count, settings, self._tools.budget) as measurer:
            for index, described in enumerate(describe(self._counted(), describer, self._tools.features)):
                error = collected.add(described, measurer)
                if error is not None:
                    refused = Refused(index, described.item.id, error.code, error.message, error.field)
                    collected.refused.append(refused)
                    yield RefusedItem(self._run.run_id, refused)
                yield Described(self._run.run_id, len(collected.items), len(collected.refused), self._count)
                self._tools.lifecycle.check_draining(self._run.run_id)
            collected.check_not_empty()
            distances = measurer.measure()
        items = self._assemble_items(collected, distances, describer)
        stored.put_items(self._run, items, distances.squared, distances.sketches, collected.jpegs)
        return items, distances.squared

    def _counted(self) -> Iterator[Item | BadItem]:
        for index, item in enumerate(self._arriving):
            if index >= self._count:
                raise InvalidInput(f"more items came than the {self._count} announced", field="item")
            yield item

    def _assemble_items(self, collected: _Collected, distances: Distances, describer: Describer) -> ItemSet:
        count = len(collected.items)
        settings, fit_notes = fit_to_items(self._plan.settings, count)
        notes = [*collected.notes(distances.measured.duplicates, describer.undirected), *fit_notes]
        earlier = self._earlier_layout(collected.contents)
        if earlier is not None:
            settings = fit_to_start(settings, count)
        if self._plan.from_map_id:
            known = 0 if earlier is None else earlier.known
            notes.append(f"{known} of {count} items started from their coordinates on {self._plan.from_map_id}.")
        return ItemSet(
            settings=settings,
            items=tuple(collected.items),
            contents=tuple(collected.contents),
            measured=distances.measured,
            sketch_error=distances.sketch_error,
            refused=tuple(collected.refused),
            notes=tuple(notes),
            seconds=time.monotonic() - self._began,
        )

    # --- layouts ---

    def _lay_out(self, items: ItemSet, squared: Array) -> Generator[MapEvent, None, list[Layout]]:
        """Computes the layouts that are not in the store yet, and returns all of them."""
        finished = stored.get_layouts(self._run, len(items.settings.tsne.perplexities))
        layouts = {number: one.layout for number, one in finished.items()}
        checkpoint = stored.get_checkpoint(self._run)
        frames = list(checkpoint.frames) if checkpoint else []
        earlier = self._earlier_layout(items.contents)
        steps = project.layouts(
            squared,
            items.settings,
            start=earlier.initial_coordinates(squared) if earlier else None,
            states={checkpoint.layout: checkpoint.state} if checkpoint else {},
            done=layouts,
            report_every=self._plan.report_every,
        )
        for step in steps:
            if isinstance(step, FinishedLayout):
                layouts[step.layout] = self._store_layout(step, items, squared, earlier, frames)
                frames = []  # the next layout has its own
                continue
            if step.kl_divergence is not None:  # every `report_every` iterations
                frame = Frame(step.iteration, step.kl_divergence, step.state.coordinates.astype(np.float32))
                if self._is_kept(step):
                    frames.append(frame)
                yield self._iteration(step, frame)
            self._save_progress(step, frames)
        return [layouts[number] for number in sorted(layouts)]

    def _is_kept(self, step: LayoutProgress) -> bool:
        """Whether an iteration becomes a frame of the page: at most _FRAMES of those that are reported do."""
        every = self._plan.report_every
        frame_every = every * max(1, -(-step.iterations // (_FRAMES * every)))
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

    def _store_layout(
        self, step: FinishedLayout, items: ItemSet, squared: Array, earlier: EarlierLayout | None, frames: list[Frame]
    ) -> Layout:
        coordinates = earlier.align(step.coordinates) if earlier else step.coordinates
        labels = [item.label for item in items.items]
        judged = quality.judge(squared, coordinates, labels, items.settings.quality_neighbors)
        layout = Layout(coordinates.astype(np.float32), judged, step.perplexity, step.kl_divergence)
        stored.put_layout(self._run, step.layout, StoredLayout(layout, tuple(frames)))
        return layout

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


class _Collected:
    """The items described so far, with what the map keeps of each beside its descriptor.

    Attributes:
        items: Those that have a descriptor.
        contents: A digest of the picture or vector of each.
        jpegs: A thumbnail of each; None where there is no picture.
        refused: The items that failed.
    """

    def __init__(self, count: int, limits: Limits) -> None:
        self.items: list[Place] = []
        self.contents: list[str] = []
        self.jpegs: list[bytes | None] = []
        self.refused: list[Refused] = []
        self._side = thumbnails.side_for(count)
        self._limits = limits
        self._sizes: set[tuple[int, int]] = set()
        self._plain = 0

    def add(self, described: ItemDescriptor, measurer: Measurer) -> GramletError | None:
        """Takes an item and hands its descriptor to the measurer. Returns the error of an item that failed."""
        item, descriptor = described.item, described.outcome
        if isinstance(descriptor, GramletError):
            return descriptor
        assert isinstance(item, Item), "an item that could not be decoded has no descriptor"
        try:
            jpeg = self._thumbnail(item)
            content = _content_digest(item)
            measurer.add(descriptor, content)
        except InvalidInput as error:
            return error
        self.items.append(Place(item.id, item.label))
        self.contents.append(content)
        self.jpegs.append(jpeg)
        self._sizes.add(described.size)
        return None

    def check_not_empty(self) -> None:
        """Raises InvalidInput, with the error of the first item, if every item failed."""
        if not self.items:
            first = f": {self.refused[0].message}" if self.refused else ""
            raise InvalidInput(f"no item could be described{first}", field="item")

    def notes(self, duplicates: int, undirected: int) -> list[str]:
        """Sentences for the reader of the map."""
        notes = []
        if count := len(self.refused):
            notes.append(f"{_items(count)} could not be described and {_are(count)} not on the map.")
        if count := duplicates:
            notes.append(f"{_items(count)} {'has' if count == 1 else 'have'} the same content as an earlier one.")
        if count := self._plain:
            notes.append(f"{count} picture{'s' * (count > 1)} {_are(count)} of one color: no style to compare.")
        if count := undirected:
            notes.append(f"{_items(count)} without direction {_are(count)} taken for zero by the metric.")
        if len(self._sizes) > 1:
            notes.append(
                f"The network saw pictures of {len(self._sizes)} sizes: Gram matrices are comparable, but larger "
                "pictures show finer strokes."
            )
        return notes

    def _thumbnail(self, item: Item) -> bytes | None:
        if item.picture is None:
            return None
        pixels = prepare(item.picture, Resize(ResizeMode.LONGEST_SIDE, self._side), self._limits, "item.picture")
        self._plain += float(pixels.std(axis=(1, 2)).max()) < 1 / 255
        return thumbnails.encode(pixels, self._side)


def _content_digest(item: Item) -> str:
    """Equal for items of equal picture and vector, whatever their ids."""
    return " ".join(picture_hash(part) for part in (item.picture, item.vector) if part is not None)


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
