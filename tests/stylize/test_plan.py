"""A run's iterations are divided among its scales; its pictures are resampled once and survive the store."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from gramlet.feature.types import Style
from gramlet.types import Array
from gramlet_server.feature.engine import Engine
from gramlet_server.stylize.plan import Pictures, PreparedStylization

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


def test_pictures_survive_the_store_bit_by_bit(content: Array, style: Array) -> None:
    region, part = np.eye(48, 64, dtype=np.float32), np.eye(56, 40, dtype=np.float32)
    pictures = Pictures(content, (Style(style, 2.5, region, part), Style(style[:, ::2])), content[:, ::-1])
    again = Pictures.from_bytes(pictures.to_bytes())
    np.testing.assert_array_equal(again.content, pictures.content)
    np.testing.assert_array_equal(again.initial, pictures.initial)
    for found, expected in zip(again.styles, pictures.styles, strict=True):
        assert found.weight == expected.weight
        np.testing.assert_array_equal(found.picture, expected.picture)
    np.testing.assert_array_equal(again.styles[0].content_region, region)
    np.testing.assert_array_equal(again.styles[0].style_region, part)
    assert (again.styles[1].content_region, again.styles[1].style_region) == (None, None)


def test_an_initial_picture_that_is_the_content_is_stored_once(content: Array, style: Array) -> None:
    pictures = Pictures(content, (Style(style),), content)
    again = Pictures.from_bytes(pictures.to_bytes())
    assert again.initial is again.content
    assert len(pictures.to_bytes()) < len(Pictures(content, (Style(style),), content.copy()).to_bytes())
