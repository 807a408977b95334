"""The making of a map, from its items to the stored result: waits its turn, reports, checkpoints, can be resumed."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
from gramlet.embed.settings import Descriptor, MapSettings, Method
from gramlet.embed.types import (
    BadItem,
    Described,
    Item,
    Layout,
    LayoutIteration,
    MapEvent,
    MapStart,
    MeasuredItems,
    Place,
    Queued,
    Refused,
    RefusedItem,
    Started,
    StyleMap,
)
from gramlet.errors import FailedPrecondition, GramletError, InvalidInput, Unavailable
from gramlet.feature.types import Extraction, Features, GramNormalization, find_stage
from gramlet.tensor.hashing import content_hash
from gramlet.types import Array, Limits, Picture, Resize, ResizeMode

from gramlet_server.embed import project, quality, stored, thumbnails
from gramlet_server.embed.descriptors import (
    FORMS,
    Budget,
    Describer,
    Distances,
    Measurer,
    check_memory,
    default_stages,
    memory_bound,
)
from gramlet_server.embed.page import Frame
from gramlet_server.embed.stored import KIND, Gathered, Plan, Unfinished
from gramlet_server.embed.tsne import Floats
from gramlet_server.feature_source import FeatureSource
from gramlet_server.pictures.prepare import prepare
from gramlet_server.runs.events import Conflated
from gramlet_server.runs.queue import Turn, Turns
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.telemetry import Observer

_FRAMES = 40
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MakingSettings:
    """How many maps are made, and what they may take.

    Attributes:
        running_limit: Maps under way at once.
        queue_limit: Maps that may wait; more are refused.
        checkpoint_every: Iterations between checkpoints.
        budget: What one map may take of the machine.
    """

    running_limit: int = 1
    queue_limit: int = 16
    checkpoint_every: int = 50
    budget: Budget = field(default_factory=Budget)


class Making:
    """One map being made: an iterator of its events. Cancelling it stops the work within one iteration."""

    def __init__(self, map_id: str, events: Iterator[MapEvent], turn: Turn) -> None:
        self.map_id = map_id
        self._turn = turn
        self._conflated = Conflated(events, lambda event: isinstance(event, Described | LayoutIteration))

    def __iter__(self) -> Iterator[MapEvent]:
        return iter(self._conflated)

    def cancel(self) -> None:
        """Stops the work; what its checkpoints hold can be resumed. Returns at once."""
        self._turn.leave()
        self._conflated.cancel()

    def join(self) -> None:
        """Waits until the work has stopped."""
        self._conflated.join()


class Maps:
    """All maps that a process makes."""

    def __init__(
        self,
        features: FeatureSource,
        store: Store,
        settings: MakingSettings | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._features = features
        self._store = store
        self._settings = settings or MakingSettings()
        self._limits = limits or Limits()
        observer = observer or Observer()
        self._turns = Turns(
            self._settings.running_limit,
            self._settings.queue_limit,
            lambda running, queued: observer.runs(KIND, running, queued),
        )
        self._draining = threading.Event()

    def drain(self) -> None:
        """Ends all making after its iteration with a checkpoint and Unavailable, so that it goes on elsewhere."""
        self._draining.set()

    def start(self, start: MapStart, items: Iterable[Item | BadItem]) -> Making:
        """Starts or resumes the making of a map.

        Raises:
            Overloaded: As many maps are under way and wait as may. Nothing was done.
            InvalidInput: A setting is wrong, or so many items could take more memory than there is.
            AlreadyExists: The map's name is taken.
            NotFound: There is no such map to resume, or to start from.
            FailedPrecondition: The map to resume had not all of its items, or is of another network.
        """
        turn, work = self._begun(start, items)
        return Making(work.run.run_id, self._events(turn, work), turn)

    def events(self, start: MapStart, items: Iterable[Item | BadItem]) -> Generator[MapEvent, None, None]:
        """The same in the caller's thread, event by event, none left out. Closing it stops within one iteration."""
        yield from self._events(*self._begun(start, items))

    def _begun(self, start: MapStart, items: Iterable[Item | BadItem]) -> tuple[Turn, _Work]:
        with ExitStack() as undo:
            turn = self._turns.take()
            undo.callback(turn.leave)
            work = self._new(start, items) if start.settings is not None else self._resumed(start, items)
            undo.pop_all()
        return turn, work

    def _new(self, start: MapStart, items: Iterable[Item | BadItem]) -> _Work:
        assert start.settings is not None
        if start.count < 1:
            raise InvalidInput("say how many items will come, at least 1", field="start.count")
        settings, backbone, digest = complete(start.settings, self._features)
        project.check(settings)
        check_memory(start.count, settings, self._settings.budget)
        if start.from_map_id:
            _check_start(stored.get_map(self._store, start.from_map_id), settings)
        plan = Plan(
            settings=settings,
            created=time.time(),
            backbone=backbone,
            weights_digest=digest,
            from_map_id=start.from_map_id,
            report_every=max(start.report_every, 1),
            omit_coordinates=start.omit_coordinates,
        )
        run = Run.create(self._store, KIND, start.map_id or uuid.uuid4().hex)
        stored.put_plan(run, plan)
        return _Work(self, run, plan, start.count, items)

    def _resumed(self, start: MapStart, items: Iterable[Item | BadItem]) -> _Work:
        run = Run.take_over(self._store, KIND, start.resume_map_id)
        plan = stored.get_plan(run)
        plan = replace(plan, report_every=max(start.report_every, 1), omit_coordinates=start.omit_coordinates)
        if stored.has_gathered(run):
            gathered = stored.get_gathered(run)
            return _Work(self, run, plan, len(gathered.places), (), gathered)
        if not start.count:
            raise FailedPrecondition(
                f"the items of map {run.run_id} had not all arrived: send them again, with their count",
                field="start.resume_map_id",
            )
        check_memory(start.count, plan.settings, self._settings.budget)
        return _Work(self, run, plan, start.count, items)

    def _events(self, turn: Turn, work: _Work) -> Iterator[MapEvent]:
        try:
            for position in turn.positions():
                yield Queued(work.run.run_id, position)
            yield from work.events()
        finally:
            turn.leave()


def complete(settings: MapSettings, features: FeatureSource) -> tuple[MapSettings, str, str]:
    """The settings with every default filled in, and the network's name and weights digest.

    Raises:
        InvalidInput: A stage is unknown.
    """
    if settings.descriptor is Descriptor.VECTOR:
        return replace(settings, stages=()), "", ""
    model = features.model()
    settings = replace(settings, stages=settings.stages or default_stages(model.backbone, settings.descriptor))
    for index, stage in enumerate(settings.stages):
        find_stage(stage, model.stages, model.backbone, f"start.settings.stages[{index}]")
    return settings, model.backbone, model.weights_digest


def extraction_of(settings: MapSettings) -> Extraction:
    """What the network is asked for."""
    return Extraction(
        stages=settings.stages,
        forms=(FORMS[settings.descriptor],),
        gram_normalization=GramNormalization.POSITIONS,
        triangle=True,
        resize=settings.resize,
    )


def describe(
    items: Iterable[Item | BadItem], settings: MapSettings, describer: Describer, features: FeatureSource
) -> Iterator[tuple[Item | BadItem, Array | GramletError, tuple[int, int]]]:
    """Each item with its descriptor, or with its error, in order; and the height and width that the network saw."""
    if settings.descriptor is Descriptor.VECTOR:
        for item in items:
            yield item, _of_vector(item, describer), (0, 0)
        return
    taken: deque[Item | BadItem] = deque()

    def pictures() -> Iterator[Picture]:
        for item in items:
            taken.append(item)
            if isinstance(item, Item) and item.picture is not None:
                yield item.picture

    def without_picture() -> Iterator[tuple[Item | BadItem, GramletError, tuple[int, int]]]:
        while taken and (isinstance(taken[0], BadItem) or taken[0].picture is None):
            item = taken.popleft()
            nothing = InvalidInput("the item has no picture", field="item.picture")
            yield item, item.error if isinstance(item, BadItem) else nothing, (0, 0)

    for outcome in features.extract(pictures(), extraction_of(settings)):
        yield from without_picture()
        seen = (outcome.height, outcome.width) if isinstance(outcome, Features) else (0, 0)
        yield taken.popleft(), _of_outcome(outcome, describer), seen
    yield from without_picture()


def _of_outcome(outcome: Features | GramletError, describer: Describer) -> Array | GramletError:
    if isinstance(outcome, GramletError):
        return outcome
    try:
        return describer.of_features(outcome)
    except InvalidInput as error:
        return error


def _of_vector(item: Item | BadItem, describer: Describer) -> Array | GramletError:
    if isinstance(item, BadItem):
        return item.error
    if item.vector is None:
        return InvalidInput("the item has no vector", field="item.vector")
    try:
        return describer.of_vector(item.vector)
    except InvalidInput as error:
        return error


def _check_start(old: StyleMap, settings: MapSettings) -> None:
    if settings.method is not Method.TSNE:
        raise InvalidInput("only t-SNE starts from another map", field="start.from_map_id")
    if old.settings.dimensions != settings.dimensions:
        raise FailedPrecondition(
            f"map {old.map_id} has {old.settings.dimensions} dimensions, not {settings.dimensions}",
            field="start.from_map_id",
        )


@dataclass
class _Feature:
    """What the feature pass has found so far."""

    places: list[Place] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    jpegs: list[bytes | None] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    plain: int = 0


class _Work:
    """The making of one map."""

    def __init__(
        self,
        maps: Maps,
        run: Run,
        plan: Plan,
        count: int,
        items: Iterable[Item | BadItem],
        gathered: Gathered | None = None,
    ) -> None:
        self._maps = maps
        self.run = run
        self._plan = plan
        self._count = count
        self._items = items
        self._gathered = gathered
        self._began = time.monotonic()

    def events(self) -> Iterator[MapEvent]:
        """Makes the map. Closing the iterator stops within one iteration."""
        map_id, settings = self.run.run_id, self._plan.settings
        yield Started(map_id, settings, memory_bound(self._count, settings), resumed=self._gathered is not None)
        if self._gathered is None:
            squared = yield from self._gather()
        else:
            squared = self._stored_distances()
        assert self._gathered is not None
        yield MeasuredItems(map_id, self._gathered.measured)
        layouts = yield from self._lay_out(squared)
        yield self._finished(layouts)

    # --- the feature pass ---

    def _gather(self) -> Generator[MapEvent, None, Array]:
        settings, seen = self._plan.settings, _Feature()
        describer = Describer(settings)
        with Measurer(self._count, settings, self._maps._settings.budget) as measurer:
            described = describe(self._counted(), settings, describer, self._maps._features)
            for index, (item, descriptor, size) in enumerate(described):
                error = self._take(item, descriptor, size, measurer, seen)
                if error is not None:
                    refused = Refused(index, item.id, error.code.value[0], error.message, error.field)
                    seen.refused.append(refused)
                    yield RefusedItem(self.run.run_id, refused)
                yield Described(self.run.run_id, len(seen.places), len(seen.refused), self._count)
                self._check_draining()
            if not seen.places:
                first = f": {seen.refused[0].message}" if seen.refused else ""
                raise InvalidInput(f"no item could be described{first}", field="item")
            distances = measurer.measure()
        fitted, notes = project.fitted(settings, len(seen.places))
        if self._old_places(seen.contents)[1] is not None:
            fitted = project.gentle(fitted, len(seen.places))
        self._gathered = Gathered(
            settings=fitted,
            places=tuple(seen.places),
            contents=tuple(seen.contents),
            measured=distances.measured,
            sketch_error=distances.sketch_error,
            refused=tuple(seen.refused),
            notes=(*_notes(seen, distances, describer), *notes),
            seconds=time.monotonic() - self._began,
        )
        stored.put_gathered(self.run, self._gathered, distances.squared, distances.sketches, seen.jpegs)
        return distances.squared

    def _counted(self) -> Iterator[Item | BadItem]:
        for index, item in enumerate(self._items):
            if index >= self._count:
                raise InvalidInput(f"more items came than the {self._count} announced", field="item")
            yield item

    def _take(
        self,
        item: Item | BadItem,
        descriptor: Array | GramletError,
        size: tuple[int, int],
        measurer: Measurer,
        seen: _Feature,
    ) -> GramletError | None:
        """Adds an item to what was seen, or returns why not."""
        if isinstance(descriptor, GramletError):
            return descriptor
        assert isinstance(item, Item), "only what was decoded has a descriptor"
        try:
            jpeg = self._thumbnail(item, seen)
            content = content_hash(item.picture, item.vector)
            measurer.add(descriptor, content)
        except InvalidInput as error:
            return error
        seen.places.append(Place(item.id, item.label))
        seen.contents.append(content)
        seen.jpegs.append(jpeg)
        seen.sizes.add(size)
        return None

    def _thumbnail(self, item: Item, seen: _Feature) -> bytes | None:
        if item.picture is None:
            return None
        side = thumbnails.side_for(self._count)
        resize = Resize(ResizeMode.LONGEST_SIDE, side)
        pixels = prepare(item.picture, resize, self._maps._limits, "item.picture")
        seen.plain += float(pixels.std(axis=(1, 2)).max()) < 1 / 255
        return thumbnails.encode(pixels, side)

    # --- the layouts ---

    def _stored_distances(self) -> Array:
        assert self._gathered is not None
        return stored.get_distances(self.run, len(self._gathered.places))

    def _lay_out(self, squared: Array) -> Generator[MapEvent, None, list[Layout]]:
        gathered, plan = self._gathered, self._plan
        assert gathered is not None
        settings = gathered.settings
        found = (stored.get_layout(self.run, number) for number in range(len(settings.tsne.perplexities)))
        done = {number: one[0] for number, one in enumerate(found) if one is not None}
        unfinished = stored.get_state(self.run)
        frames = list(unfinished.frames) if unfinished else []
        old, old_coordinates = self._old_places(gathered.contents)
        every = plan.report_every
        frame_every = every * max(1, -(-settings.tsne.iterations // (_FRAMES * every)))
        for step in project.layouts(
            squared,
            settings,
            start=None if old_coordinates is None else project.grown_start(squared, old, old_coordinates),
            states={unfinished.layout: unfinished.state} if unfinished else {},
            done=done,
            report_every=every,
        ):
            if isinstance(step, project.Arranged):
                coordinates = step.coordinates
                if old_coordinates is not None:
                    coordinates = project.turned_onto(coordinates, old, old_coordinates)
                labels = [place.label for place in gathered.places]
                judged = quality.judge(squared, coordinates, labels, settings.quality_neighbors)
                layout = Layout(coordinates.astype(np.float32), judged, step.perplexity, step.kl_divergence)
                done[step.layout] = layout
                stored.put_layout(self.run, step.layout, layout, tuple(frames))
                frames = []
                continue
            if step.kl_divergence is not None:
                coordinates32 = step.state.coordinates.astype(np.float32)
                if step.iteration % frame_every == 0:
                    frames.append(Frame(step.iteration, step.kl_divergence, coordinates32))
                yield LayoutIteration(
                    self.run.run_id,
                    step.layout,
                    step.perplexity,
                    step.iteration,
                    step.iterations,
                    step.kl_divergence,
                    None if plan.omit_coordinates else coordinates32,
                )
            draining = self._maps._draining.is_set()
            if draining or step.iteration % self._maps._settings.checkpoint_every == 0:
                stored.put_state(self.run, Unfinished(step.layout, step.state, tuple(frames)))
            self._check_draining()
        return [done[number] for number in sorted(done)]

    def _old_places(self, contents: Iterable[str]) -> tuple[list[int | None], Floats | None]:
        """Each item's row on the map from which this one starts, and that map's coordinates; None without any."""
        if not self._plan.from_map_id:
            return [], None
        run = stored.open_run(self._maps._store, self._plan.from_map_id)
        rows = {digest: row for row, digest in enumerate(stored.get_gathered(run).contents)}
        old = [rows.get(digest) for digest in contents]
        found = stored.get_layout(run, 0)
        if found is None or not any(row is not None for row in old):
            return old, None
        return old, found[0].coordinates.astype(np.float64)

    def _finished(self, layouts: list[Layout]) -> StyleMap:
        gathered, plan = self._gathered, self._plan
        assert gathered is not None
        notes = gathered.notes
        if plan.from_map_id:
            old, coordinates = self._old_places(gathered.contents)
            known = 0 if coordinates is None else sum(row is not None for row in old)
            notes = (*notes, f"{known} of {len(gathered.places)} items started at their places on {plan.from_map_id}.")
        style_map = StyleMap(
            map_id=self.run.run_id,
            created=plan.created,
            settings=gathered.settings,
            places=gathered.places,
            layouts=tuple(layouts),
            measured=gathered.measured,
            backbone=plan.backbone,
            weights_digest=plan.weights_digest,
            refused=gathered.refused,
            notes=notes,
            seconds=time.monotonic() - self._began,
        )
        stored.put_map(self.run, style_map)
        return style_map

    def _check_draining(self) -> None:
        if self._maps._draining.is_set():
            raise Unavailable("this replica is shutting down: resume the map at another one", retry_after=0.0)


def _notes(seen: _Feature, distances: Distances, describer: Describer) -> list[str]:
    notes = []
    if count := len(seen.refused):
        notes.append(f"{_items(count)} could not be described and {_are(count)} not on the map.")
    if count := distances.measured.duplicates:
        notes.append(f"{_items(count)} {'has' if count == 1 else 'have'} the same content as an earlier one.")
    if count := seen.plain:
        notes.append(f"{count} picture{'s' * (count > 1)} {_are(count)} of one color: no style to compare.")
    if count := describer.undirected:
        notes.append(f"{_items(count)} without direction {_are(count)} taken for zero by the metric.")
    if len(seen.sizes) > 1:
        notes.append(
            f"The network saw pictures of {len(seen.sizes)} sizes: Gram matrices are comparable, but larger pictures "
            "show finer strokes."
        )
    return notes


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
