"""Options, settings, styles and names are taken in any type that is clear; a wrong one is named."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import gramlet
import numpy as np
import pytest
import torch
from gramlet.embed.inputs import make_settings, read_items
from gramlet.embed.settings import Method
from gramlet.errors import InvalidInput, NotFound
from gramlet.feature.inputs import make_extraction
from gramlet.feature.types import Form, GramNormalization, Style
from gramlet.inputs.values import seconds
from gramlet.stylize.inputs import make_stylization
from gramlet.stylize.types import Initial, Optimizer
from gramlet.train.configuration import HeadKind, Recipe
from gramlet.train.inputs import TrainOptions, make_order, make_recipe, read_labelled
from gramlet.types import Resize, ResizeMode


def test_styles_are_given_in_many_ways(png: bytes) -> None:
    style: Style[Any] = Style(png, 2.0, style_region=png)
    assert make_stylization(png, style, None, {}).styles == (style,)
    assert make_stylization(png, [png, (png, 3.0), style], None, {}).styles == (Style(png), Style(png, 3.0), style)
    with pytest.raises(NotFound) as caught:
        make_stylization(png, [Style("/nowhere.jpg")], None, {})
    assert caught.value.field == "style[0]"


def test_activations_are_left_out_where_something_else_is_asked_for() -> None:
    assert make_extraction(stages="conv1").forms == (Form.ACTIVATIONS,)
    assert make_extraction(stages="conv1", gram=True).forms == (Form.GRAM,)
    assert make_extraction(stages=["conv1"], gram=True, activations=True, pooled=True).forms == tuple(Form)


def test_options_are_given_by_value_or_member() -> None:
    extraction = make_extraction(stages=["a"], gram=True, gram_normalization="positions", resize=64)
    assert extraction.gram_normalization is GramNormalization.POSITIONS
    assert extraction.resize == Resize(ResizeMode.LONGEST_SIDE, 64)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"stages": []}, "stages"),
        ({"stages": "a", "activations": False}, "forms"),
        ({"stages": "a", "gram_normalization": "no"}, "gram_normalization"),
        ({"stages": "a", "element_type": "float64"}, "element_type"),
    ],
)
def test_a_wrong_option_of_extraction_is_named(options: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_extraction(**options)
    assert caught.value.field == field


def test_styles_come_alone_or_several_or_with_shares(png: bytes, pixels: Any) -> None:
    def shares(style: Any) -> list[float]:
        return [one.weight for one in make_stylization(png, style, None, {}).styles]

    assert shares(png) == [1.0]
    assert shares([png, pixels]) == [1.0, 1.0]
    assert shares([(png, 2.0), pixels]) == [2.0, 1.0]


@pytest.mark.parametrize(
    ("initial", "expected"),
    [(None, None), ("noise", Initial.NOISE), ("content", Initial.CONTENT), (Initial.STYLE, Initial.STYLE)],
)
def test_the_start_is_a_word(png: bytes, initial: Any, expected: Initial | None) -> None:
    assert make_stylization(png, png, initial, {}).settings.initial is expected


def test_the_start_is_a_picture(png: bytes, picture: Path) -> None:
    stylization = make_stylization(png, png, picture, {})
    assert stylization.settings.initial is Initial.GIVEN
    assert stylization.initial == png


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": 0}, "size"),
        ({"iterations": -1}, "iterations"),
        ({"seed": -1}, "seed"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"line_search": "golden"}, "line_search"),
    ],
)
def test_a_wrong_setting_is_named(png: bytes, options: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_stylization(png, png, None, options)
    assert caught.value.field == field


def test_settings_take_names_of_stages_and_of_members(png: bytes) -> None:
    settings = make_stylization(
        png, png, None, {"style_stages": ["a", "b"], "optimizer": "adam", "size": None}
    ).settings
    assert settings.style_stages == {"a": 1.0, "b": 1.0}
    assert settings.optimizer is Optimizer.ADAM


def test_an_unknown_setting_is_named_with_the_one_that_is_like_it(png: bytes) -> None:
    for make in (
        lambda: make_stylization(png, png, None, {"itterations": 3}),  # type: ignore[typeddict-unknown-key]
        lambda: make_settings({"itterations": 3}),  # type: ignore[typeddict-unknown-key]
        lambda: make_extraction(stages="a", resise=3),  # type: ignore[call-arg]
        lambda: make_recipe({"epoch": 3}),
    ):
        with pytest.raises(InvalidInput, match=r"there is no such option: did you mean '(iterations|resize|epochs)'"):
            make()


@pytest.mark.parametrize("start", ["contnet", "nois"])
def test_a_misspelled_start_is_named_with_the_one_that_is_like_it(png: bytes, start: str) -> None:
    with pytest.raises(NotFound, match=f"there is no file {start}: did you mean '(content|noise)'"):
        make_stylization(png, png, start, {})


@pytest.mark.parametrize("value", [64, 64.0, np.int64(64), np.float32(64), np.array(64), torch.tensor(64)])
def test_a_whole_number_may_be_of_any_type(png: bytes, value: Any) -> None:
    size = make_stylization(png, png, None, {"size": value}).settings.size
    assert (size, type(size)) == (64, int)


@pytest.mark.parametrize("value", [64.5, "64", (64, 64), True, float("nan"), 2**32, None.__class__, b"64", -1])
def test_what_is_not_a_whole_number_is_refused_by_its_name(png: bytes, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_stylization(png, png, None, {"size": value})
    assert caught.value.field == "size"


def test_a_seed_keeps_all_of_its_64_bits(png: bytes) -> None:
    assert make_stylization(png, png, None, {"seed": 2**64 - 1}).settings.seed == 2**64 - 1


def test_recipes_and_maps_take_the_same_types() -> None:
    recipe = make_recipe(
        {"epochs": 3.0, "stages": "layer4", "stage_rates": {"layer4": np.float64(0.5)}, "kind": "linear"}
    )
    assert recipe == Recipe(HeadKind.LINEAR, epochs=3, stages=("layer4",), stage_rates={"layer4": 0.5})
    settings = make_settings({"perplexity": 5, "resize": np.int64(96), "method": "pca"})
    assert (settings.tsne.perplexities, settings.resize.size, settings.method) == ((5.0,), 96, Method.PCA)
    for wrong in ({"calibrate": "no"}, {"stage_rates": [0.5]}, {"schedule": 3}):
        with pytest.raises(InvalidInput) as caught:
            make_recipe(wrong)
        assert caught.value.field == next(iter(wrong))


def test_without_a_setting_of_a_recipe_two_kinds_are_compared(png: bytes) -> None:
    def recipes(**options: Any) -> tuple[Recipe, ...]:
        pictures = {"a": [png], "b": [png]}
        order, _ = make_order(pictures, "n", None, TrainOptions(**options), on_server=False, run_id=None)
        assert order.configuration is not None
        return order.configuration.recipes

    assert recipes() == recipes(size=64) == (Recipe(), Recipe(kind=HeadKind.LOGISTIC))
    assert recipes(epochs=3) == (Recipe(epochs=3),)


@pytest.mark.parametrize("kind", [gramlet.Client, gramlet.AsyncClient])
def test_arguments_that_do_not_exist_are_answered_with_those_that_do(kind: Any) -> None:
    client = kind("localhost:1")
    for call, message in {
        lambda: kind("localhost:1", tokn="x"): "tokn: there is no such argument: did you mean 'token'?",
        lambda: client.with_options(timeot=3): "timeot: there is no such argument: did you mean 'timeout'?",
        lambda: client.predict("bees", "a.jpg", topk=3): "topk: there is no such argument: did you mean 'top_k'?",
        lambda: client.stylize("a.jpg"): "stylize: missing a required argument: 'style'",
        lambda: Style(pictur="a.jpg"): "pictur: there is no such argument: did you mean 'picture'?",
    }.items():
        with pytest.raises(gramlet.InvalidCall) as caught:
            call()
        assert str(caught.value) == message
        assert isinstance(caught.value, TypeError)


def test_sets_are_named_as_people_write_them_and_misspelt_ones_are_refused(png: bytes) -> None:
    sets = ["Val", "TRAIN ", "validation", "Test", "holdout", "test2"]
    entries = read_labelled([(png, "a", name) for name in sets]).entries
    assert [entry.set for entry in entries] == ["val", "train", "val", "test", "holdout", "test2"]
    with pytest.raises(InvalidInput, match=r"pictures\[0\]\.set: 'trian' is no usual set: did you mean 'train'\?"):
        read_labelled([(png, "a", "trian")])


@pytest.mark.parametrize("names", [("Ant", "ant"), ("ant", "ant "), ("\u00e4", "a\u0308"), ("new york", "newyork")])
def test_classes_that_look_alike_are_warned_about(png: bytes, names: tuple[str, str]) -> None:
    for read in (lambda: read_labelled({name: [png] for name in names}), lambda: read_items([png, png], names)):
        with pytest.warns(UserWarning, match="look alike: are they one?"):
            read()


def test_labels_that_are_arrays_are_refused_and_empty_cells_are_none(png: bytes) -> None:
    for wrong in (np.zeros(0), np.zeros(2), np.zeros((1, 0), bool)):
        with pytest.raises(InvalidInput, match="a label is text or a number"):
            read_items([png], [wrong])
    assert [item.label for item in read_items([png] * 3, [None, np.nan, np.float64("nan")])] == ["", "", ""]


def test_vectors_of_one_number_and_numbers_that_are_too_large_are_answered() -> None:
    with pytest.raises(InvalidInput, match=r"vectors are numbers .* for N vectors of one"):
        read_items(np.arange(5.0))
    with pytest.raises(InvalidInput, match="there are no items"):
        read_items([])
    first, second = read_items(np.array([[1e300], [1.0]]))  # without a warning of NumPy
    assert first.error is not None
    assert first.error.message == "its numbers are beyond 3.4e38, the largest of float32: scale them"
    assert second.vector == [1.0]


def test_a_time_may_be_a_timedelta() -> None:
    assert seconds(timedelta(minutes=1), "timeout") == 60
