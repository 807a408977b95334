"""What tests of EmbedService share: drawn pictures, made-up Gram matrices, maps, and a server."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import gramlet
import numpy as np
import pytest
from gramlet.embed.settings import Descriptor, MapSettings, Tsne
from gramlet.embed.types import BadItem, Item, MapEvent, MapStart, Quality, StyleMap
from gramlet.embed.v1.embed_pb2_grpc import add_EmbedServiceServicer_to_server
from gramlet.errors import GramletError
from gramlet.feature.types import Features
from gramlet.types import Resize
from gramlet_server.embed import quality, stored
from gramlet_server.embed.geometry import Points, RowPoints
from gramlet_server.embed.runs import Maps, RunSettings
from gramlet_server.embed.service import EmbedServicer
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.runtime.build import Built, Service
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.server import Server
from gramlet_server.telemetry import Observer
from PIL import Image

SIDE = 64
QUICK = Tsne(perplexities=(5.0,), iterations=60, early_iterations=30)
VECTORS = MapSettings(descriptor=Descriptor.VECTOR, tsne=QUICK)
GRAMS = MapSettings(stages=("conv1", "layer1"), resize=Resize(), tsne=QUICK)


def drawn(color: tuple[int, int, int], seed: int, side: int = SIDE) -> bytes:
    """A PNG of speckles on a background of one color."""
    random = np.random.default_rng(seed)
    picture = np.clip(np.array(color) + random.normal(0, 40, (side, side, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def clusters(items: int, groups: int = 4, size: int = 20, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Vectors (items, size) around `groups` centers, and the name of each vector's group."""
    random = np.random.default_rng(seed)
    centers = random.normal(0, 4, (groups, size))
    group = np.arange(items) % groups
    vectors = centers[group] + random.normal(size=(items, size))
    return vectors.astype(np.float32), [f"group {number}" for number in group]


def points_of(vectors: np.ndarray, seed: int = 0) -> RowPoints:
    """Vectors as the points of a map."""
    return RowPoints(vectors.astype(np.float32), seed)


def judged(points: Points, coordinates: np.ndarray, labels: Sequence[str], neighbors: int) -> Quality:
    """The quality of a layout."""
    steps = quality.judge(points, coordinates, labels, neighbors)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def gram_features(seed: int, channels: Sequence[int] = (8, 12)) -> Features:
    """Gram matrices of random activations."""
    random = np.random.default_rng(seed)
    activations = {f"stage{number}": random.normal(size=(c, 30)) + seed % 3 for number, c in enumerate(channels)}
    return Features({}, {name: (f @ f.T).astype(np.float32) for name, f in activations.items()}, {}, 8, 8)


def vector_items(items: int, groups: int = 4) -> list[Item]:
    """Items with vectors, in groups, with labels and small pictures."""
    vectors, labels = clusters(items, groups)
    colors = [(200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60)]
    return [
        Item(f"item {number}", label, drawn(colors[number % groups], number, 24), vector)
        for number, (vector, label) in enumerate(zip(vectors, labels, strict=True))
    ]


def picture_items(items: int) -> list[Item]:
    """Items with pictures of two colors."""
    colors = {"red": (200, 60, 60), "blue": (60, 60, 200)}
    names = list(colors)
    return [
        Item(f"{number}.png", names[number % 2], drawn(colors[names[number % 2]], number)) for number in range(items)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight pictures, in the folders `red` and `blue`."""
    for item in picture_items(8):
        path = tmp_path / "pictures" / item.label / item.id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item.picture)  # type: ignore[arg-type]
    return tmp_path / "pictures"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store.open(str(tmp_path / "store"))


class Idle(Observer):
    """An observer that sets `event` whenever no run is left."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def runs(self, service: str, running: int, queued: int) -> None:
        if running == 0:
            self.event.set()


@pytest.fixture
def idle() -> Idle:
    """The observer of `maps`."""
    return Idle()


@pytest.fixture
def maps(engine: Engine, store: Store, idle: Idle) -> Maps:
    """Maps with a checkpoint every 20 iterations."""
    return Maps(engine, store, RunSettings(checkpoint_every=20), observer=idle)


@pytest.fixture
def replica(engine: Engine, store: Store) -> Maps:
    """Another process at the same store."""
    return Maps(engine, store, RunSettings(checkpoint_every=20))


def events_of(maps: Maps, start: MapStart, items: Sequence[Item | BadItem]) -> Generator[MapEvent, None, None]:
    """Computes a map in this thread. Unlike a reader of `maps.start`, the caller gets every event."""
    return maps.prepare(start, iter(items)).events()


def computed(maps: Maps, start: MapStart, items: Sequence[Item | BadItem]) -> StyleMap:
    """The finished map."""
    *_, last = events_of(maps, start, items)
    assert isinstance(last, StyleMap)
    return last


MakeMap = Callable[..., StyleMap]


@pytest.fixture
def make_map(maps: Maps) -> MakeMap:
    """`make_map(items, settings, **start)` computes a map."""

    def make(items: Sequence[Item | BadItem], settings: MapSettings, **start: object) -> StyleMap:
        return computed(maps, MapStart(settings, count=len(items), **start), items)  # type: ignore[arg-type]

    return make


@contextmanager
def serving(servicer: EmbedServicer, maps: Maps) -> Iterator[str]:
    """An EmbedService. Gives its address."""
    service = Service(
        "gramlet.embed.v1.EmbedService",
        add_EmbedServiceServicer_to_server,
        lambda: Built(servicer, drain=maps.lifecycle.drain),
    )
    server = Server([service], ServerSettings(port=0))
    outcomes: SimpleQueue[GramletError | None] = SimpleQueue()
    server.start(outcomes.put)
    assert outcomes.get(timeout=30) is None
    yield f"127.0.0.1:{server.port}"
    server.stop(drain_seconds=0)


@pytest.fixture
def server(maps: Maps, engine: Engine, store: Store) -> Iterator[str]:
    """The address of an EmbedService."""
    with serving(EmbedServicer(maps, engine, store), maps) as address:
        yield address


@pytest.fixture
def client(server: str) -> Iterator[gramlet.Client]:
    """A client of that server."""
    with gramlet.Client(server, timeout=120) as client:
        yield client


def give_other_weights(store: Store, map_id: str) -> None:
    """Changes the digest of the weights in the plan of a map."""
    run = Run.take_over(store, stored.KIND, map_id)
    stored.put_plan(run, replace(stored.get_plan(run), weights_digest="other"))
