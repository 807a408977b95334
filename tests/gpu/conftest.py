from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest
import torch
from gramlet_server.backbone import load_network
from gramlet_server.backbone.network import Network
from gramlet_server.feature.engine import Engine, EngineSettings

from tests.gpu.fake_cuda import FakeCudaDevice

Engines = Callable[..., Engine]

DRY_RUN = os.environ.get("GRAMLET_GPU_DRY_RUN") == "1"
"""Whether a fake takes the place of CUDA: check.sh --dry-run."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder need a CUDA device, or the fake."""
    for item in items:
        if "/gpu/" in str(item.path):
            item.add_marker(pytest.mark.gpu)
            if not (DRY_RUN or torch.cuda.is_available()):
                item.add_marker(pytest.mark.skip(reason=f"torch {torch.__version__} finds no CUDA device"))


@cache
def _network(device: str, precision: str, pixels: str) -> Network:
    return load_network("resnet50", "random:0", device, precision, pixels)


@pytest.fixture
def engines() -> Iterator[Engines]:
    """`engines(precision, batch_gradients=True)`: an engine with random weights on CUDA, closed after the test."""
    with ExitStack() as exits:

        def make(precision: str = "float32", device: str = "cuda", pixels: str = "", **settings: object) -> Engine:
            fake = None
            if DRY_RUN and device == "cuda":
                device, fake = "cpu", FakeCudaDevice(records=bool(settings.get("cuda_graphs", True)))
            network = _network(device, precision, pixels)
            engine = Engine(network, EngineSettings(**settings), device=fake)  # type: ignore[arg-type]
            exits.callback(engine.close)
            return engine

        yield make
