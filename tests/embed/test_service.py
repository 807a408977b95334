from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import gramlet
import grpc
import numpy as np
import pytest
from gramlet.embed import map_wire
from gramlet.embed import wire as messages
from gramlet.embed.drawings import MapDrawing
from gramlet.embed.settings import Descriptor, Exactness, Gradient, MapSettings, Method, Metric, Tsne
from gramlet.embed.types import BadItem, Item, LayoutIteration, MapEvent, MapStart, StyleMap
from gramlet.embed.v1 import embed_pb2, embed_pb2_grpc
from gramlet.types import Resize, ResizeMode
from gramlet_server.embed.runs import Maps
from gramlet_server.embed.service import EmbedServicer
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.lifecycle import Execution
from gramlet_server.runs.store import Store

from tests.embed.conftest import clusters, serving

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
