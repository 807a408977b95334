"""What tests of EmbedService share: drawn pictures, Gram matrices made up, a real network, a server, a browser."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue

import gramlet
import numpy as np
import pytest
from gramlet.embed.types import Item, MapEvent, MapSettings, MapStart, StyleMap
from gramlet.embed.v1.embed_pb2_grpc import add_EmbedServiceServicer_to_server
from gramlet.errors import GramletError
from gramlet.feature.types import Features
from gramlet_server.embed.making import MakingSettings, Maps
from gramlet_server.embed.service import EmbedServicer
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.store import Store
from gramlet_server.runtime.build import Built, Service
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.server import Server
from PIL import Image

SIDE = 64


def drawn(color: tuple[int, int, int], seed: int, side: int = SIDE) -> bytes:
    """A PNG: speckles on a ground of a color."""
    random = np.random.default_rng(seed)
    picture = np.clip(np.array(color) + random.normal(0, 40, (side, side, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def clusters(items: int, groups: int = 4, size: int = 20, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Vectors (items, size) around `groups` centers, and the name of each one's group."""
    random = np.random.default_rng(seed)
    centers = random.normal(0, 4, (groups, size))
    group = np.arange(items) % groups
    vectors = centers[group] + random.normal(size=(items, size))
    return vectors.astype(np.float32), [f"group {number}" for number in group]


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


@pytest.fixture
def maps(engine: Engine, store: Store) -> Maps:
    """Maps that are checkpointed every 20 iterations."""
    return Maps(engine, store, MakingSettings(checkpoint_every=20))


Make = Callable[..., StyleMap]


@pytest.fixture
def make(maps: Maps) -> Make:
    """`make(items, settings, **start)`: the finished map."""

    def run(items: Sequence[Item], settings: MapSettings, **start: object) -> StyleMap:
        return made(maps, MapStart(settings, count=len(items), **start), items)[-1]  # type: ignore[arg-type, return-value]

    return run


def made(maps: Maps, start: MapStart, items: Sequence[Item]) -> list[MapEvent]:
    """All events of a map's making."""
    return list(maps.events(start, iter(items)))


@pytest.fixture
def server(maps: Maps, engine: Engine, store: Store) -> Iterator[str]:
    """The address of an EmbedService."""
    servicer = EmbedServicer(maps, engine, store)
    service = Service(
        "gramlet.embed.v1.EmbedService", add_EmbedServiceServicer_to_server, lambda: Built(servicer, drain=maps.drain)
    )
    server = Server([service], ServerSettings(port=0))
    outcomes: SimpleQueue[GramletError | None] = SimpleQueue()
    server.start(outcomes.put)
    assert outcomes.get(timeout=30) is None
    yield f"127.0.0.1:{server.port}"
    server.stop(drain_seconds=0)


@pytest.fixture
def client(server: str) -> Iterator[gramlet.Client]:
    """A client of it."""
    with gramlet.Client(server, timeout=120) as client:
        yield client
