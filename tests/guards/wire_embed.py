"""The messages of EmbedService."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gramlet
import numpy as np
from gramlet import InvalidInput, NotFound
from gramlet.embed.v1 import embed_pb2 as pb

from tests.guards.product import embed_types as types
from tests.guards.product import embed_wire as wire
from tests.guards.wire_cases import DIGEST, FILE, Case, with_each
from tests.guards.wire_run import PROGRESS

POINTS = np.array([[0.5, -1.0], [2.0, 0.25]], np.float32)
VECTOR = np.array([1.0, -2.0, 0.5], np.float32)
SETTINGS = types.MapSettings(
    descriptor=types.Descriptor.POOLED,
    stages=("conv1", "layer2"),
    resize=gramlet.Resize(gramlet.ResizeMode.STRETCH, 96),
    balance_stages=False,
    metric=types.Metric.COSINE,
    exactness=types.Exactness.SKETCH,
    sketch_size=128,
    method=types.Method.UMAP,
    dimensions=3,
    tsne=types.Tsne((5.0, 30.0), 500, 4.0, 100, 200.0, 0.25, types.Gradient.BARNES_HUT),
    neighbors=7,
    seed=11,
    quality_neighbors=4,
)
MEASURED = types.Measured(types.Exactness.EXACT, 2080, 0.25, 0.125, 6, 1)
REFUSED = types.Refused(2, "c", 3, "no picture", "item.picture")
QUALITY = types.Quality(4, 0.9, 0.8, 0.7, 0.6, 0.5, -0.25, 0.25, 2000, 0.0625, 0.75)
COMPARED = (
    types.Comparison(types.Descriptor.GRAM, ("conv1", "layer2"), True, 0.75, 0.5),
    types.Comparison(types.Descriptor.POOLED, ("layer3",), False, 0.25),
)
STYLE_MAP = types.StyleMap(
    map_id="map",
    created=1.5e9,
    settings=SETTINGS,
    places=(types.Place("a", "red"), types.Place("b")),
    layouts=(types.Layout(POINTS, QUALITY, 30.0, 0.5), types.Layout(POINTS, types.Quality(4, 0.9, 0.8, 0.7))),
    measured=MEASURED,
    backbone="resnet50",
    weights_digest=DIGEST,
    refused=(REFUSED,),
    notes=("a note",),
    seconds=2.5,
    comparison=COMPARED,
)
EVENTS = {
    "queued": types.Queued("map", 2),
    "started": types.Started("map", SETTINGS, 1024, True, DIGEST),
    "described": types.Described("map", 2, 1, 4),
    "refused": types.RefusedItem("map", REFUSED),
    "measured": types.MeasuredItems("map", MEASURED),
    "iteration": types.LayoutIteration("map", 1, 30.0, 50, 500, 0.5, POINTS),
    "iteration without coordinates": types.LayoutIteration("map", 1, 30.0, 50, 500, 0.5),
    **{f"working, {task.value}": types.Working("map", task, 1, 4) for task in types.Task},
    "progress": types.RemoteProgress("map", PROGRESS),
    "result": STYLE_MAP,
}


def cases() -> Iterator[Case]:
    """Every request and reply."""
    yield from _embed()
    for name, event in EVENTS.items():
        yield Case(f"embed event, {name}", wire.encode_event(event), wire.decode_event, event)
    yield from _transform()
    yield from _drawings()
    yield Case("get map", pb.GetMapRequest(map_id="map"))
    yield Case("map", pb.GetMapResponse(map=wire.encode_map(STYLE_MAP)), lambda m: wire.decode_map(m.map), STYLE_MAP)
    summaries = [types.MapSummary("map", 1.5e9, method, 8, 2, method is types.Method.TSNE) for method in types.Method]
    yield Case("list maps", pb.ListMapsRequest())
    yield Case("maps", wire.encode_summaries(summaries), wire.decode_summaries, summaries)
    yield Case("delete map", pb.DeleteMapRequest(map_id="map"))
    yield Case("deleted map", pb.DeleteMapResponse())


def _items() -> list[Any]:
    return [types.Item("a", "red", FILE), types.Item("b", vector=VECTOR)]


def _embed() -> Iterator[Case]:
    def start(sent: Any) -> Any:
        return wire.decode_start(iter([sent]))

    starts: dict[str, Any] = {
        "new": types.MapStart(SETTINGS, "", 8, "map", "earlier", 0, True),
        "defaults": types.MapStart(count=8),
        "resumed": types.MapStart(None, "map"),
        "detached": types.MapStart(types.MapSettings(), count=3, detached=True),
        "taken over": types.MapStart(None, "map", take_over=True),
        "pinned": types.MapStart(types.MapSettings(), count=3, weights_digest=DIGEST),
        "watched": types.MapStart(None, watch_map_id="map"),
        "once more": types.MapStart(types.MapSettings(compare=True), items_of_map_id="earlier"),
        "vectors": types.MapStart(types.MapSettings(descriptor=types.Descriptor.VECTOR), count=8, vector_size=512),
    }
    for field, members in (
        ("descriptor", types.Descriptor),
        ("metric", types.Metric),
        ("exactness", types.Exactness),
        ("method", types.Method),
        ("preset", types.Preset),
    ):
        for name, settings in with_each(types.MapSettings(), field, members):
            starts[name] = types.MapStart(settings)
    for name, tsne in with_each(types.Tsne(), "gradient", types.Gradient):
        starts[name] = types.MapStart(types.MapSettings(tsne=tsne))
    for name, each in starts.items():
        yield Case(f"embed, {name}", wire.encode_start(each), start, each)
    for item in _items():
        yield Case(
            f"embed, item {item.id}", wire.encode_item(item), lambda m: list(wire.decode_items(iter([m]))), [item]
        )
    unread = types.BadItem("gone", NotFound("there is no file gone.jpg", field="picture"))
    yield Case("embed, unread item", wire.encode_unread(unread))


def _transform() -> Iterator[Case]:
    yield Case(
        "transform, start",
        wire.encode_transform_start("map", DIGEST),
        lambda m: wire.decode_transform_start(iter([m])),
        ("map", DIGEST),
    )
    for item in _items():
        message = wire.encode_transform_item(item)
        yield Case(f"transform, item {item.id}", message, lambda m: list(wire.decode_items(iter([m]))), [item])
    position = types.Position("a", POINTS, (types.Neighbor(3, "d", 0.5),), DIGEST)
    error = InvalidInput("no picture", field="item.picture")
    for name, outcome in (("position", position), ("error", error)):
        yield Case(f"transformed, {name}", wire.encode_position("a", outcome), wire.decode_position, outcome)


def _drawings() -> Iterator[Case]:
    drawing = types.MapDrawing("map", layout=0, width=640, title="a title")
    for name, each in with_each(drawing, "form", types.DrawingForm):
        yield Case(f"draw map, {name}", wire.encode_drawing(each), wire.decode_drawing, each)
    (chunk,) = wire.encode_chunks("image/png", FILE)
    yield Case("drawing", chunk)
