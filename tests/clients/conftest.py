"""Real servers on loopback: the real services over a network with random weights, and scripted ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from gramlet.errors import GramletError
from gramlet.feature.v1 import feature_pb2_grpc
from gramlet.stylize.v1 import stylize_pb2_grpc
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.service import FeatureServicer
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.server import Built, Server, Service
from gramlet_server.store import Store
from gramlet_server.stylize.runs import Runs, RunSettings
from gramlet_server.stylize.service import StylizeServicer
from PIL import Image

FEATURE = "gramlet.feature.v1.FeatureService"
STYLIZE = "gramlet.stylize.v1.StylizeService"
_ADD = {
    FEATURE: feature_pb2_grpc.add_FeatureServiceServicer_to_server,
    STYLIZE: stylize_pb2_grpc.add_StylizeServiceServicer_to_server,
}


@contextmanager
def serving(servicers: dict[str, Any], port: int = 0, **settings: Any) -> Iterator[Server]:
    """A started server with these servicers, by service name."""
    services = [Service(name, _ADD[name], lambda it=servicer: Built(it)) for name, servicer in servicers.items()]
    server = Server(services, ServerSettings(port=port, **settings))
    built: SimpleQueue[GramletError | None] = SimpleQueue()
    server.start(built.put)
    assert built.get(timeout=30) is None
    try:
        yield server
    finally:
        server.stop(drain_seconds=0)


class Script:
    """A servicer whose every method is scripted: `script.GetModel = [first, second, ...]`, one step a call.

    A step is an error to raise, or a function of the request (or requests) and the context. The last step repeats.
    `calls` lists what was called with which request.
    """

    def __init__(self, **methods: list[Any]) -> None:
        self._methods = methods
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Callable[[Any, Any], Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(request: Any, context: Any) -> Any:
            self.calls.append((name, request))
            steps = self._methods[name]
            step = steps.pop(0) if len(steps) > 1 else steps[0]
            if isinstance(step, Exception):
                raise step
            return step(request, context)

        return call


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A ResNet-50 with random weights."""
    engine = Engine(load_network("resnet50", "random:0", "cpu"))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def address(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real FeatureService and StylizeService in one server."""
    runs = Runs(engine, Store.open(str(tmp_path_factory.mktemp("store"))), RunSettings(checkpoint_every=5))
    with serving({FEATURE: FeatureServicer(engine), STYLIZE: StylizeServicer(runs)}) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture(scope="session")
def pixels() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A small picture, (64, 48, 3)."""
    return np.random.default_rng(1).integers(0, 256, (64, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def png(pixels: Any) -> bytes:
    """The same picture as a file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
def picture(tmp_path: Path, png: bytes) -> Path:
    """The same picture on disk."""
    path = tmp_path / "picture.png"
    path.write_bytes(png)
    return path
