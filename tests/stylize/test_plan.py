"""A run's iterations are divided among its scales; its pictures are resampled once, and stored as sent."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from gramlet.feature.types import Style
from gramlet.stylize.types import Stylization, StylizeSettings
from gramlet.types import Array
from gramlet_server.feature.engine import Engine
from gramlet_server.stylize.orders import pictures_from_bytes, pictures_to_bytes
from gramlet_server.stylize.plan import PreparedStylization

from .conftest import prepared_of


def plan(prepared: PreparedStylization, mixed: bool = False) -> list[tuple[float, int, bool]]:
    return [(scale.factor, scale.end, scale.reduced_precision) for scale in prepared.scales(mixed)]


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        (512, [(0.125, 40, False), (0.25, 70, False), (0.5, 90, False), (1.0, 100, False)]),
        (200, [(0.5, 67, False), (1.0, 100, False)]),  # a scale of 50 pixels is left out
        (60, [(1.0, 100, False)]),
    ],
)
def test_the_coarser_the_scale_the_more_iterations(
    engine: Engine, style: Array, longest: int, expected: list[tuple[float, int, bool]]
) -> None:
    prepared = prepared_of(engine, np.zeros((3, 48, longest), np.float32), style, iterations=100, scales=4)
    assert plan(prepared) == expected


def test_coarse_scales_are_all_in_reduced_precision(engine: Engine, style: Array) -> None:
    prepared = prepared_of(engine, np.zeros((3, 256, 128), np.float32), style, scales=2, iterations=10)
    assert plan(prepared, mixed=True) == [(0.5, 7, True), (1.0, 9, True), (1.0, 10, False)]
    assert plan(prepared) == [(0.5, 7, False), (1.0, 10, False)]


def test_the_pictures_of_a_scale_are_made_once(engine: Engine, style: Array) -> None:
    large = np.random.default_rng(3).random((3, 128, 128), dtype=np.float32)
    prepared = prepared_of(engine, large, style, scales=2)
    coarse = prepared.scales()[0].pictures
    assert coarse.content.shape == (3, 64, 64)
    assert coarse.initial is coarse.content
    assert prepared.scales()[0].pictures is coarse
    heavier = dataclasses.replace(prepared, settings=dataclasses.replace(prepared.settings, content_weight=9.0))
    assert heavier.objective(0.5).content is coarse.content


def test_pictures_are_stored_as_they_were_sent(content: Array, style: Array) -> None:
    file, mask = b"a file", np.eye(48, 64, dtype=np.float32)
    pixels = np.zeros((4, 5, 3), np.uint8)
    styles = (Style(file, 2.5, mask, file), Style(style))
    sent = Stylization(content, styles, StylizeSettings(size=64), initial=pixels, previous_content=file)
    again = pictures_from_bytes(pictures_to_bytes(sent), sent.settings)
    assert (again.settings, again.previous_content) == (sent.settings, file)
    np.testing.assert_array_equal(again.content, content)
    np.testing.assert_array_equal(again.initial, pixels)
    first, second = again.styles
    assert (first.picture, first.weight, first.style_region, second.weight) == (file, 2.5, file, 1.0)
    np.testing.assert_array_equal(first.content_region, mask)
    np.testing.assert_array_equal(second.picture, style)
    assert (second.content_region, second.style_region) == (None, None)
    small = pictures_from_bytes(pictures_to_bytes(Stylization(file, (Style(file),))), StylizeSettings())
    assert small == Stylization(file, (Style(file),))
