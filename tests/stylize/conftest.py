from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from gramlet.types import Array
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A ResNet-50 with random weights: enough for every promise that is not about how pictures look."""
    engine = Engine(load_network("resnet50", "random:0", "cpu"))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def content() -> Array:
    return np.random.default_rng(1).random((3, 48, 64), dtype=np.float32)


@pytest.fixture(scope="session")
def style() -> Array:
    return np.random.default_rng(2).random((3, 56, 40), dtype=np.float32)
