"""Maps in the store: finished, running and interrupted ones.

The values of a map, in the order in which they are written:

1. `plan`, when the run is created.
2. `thumbnails`, what is kept of the descriptors (`stored_arrays`), then `items`. Once `items` is there, the map can be
   resumed without its items.
3. `state` every few iterations, and a `layout-N` for each finished layout.
4. `map`, when the map is finished. `state` is dropped then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gramlet.embed.settings import MapSettings
from gramlet.embed.types import Comparison, Layout, MapSummary, Measured, Place, Quality, Refused, StyleMap
from gramlet.errors import DataLoss, NotFound
from gramlet.json_codec import from_json, to_json
from gramlet.run.types import RunKind
from gramlet.types import Array
from numpy.typing import NDArray

from gramlet_server.embed import thumbnails
from gramlet_server.embed.geometry import Kept
from gramlet_server.embed.stored_arrays import from_npz, put_kept, to_npz
from gramlet_server.embed.tsne import State
from gramlet_server.process.identity import caller
from gramlet_server.runs.records import Records
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

KIND = RunKind.EMBED.value
FRAMES = 40
"""The most frames of a layout."""


@dataclass(frozen=True)
class Plan:
    """The map to compute, as its caller ordered it, with every default filled in.

    Attributes:
        settings: The map's settings.
        created: Seconds since 1970-01-01T00:00:00Z.
        backbone, weights_digest: The network; empty for a map of vectors.
        from_map_id: The map from which t-SNE starts, or empty.
        items_of_map_id: The map whose items this map has, or empty.
        compared_stages: The stages of the network of which descriptors are compared; empty for no comparison.
        report_every: Iterations between two events.
        omit_coordinates: Leave the coordinates out of the events.
    """

    settings: MapSettings
    created: float
    backbone: str = ""
    weights_digest: str = ""
    from_map_id: str = ""
    items_of_map_id: str = ""
    compared_stages: tuple[str, ...] = ()
    report_every: int = 10
    omit_coordinates: bool = False


@dataclass(frozen=True)
class ItemSet:
    """The items of a map after the last one was described, without their arrays.

    Attributes:
        settings: The plan's settings, lowered to what the number of items allows.
        items: Those that are on the map, in the order in which they came.
        contents: A digest of each item's picture or vector. A later map finds its items again by it.
        measured: The accuracy of the distances.
        refused: The items that are not on the map.
        notes: Sentences for the reader of the map.
        seconds: From the start of the run until now.
        comparison: Other descriptors of the same pictures.
        described_notes: Those of the notes that are about the items, not about how they are laid out.
    """

    settings: MapSettings
    items: tuple[Place, ...]
    contents: tuple[str, ...]
    measured: Measured
    refused: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    comparison: tuple[Comparison, ...] = ()
    described_notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """The coordinates (N, d) of a layout after some iteration, to be shown later."""

    iteration: int
    kl_divergence: float
    coordinates: Array


@dataclass(frozen=True)
class StoredLayout:
    """A finished layout, and its frames: earlier states of it, oldest first."""

    layout: Layout
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A layout that is being computed: its number, the state of its descent, and its frames so far."""

    layout: int
    state: State
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class _LayoutFacts:
    quality: Quality
    perplexity: float
    kl_divergence: float


@dataclass(frozen=True)
class _MapFacts:
    layouts: int
    seconds: float


def put_plan(run: Run, plan: Plan) -> None:
    """Writes the first value of a map."""
    run.put("plan", to_json(plan))


def get_plan(run: Run) -> Plan:
    """The map to compute."""
    with run.intact("plan"):
        return from_json(Plan, run.get("plan"))


def put_items(run: Run, items: ItemSet, kept: Kept, packed_thumbnails: bytes) -> None:
    """Writes the items and their arrays; `items` last, because its presence means that the others are complete.

    Args:
        run: The map.
        items: The items.
        kept: What is kept of their descriptors.
        packed_thumbnails: A thumbnail or None for each item, as `thumbnails.pack` packs them.
    """
    run.put("thumbnails", packed_thumbnails)
    put_kept(run, kept)
    run.put("items", to_json(items))


def has_items(run: Run) -> bool:
    """Whether all items have been described and stored."""
    return run.has("items")


def get_items(run: Run) -> ItemSet:
    """The items of a map.

    Raises:
        NotFound: They have not all been described yet.
    """
    with run.intact("items"):
        return from_json(ItemSet, run.get("items"))


def get_thumbnails(run: Run) -> list[bytes | None]:
    """A thumbnail for each item; None where it has no picture."""
    with run.intact("thumbnails"):
        return thumbnails.unpack(run.get("thumbnails"))


def put_checkpoint(run: Run, checkpoint: Checkpoint) -> None:
    """Writes the state of a layout that is being computed."""
    state = checkpoint.state
    run.put(
        "state",
        to_npz(
            layout=np.array(checkpoint.layout),
            iteration=np.array(state.iteration),
            coordinates=state.coordinates,
            update=state.update,
            gains=state.gains,
            **_frame_arrays(checkpoint.frames),
        ),
    )


def get_checkpoint(run: Run) -> Checkpoint | None:
    """The newest checkpoint of a map that is not finished; None if there is none yet."""
    data = run.value("state")
    if data is None:
        return None
    with run.intact("state"):
        arrays = from_npz(data)
        state = State(arrays["coordinates"], arrays["update"], arrays["gains"], int(arrays["iteration"]))
        return Checkpoint(int(arrays["layout"]), state, _frames(arrays))


def put_layout(run: Run, number: int, stored: StoredLayout) -> None:
    """Writes a finished layout with its frames."""
    layout = stored.layout
    facts = _LayoutFacts(layout.quality, layout.perplexity, layout.kl_divergence)
    run.put(
        f"layout-{number}",
        to_npz(
            facts=np.frombuffer(to_json(facts), np.uint8),
            coordinates=layout.coordinates,
            **_frame_arrays(stored.frames),
        ),
    )


def get_layouts(run: Run, count: int) -> dict[int, StoredLayout]:
    """Those of the layouts 0 to `count` - 1 that are finished, by number."""
    found = ((number, _get_layout(run, number)) for number in range(count))
    return {number: layout for number, layout in found if layout is not None}


def put_map(run: Run, plan: Plan, items: ItemSet, layouts: Sequence[Layout], seconds: float) -> StyleMap:
    """Finishes a map, and drops the value that only its computation needed. Returns the map.

    Args:
        run: The map.
        plan: As it was ordered.
        items: Its items.
        layouts: All of its layouts, which have been stored.
        seconds: How long the computation took.
    """
    facts = _MapFacts(len(layouts), seconds)
    run.put("map", to_json(facts))
    run.drop("state")
    return _assembled(run.run_id, plan, items, layouts, facts)


def is_finished(run: Run) -> bool:
    """Whether the map is finished."""
    return run.has("map")


def get_map(store: Store, map_id: str) -> StyleMap:
    """A finished map.

    Raises:
        NotFound: There is none of that name, or it is not finished.
        DataLoss: It is damaged.
    """
    run = open_run(store, map_id)
    data = run.value("map")
    if data is None:
        raise NotFound(f"there is no finished map {map_id}", field="map_id")
    with run.intact("map"):
        facts = from_json(_MapFacts, data)
    layouts = [one.layout for one in get_layouts(run, facts.layouts).values()]
    items = get_items(run)
    if not (layouts and all(len(layout.coordinates) == len(items.items) for layout in layouts)):
        raise DataLoss(f"the layouts of map {map_id} in the store do not have its items")
    return _assembled(map_id, get_plan(run), items, layouts, facts)


def get_frames(run: Run, style_map: StyleMap) -> list[tuple[Frame, ...]]:
    """The frames of each layout of a finished map."""
    return [one.frames for one in get_layouts(run, len(style_map.layouts)).values()]


def list_maps(store: Store) -> list[MapSummary]:
    """All maps that the caller may see, finished or not, newest first. Damaged ones are left out."""
    found = []
    for map_id in {entry.key.split("/")[2] for entry in store.list(f"runs/{KIND}")}:
        try:
            if caller.get().sees_all or Records(store).owner(RunKind.EMBED, map_id) == caller.get().name:
                found.append(_summary(Run(store, KIND, map_id)))
        except DataLoss as error:
            store.report(error)
    summaries = [summary for summary in found if summary is not None]
    return sorted(summaries, key=lambda summary: summary.created, reverse=True)


def delete_map(store: Store, map_id: str) -> None:
    """Removes a map, finished or not, with everything that belongs to it.

    Raises:
        NotFound: There is none.
    """
    record = Records(store).read(RunKind.EMBED, map_id) if map_id and "/" not in map_id else None
    if record:
        Records(store).delete(record)
    else:
        open_run(store, map_id)
        Run.find(store, KIND, map_id).delete()


def open_run(store: Store, map_id: str) -> Run:
    """A map, to read or to delete it. It can be read while another process computes it.

    Raises:
        NotFound: No map can have that name.
    """
    if not map_id or "/" in map_id:
        raise NotFound(f"there is no map {map_id!r}", field="map_id")
    Records(store).check_visible(RunKind.EMBED, map_id, "map_id")
    return Run(store, KIND, map_id, 0)


def _get_layout(run: Run, number: int) -> StoredLayout | None:
    data = run.value(f"layout-{number}")
    if data is None:
        return None
    with run.intact(f"layout-{number}"):
        arrays = from_npz(data)
        facts = from_json(_LayoutFacts, arrays["facts"].tobytes())
        layout = Layout(arrays["coordinates"], facts.quality, facts.perplexity, facts.kl_divergence)
        return StoredLayout(layout, _frames(arrays))


def _assembled(map_id: str, plan: Plan, items: ItemSet, layouts: Sequence[Layout], facts: _MapFacts) -> StyleMap:
    return StyleMap(
        map_id=map_id,
        created=plan.created,
        settings=items.settings,
        places=items.items,
        layouts=tuple(layouts),
        measured=items.measured,
        backbone=plan.backbone,
        weights_digest=plan.weights_digest,
        refused=items.refused,
        notes=items.notes,
        seconds=facts.seconds,
        comparison=items.comparison,
    )


def _summary(run: Run) -> MapSummary | None:
    """A map in short; None if it was deleted, or ended before its plan was stored."""
    values = run.names()
    try:
        plan = get_plan(run)
        items = len(get_items(run).items) if "items" in values else 0
    except NotFound:
        return None
    layouts = sum(name.startswith("layout-") for name in values)
    return MapSummary(run.run_id, plan.created, plan.settings.method, items, layouts, "map" in values)


def _frame_arrays(frames: tuple[Frame, ...]) -> dict[str, NDArray[Any]]:
    if not frames:
        return {}
    return {
        "frame_iterations": np.array([frame.iteration for frame in frames]),
        "frame_divergences": np.array([frame.kl_divergence for frame in frames]),
        "frame_coordinates": np.stack([frame.coordinates for frame in frames]),
    }


def _frames(arrays: Mapping[str, NDArray[Any]]) -> tuple[Frame, ...]:
    if "frame_iterations" not in arrays:
        return ()
    return tuple(
        Frame(int(iteration), float(divergence), coordinates)
        for iteration, divergence, coordinates in zip(
            arrays["frame_iterations"], arrays["frame_divergences"], arrays["frame_coordinates"], strict=True
        )
    )
