from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import torch
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine, EngineSettings

Engines = Callable[..., Engine]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder need a CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if "/gpu/" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=f"torch {torch.__version__} finds no CUDA device"))
    for item in items:
        if "/gpu/" in str(item.path):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def engines() -> Iterator[Engines]:
    """`engines(precision, batch_gradients=True)`: an engine with random weights on CUDA, closed after the test."""
    with ExitStack() as exits:

        def make(precision: str = "float32", device: str = "cuda", **settings: object) -> Engine:
            network = load_network("resnet50", "random:0", device, precision)
            engine = Engine(network, EngineSettings(**settings))  # type: ignore[arg-type]
            exits.callback(engine.close)
            return engine

        yield make
