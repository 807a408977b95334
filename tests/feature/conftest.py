from __future__ import annotations

from collections.abc import Iterator

import pytest
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A ResNet-50 with random weights."""
    engine = Engine(load_network("resnet50", "random:0", "cpu"))
    yield engine
    engine.close()
