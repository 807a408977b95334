"""The size of the style pictures is a setting, and determines the size of the strokes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gramlet.errors import InvalidInput
from gramlet.feature.types import PictureStyle, StageBalance
from gramlet.stylize.types import Initial, Result, Stylization, StylizeSettings
from gramlet.types import Array, Limits, Resize, ResizeMode
from gramlet_server.feature.engine import Engine
from gramlet_server.pictures.prepare import prepare
from gramlet_server.stylize.colors import luminance
from gramlet_server.stylize.plan import PreparedStylization
from gramlet_server.stylize.prepare import prepare_stylization
from gramlet_server.stylize.stylization import stylize

STAGES = {"conv1": 1.0, "maxpool": 1.0, "layer1": 1.0}


def prepared_of(engine: Engine, content: Array, style: Array, **settings: Any) -> PreparedStylization:
    return prepare_stylization(
        Stylization(content, (PictureStyle(style),), StylizeSettings(size=64, **settings)), engine, Limits()
    )


def test_the_target_is_the_style_at_its_own_size(engine: Engine, content: Array, style: Array) -> None:
    prepared = prepared_of(engine, content, style, style_size=96, content_weight=0.0)
    seen = prepare(style, Resize(ResizeMode.LONGEST_SIDE, 96), Limits())
    at_content_size = prepare(style, Resize(ResizeMode.LONGEST_SIDE, 64), Limits())
    with engine.differentiate(prepared.objective()) as differentiation:
        assert differentiation.evaluate(seen).style_loss < 1e-6
        assert differentiation.evaluate(at_content_size).style_loss > 1e-2


def test_coarse_scales_reduce_the_style_as_well(engine: Engine, content: Array, style: Array) -> None:
    prepared = prepared_of(engine, content, style, style_size=128)
    assert [max(prepared.objective(factor).styles[0].picture.shape) for factor in (1.0, 0.5)] == [128, 64]


def test_a_style_has_the_contents_size_by_default(engine: Engine, content: Array, style: Array) -> None:
    assert max(prepared_of(engine, content, style).pictures.styles[0].picture.shape) == 64


def test_raw_grams_allow_no_size_but_the_contents(engine: Engine, content: Array, style: Array) -> None:
    with pytest.raises(InvalidInput, match="gram_normalization") as error:
        prepared_of(engine, content, style, preset="classic", style_size=96)
    assert error.value.field == "settings.style_size"


def test_a_larger_style_makes_larger_strokes(engine: Engine) -> None:
    stripes = np.tile(np.float32([0, 0, 0, 0, 1, 1, 1, 1]), (3, 64, 8))
    blank = np.full_like(stripes, 0.5)

    def period(style_size: int) -> float:
        """The period in pixels of the strongest wave in stripes that were painted from noise."""
        wanted = {"style_stages": STAGES, "stage_balance": StageBalance.NONE, "content_weight": 0.0}
        how = {"initial": Initial.NOISE, "scales": 1, "iterations": 12}
        *_, result = stylize(prepared_of(engine, blank, stripes, style_size=style_size, **wanted, **how), engine)
        assert isinstance(result, Result)
        painted = luminance(prepare(result.png, Resize(), Limits()))[0]
        power = np.abs(np.fft.fft2(painted - painted.mean()))
        frequencies = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
        return float(1 / frequencies.flat[power.argmax()])

    assert period(128) > 2 * period(32)
