"""Shared by the tests of TrainService: a small real network, pictures of two easy classes, a store."""

from __future__ import annotations

import io
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from gramlet.tensor.hashing import picture_hash
from gramlet.train.configuration import Configuration, Entry, HeadKind, Optimizer, Recipe, Strategy, TrainOrder, Upload
from gramlet.train.types import Event, HeadRef, Result
from gramlet.train.v1.train_pb2_grpc import add_TrainServiceServicer_to_server
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.weights import Weights, load
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.store import Store
from gramlet_server.runtime.build import Built, Service
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.server import Server
from gramlet_server.train.classifier import BaseStages
from gramlet_server.train.registry import Registry
from gramlet_server.train.runs import Runs, RunSettings
from gramlet_server.train.service import TrainServicer
from PIL import Image

PROBE = Recipe(kind=HeadKind.LINEAR, optimizer=Optimizer.LBFGS, epochs=5, patience=0)
MLP = Recipe(epochs=6, patience=0, batch_size=8)
UNFROZEN = Recipe(
    kind=HeadKind.LINEAR,
    strategy=Strategy.ALL_AT_ONCE,
    stages=("layer4",),
    stage_epochs=2,
    batch_size=8,
    stage_learning_rate=1e-3,
)

SIZE = 64
COLORS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


def picture(label: str, seed: int, size: int = SIZE) -> bytes:
    """A PNG file: noise in the color of its class."""
    rng = np.random.default_rng(seed)
    pixels = np.array(COLORS[label]) + rng.normal(0, 40, (size, size, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


class DataSet:
    """Pictures with their entries, as a client has them."""

    def __init__(self, files: dict[str, bytes], hashed: bool = True) -> None:
        self.files = files
        self.entries = tuple(
            Entry(name, name.split("/")[-2], name.split("/")[0], picture_hash(data) if hashed else "")
            for name, data in files.items()
        )

    def uploads(self, wanted: list[int]) -> list[Upload]:
        return [Upload(position, self.files[self.entries[position].name]) for position in wanted]


def make_files(train: int = 8, val: int = 4, labels: tuple[str, ...] = ("red", "green")) -> dict[str, bytes]:
    files = {}
    for number, label in enumerate(labels):
        for i in range(train):
            files[f"train/{label}/{i}.png"] = picture(label, 100 * number + i)
        for i in range(val):
            files[f"val/{label}/{i}.png"] = picture(label, 100 * number + 50 + i)
    return files


@pytest.fixture(scope="session")
def weights() -> Weights:
    return load("resnet50", "random:0")


@pytest.fixture(scope="session")
def engine(weights):
    engine = Engine(Network(weights))
    yield engine
    engine.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def base(weights) -> BaseStages:
    return BaseStages(lambda: weights)


@pytest.fixture
def runs(engine, store, base) -> Runs:
    return Runs(engine, store, base)


@pytest.fixture(scope="session")
def data_set() -> DataSet:
    return DataSet(make_files())


def configuration(data: DataSet, *recipes: Recipe, **fields) -> Configuration:
    """A small run on those pictures."""
    return Configuration(
        name=fields.pop("name", "colors"),
        recipes=recipes or (Recipe(epochs=5),),
        entries=data.entries,
        size=SIZE,
        **fields,
    )


class Client:
    """Plays the client: sends the pictures that the server asks for, and keeps its events."""

    def __init__(self, runs: Runs, data: DataSet) -> None:
        self._runs = runs
        self._data = data
        self.wanted: tuple[int, ...] = ()
        self.events: list[Event] = []

    def run(
        self,
        order: TrainOrder,
        stop_after: type | None = None,
        uploads: int | None = None,
        read_on: bool = False,
    ) -> Result | None:
        """Runs to the result; or cancels after the first event of a kind; or sends only so many pictures."""
        asked: queue.SimpleQueue = queue.SimpleQueue()

        def pictures():
            self.wanted = asked.get().wanted
            yield from self._data.uploads(self.wanted[:uploads])
            if uploads is not None:
                raise ConnectionError("the client was lost")

        training = self._runs.start(order, pictures())
        self.run_id = training.run_id
        self.events = []
        for event in training:
            self.events.append(event)
            if hasattr(event, "wanted"):
                asked.put(event)
            if stop_after is not None and isinstance(event, stop_after):
                training.cancel()
                training.join()
                if not read_on:
                    return None
        return event if isinstance(event, Result) else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The pictures as files, in sets."""
    root = tmp_path_factory.mktemp("colors")
    for name, data in make_files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def address(engine, weights, folder, tmp_path_factory) -> Iterator[str]:
    """A TrainService that may read the folder."""
    store, base = Store.open(str(tmp_path_factory.mktemp("store"))), BaseStages(lambda: weights)
    runs = Runs(engine, store, base, RunSettings(dataset_roots=(str(folder),)))
    with serving(TrainServicer(runs, engine, store, base)) as address:
        yield address


@contextmanager
def serving(servicer: TrainServicer) -> Iterator[str]:
    """A server with that servicer; yields its address."""
    service = Service("gramlet.train.v1.TrainService", add_TrainServiceServicer_to_server, lambda: Built(servicer))
    server = Server([service], ServerSettings(port=0))
    built: queue.SimpleQueue = queue.SimpleQueue()
    server.start(built.put)
    assert built.get(timeout=30) is None
    yield f"127.0.0.1:{server.port}"
    server.stop(drain_seconds=0)


def tensors(store, result: Result):
    registry = Registry(store)
    weights = registry.weights("colors", registry.find(HeadRef(result.head.name, result.head.version))[1])
    return weights.head, weights.delta
