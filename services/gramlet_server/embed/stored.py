"""Maps in the store: finished ones, and those whose making was interrupted.

Values of a map, in the order in which they are written: `plan` as its making begins; `thumbnails`, `sketches`,
`distances`, then `items`, from which on the making can be resumed; `state` again and again; a `layout-N` for each
layout; `map` when it is finished, after which `distances` and `state` are dropped.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gramlet.embed.settings import MapSettings
from gramlet.embed.types import Layout, MapSummary, Measured, Place, Quality, Refused, StyleMap
from gramlet.errors import NotFound
from gramlet.json_codec import from_json, to_json
from gramlet.types import Array
from numpy.typing import NDArray

from gramlet_server.embed import thumbnails
from gramlet_server.embed.page import Frame
from gramlet_server.embed.tsne import State
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

KIND = "maps"


@dataclass(frozen=True)
class Plan:
    """What a map is to be, as its making begins."""

    settings: MapSettings
    created: float
    backbone: str = ""
    weights_digest: str = ""
    from_map_id: str = ""
    report_every: int = 10
    omit_coordinates: bool = False


@dataclass(frozen=True)
class Gathered:
    """All that is known when the last item has been described, but for the arrays.

    `contents` has a digest of each item's picture or vector, by which the items of a grown set are recognised.
    """

    settings: MapSettings
    places: tuple[Place, ...]
    contents: tuple[str, ...]
    measured: Measured
    sketch_error: float
    refused: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class _LayoutFacts:
    quality: Quality
    perplexity: float
    kl_divergence: float


@dataclass(frozen=True)
class _MapFacts:
    layouts: int
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Unfinished:
    """A layout under way: its number, the descent's state, and how it looked before."""

    layout: int
    state: State
    frames: tuple[Frame, ...]


def put_plan(run: Run, plan: Plan) -> None:
    """Writes the first value of a map."""
    run.put("plan", to_json(plan))


def get_plan(run: Run) -> Plan:
    """What the map is to be."""
    return from_json(Plan, run.get("plan"))


def put_gathered(run: Run, gathered: Gathered, squared: Array, sketches: Array, jpegs: list[bytes | None]) -> None:
    """Writes all that the feature pass found; `items` last, since it stands for the rest."""
    run.put("thumbnails", thumbnails.pack(jpegs))
    run.put("sketches", _to_npz(sketches=sketches))
    run.put("distances", _to_npz(upper=squared[np.triu_indices(len(squared), 1)]))
    run.put("items", to_json(gathered))


def get_gathered(run: Run) -> Gathered:
    """What the feature pass found."""
    return from_json(Gathered, run.get("items"))


def has_gathered(run: Run) -> bool:
    """Whether the feature pass has ended."""
    try:
        return bool(run.get("items"))
    except NotFound:
        return False


def get_distances(run: Run, items: int) -> Array:
    """(N, N) squared distances."""
    squared = np.zeros((items, items), np.float32)
    squared[np.triu_indices(items, 1)] = _from_npz(run.get("distances"))["upper"]
    for i in range(items):
        squared[i:, i] = squared[i, i:]
    return squared


def get_sketches(run: Run) -> Array:
    """(N, k): what new items are compared with."""
    return _from_npz(run.get("sketches"))["sketches"]


def get_thumbnails(run: Run) -> list[bytes | None]:
    """A small JPEG, or None, for each item."""
    return thumbnails.unpack(run.get("thumbnails"))


def put_state(run: Run, unfinished: Unfinished) -> None:
    """Writes a checkpoint."""
    state = unfinished.state
    run.put(
        "state",
        _to_npz(
            layout=np.array(unfinished.layout),
            iteration=np.array(state.iteration),
            coordinates=state.coordinates,
            update=state.update,
            gains=state.gains,
            **_frame_arrays(unfinished.frames),
        ),
    )


def get_state(run: Run) -> Unfinished | None:
    """The newest checkpoint, if there is any."""
    try:
        arrays = _from_npz(run.get("state"))
    except NotFound:
        return None
    state = State(arrays["coordinates"], arrays["update"], arrays["gains"], int(arrays["iteration"]))
    return Unfinished(int(arrays["layout"]), state, _frames(arrays))


def put_layout(run: Run, number: int, layout: Layout, frames: tuple[Frame, ...]) -> None:
    """Writes a finished layout."""
    facts = _LayoutFacts(layout.quality, layout.perplexity, layout.kl_divergence)
    run.put(
        f"layout-{number}",
        _to_npz(
            facts=np.frombuffer(to_json(facts), np.uint8),
            coordinates=layout.coordinates,
            **_frame_arrays(frames),
        ),
    )


def get_layout(run: Run, number: int) -> tuple[Layout, tuple[Frame, ...]] | None:
    """A finished layout, if there is one of that number, and how it looked on the way."""
    try:
        arrays = _from_npz(run.get(f"layout-{number}"))
    except NotFound:
        return None
    facts = from_json(_LayoutFacts, arrays["facts"].tobytes())
    layout = Layout(arrays["coordinates"], facts.quality, facts.perplexity, facts.kl_divergence)
    return layout, _frames(arrays)


def put_map(run: Run, style_map: StyleMap) -> None:
    """Writes the last value of a map and drops what only its making needed."""
    facts = _MapFacts(len(style_map.layouts), style_map.notes, style_map.seconds)
    run.put("map", to_json(facts))
    for name in ("distances", "state"):
        run.put(name, b"")


def get_map(store: Store, map_id: str) -> StyleMap:
    """A finished map.

    Raises:
        NotFound: There is none of that name, or it is not finished.
    """
    run = open_run(store, map_id)
    try:
        facts = from_json(_MapFacts, run.get("map"))
    except NotFound:
        raise NotFound(f"there is no finished map {map_id}", field="map_id") from None
    plan, gathered = get_plan(run), get_gathered(run)
    found = [get_layout(run, number) for number in range(facts.layouts)]
    return StyleMap(
        map_id=map_id,
        created=plan.created,
        settings=gathered.settings,
        places=gathered.places,
        layouts=tuple(one[0] for one in found if one is not None),
        measured=gathered.measured,
        backbone=plan.backbone,
        weights_digest=plan.weights_digest,
        refused=gathered.refused,
        notes=facts.notes,
        seconds=facts.seconds,
    )


def get_frames(run: Run, style_map: StyleMap) -> list[tuple[Frame, ...]]:
    """How each layout of a finished map looked on the way."""
    found = [get_layout(run, number) for number in range(len(style_map.layouts))]
    return [one[1] for one in found if one is not None]


def list_maps(store: Store) -> list[MapSummary]:
    """All maps, finished or not, newest first."""
    values: dict[str, set[str]] = {}
    for entry in store.list(f"runs/{KIND}"):
        _, _, map_id, _, name = entry.key.split("/", 4)
        values.setdefault(map_id, set()).add(name)
    summaries = [_summary(open_run(store, map_id), values[map_id]) for map_id in values if "plan" in values[map_id]]
    return sorted(summaries, key=lambda summary: summary.created, reverse=True)


def delete_map(store: Store, map_id: str) -> None:
    """Forgets a map, finished or not.

    Raises:
        NotFound: There is none.
    """
    run = open_run(store, map_id)
    if not store.list(f"runs/{KIND}/{map_id}"):
        raise NotFound(f"there is no map {map_id}", field="map_id")
    run.delete()


def open_run(store: Store, map_id: str) -> Run:
    """A map to be read, whoever owns its making.

    Raises:
        NotFound: No map can have that name.
    """
    if not map_id or "/" in map_id:
        raise NotFound(f"there is no map {map_id!r}", field="map_id")
    return Run(store, KIND, map_id, 0)


def _summary(run: Run, values: set[str]) -> MapSummary:
    plan = get_plan(run)
    items = len(get_gathered(run).places) if "items" in values else 0
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


def _to_npz(**arrays: NDArray[Any]) -> bytes:
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, **arrays)
    return data.getvalue()


def _from_npz(data: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
