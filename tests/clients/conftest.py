"""The real services over a network with random weights, and one picture in every form."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.service import FeatureServicer
from gramlet_server.runs.store import Store
from gramlet_server.stylize.runs import Runs, RunSettings
from gramlet_server.stylize.service import StylizeServicer
from PIL import Image

from tests.clients.servers import FEATURE, STYLIZE, serving


@pytest.fixture(scope="session")
def address(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real FeatureService and StylizeService in one server."""
    runs = Runs(engine, Store.open(str(tmp_path_factory.mktemp("store"))), RunSettings(state_seconds=0.1))
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
