"""The content's colors are kept: exactly if only the luminance is transferred, nearly if the style is recolored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gramlet.feature.types import Evaluation, PictureStyle
from gramlet.stylize.types import Colors, Initial, Iteration, Result, Stylization, StylizeSettings
from gramlet.types import Array, Limits, Resize
from gramlet_server.feature.canvas import LuminanceOnly
from gramlet_server.feature.engine import Engine
from gramlet_server.pictures.prepare import prepare
from gramlet_server.stylize.colors import luminance, match_colors, match_luminance
from gramlet_server.stylize.plan import Position, PreparedStylization
from gramlet_server.stylize.prepare import prepare_stylization
from gramlet_server.stylize.stylization import Control, stylize


@pytest.fixture(scope="module")
def green() -> Array:
    return textured((0.35, 0.5, 0.4), 1)


@pytest.fixture(scope="module")
def orange() -> Array:
    return textured((0.7, 0.45, 0.25), 8)


def textured(color: tuple[float, float, float], block: int) -> Array:
    """(3, 48, 64): blocks around a color."""
    blocks = np.random.default_rng(block).normal(0, 0.08, (3, 48 // block, 64 // block)).astype(np.float32)
    return (np.float32(color)[:, None, None] + np.kron(blocks, np.ones((block, block), np.float32))).clip(0, 1)


def chroma(picture: Array) -> Array:
    """Each channel minus the luminance: I and Q of YIQ are made of these."""
    return picture - luminance(picture)


def prepared_of(engine: Engine, content: Array, style: Array, colors: Colors, **settings: Any) -> PreparedStylization:
    chosen = StylizeSettings(**{"size": 64, "iterations": 6, "antialiased": False, "colors": colors, **settings})
    return prepare_stylization(Stylization(content, (PictureStyle(style),), chosen), engine, Limits())


def painted(prepared: PreparedStylization, engine: Engine) -> Array:
    *_, result = stylize(prepared, engine)
    assert isinstance(result, Result)
    return prepare(result.png, Resize(), Limits())


def test_matched_colors_have_the_mean_and_covariance_of_the_others(green: Array, orange: Array) -> None:
    pixels, wanted = match_colors(orange, green).reshape(3, -1), green.reshape(3, -1)
    assert pixels.mean(1) == pytest.approx(wanted.mean(1), abs=1e-3)
    assert np.cov(pixels) == pytest.approx(np.cov(wanted), abs=1e-4)


def test_matched_luminances_have_the_mean_and_deviation_of_the_others(green: Array, orange: Array) -> None:
    matched = match_luminance(orange, green)
    assert (matched == matched[:1]).all()
    assert matched.mean() == pytest.approx(luminance(green).mean(), abs=1e-3)
    assert matched.std() == pytest.approx(luminance(green).std(), rel=0.01)


def test_with_luminance_only_every_pixel_keeps_its_chroma(engine: Engine, green: Array, orange: Array) -> None:
    picture = painted(prepared_of(engine, green, orange, Colors.CONTENT_LUMINANCE), engine)
    assert np.abs(luminance(picture) - luminance(green)).mean() > 0.01  # it was painted
    assert chroma(picture) == pytest.approx(chroma(green), abs=2.5 / 255)


def test_the_network_sees_only_gray_pictures(engine: Engine, green: Array, orange: Array) -> None:
    prepared = prepared_of(engine, green, orange, Colors.CONTENT_LUMINANCE, initial=Initial.STYLE)
    objective = prepared.objective()
    assert np.ptp(objective.styles[0].picture, axis=0).max() == 0
    gray = replace(objective, content=gray_of(green))
    with engine.differentiate(gray) as differentiation:
        expected = differentiation.evaluate(gray_of(prepared.pictures.initial))
    first = next(event for event in stylize(prepared, engine) if isinstance(event, Iteration))
    assert first.loss == pytest.approx(expected.loss)
    assert first.content_loss == pytest.approx(expected.content_loss)


def gray_of(picture: Array) -> Array:
    return np.repeat(luminance(picture), 3, axis=0)


def test_with_a_recolored_style_the_result_has_nearly_the_contents_colors(
    engine: Engine, green: Array, orange: Array
) -> None:
    def distance(colors: Colors) -> float:
        how = {"initial": Initial.NOISE, "iterations": 12, "style_stages": {"conv1": 1.0}, "content_weight": 0.0}
        picture = painted(prepared_of(engine, green, orange, colors, **how), engine)
        return float(np.abs(chroma(picture).mean((1, 2)) - chroma(green).mean((1, 2))).max())

    assert distance(Colors.CONTENT_HISTOGRAM) < 0.02 < 0.05 < distance(Colors.STYLE)


def test_the_gradient_is_that_of_the_luminance(engine: Engine, green: Array, orange: Array) -> None:
    prepared = prepared_of(engine, green, orange, Colors.CONTENT_LUMINANCE)
    objective = replace(prepared.objective(), content=gray_of(green))
    canvas, start = LuminanceOnly(torch.tensor(green)), torch.tensor(luminance(orange))
    with engine.differentiate(objective) as differentiation:

        def evaluate(point: torch.Tensor) -> Evaluation:
            return differentiation.evaluate(canvas.seen(point).numpy())

        gradient = canvas.gradient(torch.tensor(evaluate(start).gradient))
        length = float(gradient.norm())
        step = gradient * (0.01 / length)
        assert evaluate(start + step).loss - evaluate(start - step).loss == pytest.approx(0.02 * length, rel=0.02)


def test_a_run_in_luminance_resumes_at_the_same_bits(engine: Engine, green: Array, orange: Array) -> None:
    prepared = prepared_of(engine, green, orange, Colors.CONTENT_LUMINANCE, scales=2)
    saves: list[Position] = []
    *_, whole = stylize(prepared, engine, Control(saves.append, state_seconds=1e-9))
    again = prepared_of(engine, green, orange, Colors.CONTENT_LUMINANCE, scales=2)
    *_, resumed = stylize(again, engine, position=saves[0])
    assert resumed.png == whole.png  # type: ignore[attr-defined]
