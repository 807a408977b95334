from __future__ import annotations

import numpy as np
import pytest
from gramlet.types import Array


@pytest.fixture(scope="session")
def content() -> Array:
    return np.random.default_rng(1).random((3, 48, 64), dtype=np.float32)


@pytest.fixture(scope="session")
def style() -> Array:
    return np.random.default_rng(2).random((3, 56, 40), dtype=np.float32)
