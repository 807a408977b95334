"""The JSON of stores and of `--json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from gramlet.json_codec import from_json, plain, to_json, to_line
from gramlet.stylize.types import Preview
from gramlet.train.configuration import Configuration, Entry, HeadKind, Recipe
from gramlet.types import Array


@dataclass(frozen=True)
class Layout:
    coordinates: Array = field(default_factory=lambda: np.array([[0.1, 2.0 / 3.0]], np.float32))
    label: str | None = None


@dataclass(frozen=True)
class Numbers:
    top: Mapping[int, float]
    loss: float


CONFIGURATION = Configuration("bees", (Recipe(kind=HeadKind.LINEAR, stage_rates={"layer4": 0.5}),), (Entry("a", "b"),))


def test_a_dataclass_comes_back_from_the_store_as_it_was() -> None:
    assert from_json(Configuration, to_json(CONFIGURATION)) == CONFIGURATION


def test_unknown_keys_are_ignored_and_missing_ones_take_the_default() -> None:
    assert from_json(Recipe, b'{"epochs": 3, "of a later release": 1}') == Recipe(epochs=3)


def test_numbers_that_are_not_finite_and_keys_that_are_numbers_come_back() -> None:
    report = Numbers({5: 0.5}, math.inf)
    assert from_json(Numbers, to_json(report)) == report


def test_pictures_are_left_out() -> None:
    assert plain(Preview(run_id="r", iteration=3, jpeg=b"file")).keys() == {"run_id", "iteration", "loss"}


def test_none_is_kept_or_left_out_as_asked() -> None:
    assert plain(Recipe())["learning_rate"] is None
    assert "learning_rate" not in plain(Configuration("bees"), keep_none=False)["recipes"][0]


EXACT = [[float(np.float32(0.1)), float(np.float32(2 / 3))]]


@pytest.mark.parametrize(("digits", "expected"), [(5, [[0.1, 0.66667]]), (None, EXACT)])
def test_arrays_are_lists_rounded_as_asked(digits: int | None, expected: object) -> None:
    assert plain(Layout(), digits=digits)["coordinates"] == expected


def test_a_line_of_the_command_line_is_json_that_every_program_reads() -> None:
    line = to_line("iteration", loss=math.nan, kind=HeadKind.MLP, stages=("a",), step=np.int64(3), rate=math.inf)
    strict = json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert strict == {
        "event": "iteration",
        "loss": None,
        "kind": "mlp",
        "stages": ["a"],
        "step": 3,
        "rate": None,
    }
