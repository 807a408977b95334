"""A painted frame is moved as its content moves; new content starts unpainted."""

from __future__ import annotations

import numpy as np
from gramlet.feature.types import PictureStyle
from gramlet.stylize.types import Initial, Stylization, StylizeSettings
from gramlet.types import Array, Limits
from gramlet_server.feature.engine import Engine
from gramlet_server.stylize.motion import carry_along
from gramlet_server.stylize.prepare import prepare_stylization
from PIL import Image


def panorama(seed: int) -> Array:
    """(3, 64, 112), smooth."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 14, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((112, 64), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)


def window(wide: Array, left: int) -> Array:
    return np.ascontiguousarray(wide[:, :, left : left + 96])


def test_a_pan_carries_the_painting_along() -> None:
    content, painting = panorama(1), panorama(2)
    before, after, painted = window(content, 0), window(content, 5), window(painting, 0)
    carried = carry_along(painted, before, after)
    inner = np.s_[:, 8:-8, 8:-16]
    expected = window(painting, 5)[inner]
    still = np.abs(painted[inner] - expected).mean()
    assert np.abs(carried[inner] - expected).mean() < 0.25 * still


def test_what_appears_starts_from_the_content() -> None:
    content, painting = panorama(1), panorama(2)
    before, after = window(content, 0), window(content, 5)
    carried = carry_along(window(painting, 0), before, after)
    assert np.abs(carried[:, :, -3:] - after[:, :, -3:]).mean() < 0.02
    another = window(panorama(7), 0)
    cut = carry_along(window(painting, 0), before, another)
    assert np.abs(cut - another).mean() < np.abs(cut - window(painting, 0)).mean() / 2


def test_where_nothing_moves_the_painting_stays() -> None:
    frame, painted = window(panorama(1), 0), window(panorama(2), 0)
    np.testing.assert_allclose(carry_along(painted, frame, frame), painted, atol=1e-3)


def test_a_run_starts_from_the_painting_carried_along(engine: Engine) -> None:
    content, painting = panorama(1), panorama(2)
    before, after, painted = window(content, 0), window(content, 5), window(painting, 0)
    settings = StylizeSettings(size=96, initial=Initial.GIVEN)
    order = Stylization(after, (PictureStyle(painting),), settings, painted, before)
    np.testing.assert_array_equal(
        prepare_stylization(order, engine, Limits()).pictures.initial, carry_along(painted, before, after)
    )
