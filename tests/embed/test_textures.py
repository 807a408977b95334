"""Style as Gram matrices measure it is style as people see it: five textures with random contents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gramlet.embed.settings import MapSettings
from gramlet.embed.types import Item, MapStart, StyleMap
from gramlet.types import Resize
from gramlet_server.backbone import load_network
from gramlet_server.embed.runs import Maps
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.store import Store
from PIL import Image, ImageDraw, ImageFilter

TEXTURES = ("stripes", "dots", "bricks", "waves", "speckles")
SIDE = 96
EACH = 14


def textured(texture: str, seed: int) -> np.ndarray:
    """A picture (SIDE, SIDE, 3): a few shapes in random colors at random places, all filled with one texture."""
    random = np.random.default_rng([TEXTURES.index(texture), seed])
    picture = Image.new("RGB", (SIDE, SIDE), _color(random))
    canvas = ImageDraw.Draw(picture)
    for _ in range(4):
        x, y, width, height = random.integers([0, 0, 20, 20], [SIDE, SIDE, 60, 60]).tolist()
        shape = canvas.ellipse if random.random() < 0.5 else canvas.rectangle
        shape((x - width // 2, y - height // 2, x + width // 2, y + height // 2), fill=_color(random))
    light = _pattern(texture, random)[..., None]
    return np.clip(np.asarray(picture.filter(ImageFilter.GaussianBlur(1))) * (0.45 + 0.75 * light), 0, 255).astype(
        np.uint8
    )


def _color(random: np.random.Generator) -> tuple[int, ...]:
    return tuple(random.integers(70, 230, 3).tolist())


def _pattern(texture: str, random: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE) in 0..1, shifted at random."""
    dx, dy = random.integers(0, 40, 2)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    x, y = x + dx, y + dy
    match texture:
        case "stripes":
            return ((x + y) % 8 < 4).astype(float)
        case "dots":
            return (((x % 10 - 5) ** 2 + (y % 10 - 5) ** 2) < 9).astype(float)
        case "bricks":
            return 1.0 - ((y % 8 < 1) | ((x + 8 * (y // 8 % 2)) % 16 < 1))
        case "waves":
            return 0.5 + 0.5 * np.sin((y + 4 * np.sin(x / 6)) / 2.2)
        case _:
            return random.random((SIDE, SIDE))


@pytest.fixture(scope="module")
def real_engine(resnet50_weights: Path) -> Iterator[Engine]:
    engine = Engine(load_network("resnet50", str(resnet50_weights), "cpu"))
    yield engine
    engine.close()


@pytest.mark.weights
def test_the_map_puts_each_texture_together_whatever_shapes_it_fills(real_engine: Engine, tmp_path: Path) -> None:
    items = [
        Item(f"{texture} {seed}", texture, textured(texture, seed)) for texture in TEXTURES for seed in range(EACH)
    ]
    maps = Maps(real_engine, Store.open(str(tmp_path)))
    settings = MapSettings(resize=Resize(), quality_neighbors=5)
    *_, style_map = maps.start(MapStart(settings, count=len(items)), items)
    assert isinstance(style_map, StyleMap)
    accuracy = style_map.layouts[0].quality.label_accuracy
    assert accuracy is not None
    assert accuracy > 0.95
