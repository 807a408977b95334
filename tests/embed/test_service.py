from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import gramlet
import grpc
import numpy as np
import pytest
from gramlet._async.embed import AsyncEmbedCalls
from gramlet._sync.embed import EmbedCalls
from gramlet.embed import map_wire
from gramlet.embed import wire as messages
from gramlet.embed.settings import Descriptor, Exactness, Gradient, MapSettings, Method, Metric, Tsne
from gramlet.embed.types import (
    BadItem,
    Item,
    LayoutIteration,
    MapDrawing,
    MapEvent,
    MapStart,
    Position,
    RefusedItem,
    StyleMap,
)
from gramlet.embed.v1 import embed_pb2, embed_pb2_grpc
from gramlet.errors import GramletError, InvalidInput, NotFound
from gramlet.types import Resize, ResizeMode
from gramlet_server.embed.runs import Maps
from gramlet_server.embed.service import EmbedServicer
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.lifecycle import Execution
from gramlet_server.runs.store import Store

from tests.embed.conftest import SIDE, Idle, clusters, serving, vector_items

QUICK = {"perplexity": 5, "iterations": 40, "early_iterations": 20}
ODD = MapSettings(
    descriptor=Descriptor.POOLED,
    stages=("layer1", "layer4"),
    resize=Resize(ResizeMode.LONGEST_SIDE, 99),
    balance_stages=False,
    metric=Metric.CORRELATION,
    exactness=Exactness.SKETCH,
    sketch_size=128,
    method=Method.LLE,
    dimensions=3,
    tsne=Tsne((5.0, 7.5), 99, 4.0, 33, 12.5, 0.25, Gradient.BARNES_HUT),
    neighbors=7,
    seed=2**63,
    quality_neighbors=3,
)


@pytest.mark.parametrize("settings", [MapSettings(), ODD, replace(ODD, resize=Resize())])
def test_settings_arrive_as_they_were_sent(settings: MapSettings) -> None:
    message = embed_pb2.Settings.FromString(map_wire.encode_settings(settings).SerializeToString())
    assert map_wire.decode_settings(message) == settings


def test_unset_settings_take_their_defaults() -> None:
    assert map_wire.decode_settings(embed_pb2.Settings()) == MapSettings()


@pytest.mark.parametrize(
    "start", [MapStart(ODD, count=3, map_id="m", from_map_id="o", report_every=3), MapStart(None, "m", 7)]
)
def test_starts_arrive_as_they_were_sent(start: MapStart) -> None:
    assert messages.decode_start(iter([messages.encode_start(start)])) == start


def test_drawings_arrive_as_they_were_sent() -> None:
    for drawing in (MapDrawing("m"), MapDrawing("m", layout=0, width=300, title="t")):
        assert map_wire.decode_drawing(map_wire.encode_drawing(drawing)) == drawing


def test_a_folder_becomes_a_map_with_its_folders_as_labels(client: gramlet.Client, folder: Path) -> None:
    events = list(client.embed(folder, stages="conv1", resize=SIDE, map_id="m", **QUICK))
    last = events[-1]
    assert isinstance(last, StyleMap)
    assert {(place.id, place.label) for place in last.places} == {
        (path.relative_to(folder).as_posix(), path.parent.name) for path in folder.glob("*/*")
    }
    assert last.layouts[0].quality.descriptor_label_accuracy == 1.0
    iterations = [event for event in events if isinstance(event, LayoutIteration)]
    assert iterations[-1].coordinates is not None
    assert iterations[-1].coordinates.shape == (8, 2)
    found = client.map("m")
    np.testing.assert_array_equal(found.layouts[0].coordinates, last.layouts[0].coordinates)
    assert replace(found, layouts=()) == replace(last, layouts=())
    assert [summary.map_id for summary in client.maps()] == ["m"]
    assert client.draw_map("m", width=300)[:4] == b"\x89PNG"
    assert client.draw_map("m", form="page").startswith(b"<!doctype html>")
    client.delete_map("m")
    with pytest.raises(NotFound):
        client.map("m")


def test_vectors_become_a_map_and_take_new_ones(client: gramlet.Client) -> None:
    vectors, labels = clusters(40)
    style_map = client.embed(vectors[:36], labels=labels[:36], map_id="m", **QUICK).result()
    assert style_map.settings.descriptor is Descriptor.VECTOR
    outcomes = list(client.transform("m", vectors[36:]))
    assert len(outcomes) == 4
    for outcome, label in zip(outcomes, labels[36:], strict=True):
        assert isinstance(outcome, Position)
        assert labels[outcome.neighbors[0].index] == label


def test_pictures_that_cannot_be_read_are_refused_alone_with_the_reason(client: gramlet.Client, folder: Path) -> None:
    pictures = [*sorted(folder.glob("*/*")), folder / "nowhere.png", b"rubbish"]
    with client.embed(pictures, stages="conv1", resize=SIDE, map_id="m", **QUICK) as events:
        refused = [event.refused for event in events if isinstance(event, RefusedItem)]
    assert [one.index for one in refused] == [8, 9]
    assert "there is no file" in refused[0].message
    outcomes = list(client.transform("m", [pictures[8], pictures[0], b"rubbish", pictures[1]], in_flight=2))
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [NotFound, Position, InvalidInput, Position]


@pytest.mark.parametrize("items", ["/nowhere", b"one picture", 3])
def test_items_that_are_no_set_of_pictures_are_refused_before_any_call(client: gramlet.Client, items: object) -> None:
    with pytest.raises(GramletError) as error:
        client.embed(items)  # type: ignore[arg-type]
    assert error.value.field == "items"


def test_wrong_settings_name_their_field(client: gramlet.Client) -> None:
    vectors, _ = clusters(10)
    with pytest.raises(InvalidInput) as error:
        client.embed(vectors, metric="taxi")
    assert error.value.field == "metric"
    with pytest.raises(InvalidInput) as error:
        client.embed(vectors, dimensions=7).result()
    assert error.value.field == "start.settings.dimensions"


def test_leaving_the_loop_frees_the_server(client: gramlet.Client, idle: Idle) -> None:
    vectors, _ = clusters(30)
    with client.embed(vectors, iterations=1_000_000, report_every=1) as events:
        next(event for event in events if isinstance(event, LayoutIteration))
    assert idle.event.wait(20)


class Replicas:
    """Two processes at one store, behind one address: calls go to `current`."""

    def __init__(self, current: Maps, other: Maps) -> None:
        self.current = current
        self.other = other

    def start(self, start: MapStart, items: Iterable[Item | BadItem]) -> Execution[MapEvent]:
        return self.current.start(start, items)

    def replace(self) -> None:
        """The current process shuts down, and the other one gets the calls."""
        leaving, self.current = self.current, self.other
        leaving.lifecycle.drain()


def test_a_map_continues_on_another_replica_when_its_server_shuts_down(
    maps: Maps, replica: Maps, engine: Engine, store: Store
) -> None:
    vectors, _ = clusters(30)
    seen: list[MapEvent] = []
    replicas = Replicas(maps, replica)
    servicer = EmbedServicer(replicas, engine, store)  # type: ignore[arg-type]
    with serving(servicer, maps) as address, gramlet.Client(address, timeout=120) as client:
        whole = client.embed(vectors, **QUICK).result()
        with client.embed(vectors, **QUICK, report_every=1) as events:
            for event in events:
                seen.append(event)
                if isinstance(event, LayoutIteration) and replicas.current is maps:
                    replicas.replace()
    last = seen[-1]
    assert isinstance(last, StyleMap)
    np.testing.assert_array_equal(last.layouts[0].coordinates, whole.layouts[0].coordinates)
    iterations = [event.iteration for event in seen if isinstance(event, LayoutIteration)]
    assert iterations == sorted(set(iterations))


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "start"),
        ([embed_pb2.EmbedRequest(item=embed_pb2.Item())], "start"),
        ([embed_pb2.EmbedRequest(start=embed_pb2.EmbedRequest.Start(count=3))], "start"),
        ([messages.encode_start(MapStart(count=3, map_id="a/b"))], "start.map_id"),
        ([messages.encode_start(MapStart(ODD, count=3)), messages.encode_start(MapStart(ODD, count=3))], "item"),
    ],
)
def test_messages_out_of_order_are_refused(server: str, requests: list[embed_pb2.EmbedRequest], field: str) -> None:
    with grpc.insecure_channel(server) as channel:
        stub = embed_pb2_grpc.EmbedServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            list(stub.Embed(iter(requests), timeout=30))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details().startswith(field) or field in str(error.value.trailing_metadata())


async def test_the_async_client_does_the_same(server: str) -> None:
    items = vector_items(20)
    async with gramlet.AsyncClient(server, timeout=120) as client:
        events = [event async for event in client.embed(items, map_id="m", **QUICK)]
        assert isinstance(events[-1], StyleMap)
        outcomes = [outcome async for outcome in client.transform("m", items[:3])]
        assert all(isinstance(outcome, Position) for outcome in outcomes)
        assert (await client.map("m")).places == events[-1].places
        assert (await client.draw_map("m", form="grid", width=300))[:4] == b"\x89PNG"
        assert [summary.map_id for summary in await client.maps()] == ["m"]
        await client.delete_map("m")
        with pytest.raises(NotFound):
            await client.map("m")


@pytest.mark.parametrize("name", [name for name in vars(EmbedCalls) if not name.startswith("_")])
def test_both_clients_take_the_same_arguments(name: str) -> None:
    sync, twin = (inspect.signature(getattr(calls, name)) for calls in (EmbedCalls, AsyncEmbedCalls))
    assert list(sync.parameters.values()) == list(twin.parameters.values())
