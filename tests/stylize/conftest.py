"""Two small pictures, and a stylization of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gramlet.feature.types import Style
from gramlet.stylize.types import StylizeSettings
from gramlet.types import Array
from gramlet_server.feature.engine import Engine
from gramlet_server.stylize.plan import Pictures, PreparedStylization
from gramlet_server.stylize.presets import resolve


@pytest.fixture(scope="session")
def content() -> Array:
    return np.random.default_rng(1).random((3, 48, 64), dtype=np.float32)


@pytest.fixture(scope="session")
def style() -> Array:
    return np.random.default_rng(2).random((3, 56, 40), dtype=np.float32)


def prepared_of(engine: Engine, content: Array, style: Array, **settings: Any) -> PreparedStylization:
    """A stylization of 8 iterations from the content; the pictures keep their sizes."""
    complete = resolve(StylizeSettings(**{"iterations": 8, **settings}), engine.model())
    return PreparedStylization(Pictures(content, (Style(style),), content), complete)
