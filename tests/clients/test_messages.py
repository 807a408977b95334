"""Messages of FeatureService arrive as they were sent; wrong ones name the field."""

from __future__ import annotations

import dataclasses
import math
from enum import Enum
from typing import Any

import numpy as np
import pytest
from gramlet.errors import BY_CODE, GramletError, InvalidInput
from gramlet.feature import objective_wire
from gramlet.feature import wire as feature
from gramlet.feature.types import (
    Evaluation,
    Extraction,
    Features,
    Form,
    GramNormalization,
    Model,
    Objective,
    Stage,
    StageBalance,
    Style,
)
from gramlet.feature.v1 import feature_pb2
from gramlet.stylize import types
from gramlet.stylize import wire as stylize
from gramlet.tensor import wire as tensor
from gramlet.tensor.arrays import encode_tensor
from gramlet.tensor.v1 import picture_pb2
from gramlet.types import ElementType, Picture, Resize, ResizeMode, Timing

RANDOM = np.random.default_rng(0)


PICTURE = RANDOM.random((3, 4, 5), dtype=np.float32)


PIXELS = {"pixels": {"shape": [3, 1, 1], "data": bytes(12)}}


def as_array(picture: Picture, field: str) -> Any:
    assert not isinstance(picture, bytes)
    return picture


def members(kind: type[Enum]) -> list[Any]:
    return list(kind)


@pytest.mark.parametrize("mode", members(ResizeMode))
@pytest.mark.parametrize("normalization", members(GramNormalization))
def test_an_extraction_arrives_as_it_was(mode: ResizeMode, normalization: GramNormalization) -> None:
    extraction = Extraction(
        stages=("conv1", "layer3"),
        forms=tuple(Form),
        gram_normalization=normalization,
        triangle=True,
        element_type=ElementType.BFLOAT16,
        resize=Resize(mode, 0 if mode is ResizeMode.KEEP else 96),
    )
    assert feature.decode_extraction(feature.encode_extraction(extraction)) == extraction


def test_an_extraction_that_leaves_things_unset_has_the_defaults() -> None:
    message = feature_pb2.Extraction(stages=["conv1"], forms=[feature_pb2.Extraction.FORM_GRAM])
    assert feature.decode_extraction(message) == Extraction(("conv1",), (Form.GRAM,))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"stages": []}, "extraction.stages"),
        ({"forms": []}, "extraction.forms"),
        ({"forms": [0]}, "extraction.forms[0]"),
        ({"element_type": 4}, "extraction.element_type"),
        ({"element_type": 9}, "extraction.element_type"),
        ({"resize": {"mode": 1}}, "extraction.resize.size"),
        ({"resize": {"size": 3}}, "extraction.resize.mode"),
    ],
)
def test_a_wrong_extraction_names_the_field(change: dict[str, Any], field: str) -> None:
    message = feature_pb2.Extraction(**{"stages": ["conv1"], "forms": [1]} | change)
    with pytest.raises(InvalidInput) as caught:
        feature.decode_extraction(message)
    assert caught.value.field == field


def test_features_arrive_in_the_forms_asked_for() -> None:
    gram = RANDOM.random((6, 6), dtype=np.float32)
    features = Features({"a": PICTURE}, {"a": gram + gram.T}, {"a": PICTURE[:, 0, 0]}, 8, 9, Timing(0.5, 0.25, 3))
    for triangle in (False, True):
        extraction = Extraction(("a",), tuple(Form), triangle=triangle)
        decoded = feature.decode_outcome(feature.encode_outcome(features, extraction))
        assert isinstance(decoded, Features)
        assert np.array_equal(decoded.activations["a"], PICTURE)
        assert np.array_equal(decoded.grams["a"], gram + gram.T)
        assert np.array_equal(decoded.pooled["a"], PICTURE[:, 0, 0])
        assert (decoded.height, decoded.width, decoded.timing) == (8, 9, features.timing)


def test_features_too_large_for_float16_are_one_pictures_error() -> None:
    features = Features({}, {"a": np.full((2, 2), 1e6, np.float32)}, {}, 8, 8)
    extraction = Extraction(("a",), (Form.GRAM,), element_type=ElementType.FLOAT16)
    outcome = feature.decode_outcome(feature.encode_outcome(features, extraction))
    assert isinstance(outcome, InvalidInput)
    assert outcome.field == "extraction.element_type"


@pytest.mark.parametrize("kind", BY_CODE.values())
def test_the_error_of_one_picture_arrives_as_the_error_it_was(kind: type[GramletError]) -> None:
    decoded = tensor.decode_picture_error(tensor.encode_picture_error(kind("too dark", field="pictures[3]")))
    assert type(decoded) is kind
    assert (decoded.message, decoded.field) == ("too dark", "pictures[3]")


@pytest.mark.parametrize("picture", [b"\xff\xd8", PICTURE, np.zeros((4, 5, 3), np.uint8)])
def test_a_picture_arrives_as_it_was(picture: Picture) -> None:
    decoded = tensor.decode_picture(tensor.encode_picture(picture))
    assert type(decoded) is type(picture)
    assert np.array_equal(decoded, picture)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 5), np.float32),
        np.zeros((4, 5, 3), np.float32),
        np.full((3, 4, 5), math.nan, np.float32),
        np.full((3, 4, 5), math.inf, np.float32),
    ],
)
def test_pixels_that_are_no_picture_are_refused(pixels: Any) -> None:
    message = picture_pb2.Picture(pixels=encode_tensor(pixels))
    with pytest.raises(InvalidInput) as caught:
        tensor.decode_picture(message, "pictures[2]")
    assert caught.value.field == "pictures[2].pixels"


def test_no_picture_at_all_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no picture"):
        tensor.decode_picture(picture_pb2.Picture())


def test_an_objective_arrives_as_it_was() -> None:
    objective = Objective(
        content=PICTURE,
        content_stage="layer2",
        content_weight=1.5,
        styles=(Style(PICTURE, content_region=PICTURE[0]), Style(PICTURE * 0.5, 0.0, style_region=PICTURE[1])),
        style_stages={"conv1": 0.25, "layer1": 4.0},
        style_weight=1e3,
        total_variation_weight=0.5,
        gram_normalization=GramNormalization.POSITIONS,
        stage_balance=StageBalance.CONTENT,
        antialiased=True,
        reduced_precision=True,
    )
    decoded = objective_wire.decode_objective(objective_wire.encode_objective(objective), as_array, as_array)
    for name in ("content",):
        assert np.array_equal(getattr(decoded, name), getattr(objective, name))
    for one, other in zip(decoded.styles, objective.styles, strict=True):
        assert np.array_equal(one.picture, other.picture)
        assert one.weight == other.weight
        for mask in ("content_region", "style_region"):
            np.testing.assert_array_equal(getattr(one, mask), getattr(other, mask))
    empty: dict[str, Any] = {"content": None, "styles": ()}
    assert dataclasses.replace(decoded, **empty) == dataclasses.replace(objective, **empty)


def test_an_objective_without_content_has_none() -> None:
    message = objective_wire.encode_objective(Objective(styles=(Style(PICTURE),)))
    decoded = objective_wire.decode_objective(message, as_array, as_array)
    assert decoded.content is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"content_weight": -1.0}, "objective.content_weight"),
        ({"style_weight": math.nan}, "objective.style_weight"),
        ({"total_variation_weight": math.inf}, "objective.total_variation_weight"),
        ({"style_stages": [{"stage": "a", "weight": -1}]}, "objective.style_stages[0].weight"),
        ({"style_stages": [{"stage": "a"}, {"stage": "a"}]}, "objective.style_stages[1].stage"),
        ({"styles": [{"weight": 1}]}, "objective.styles[0].picture"),
        ({"styles": [{"picture": PIXELS, "style_region": {}}]}, "objective.styles[0].style_region"),
        ({"content": {}}, "objective.content"),
    ],
)
def test_a_wrong_objective_names_the_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        objective_wire.decode_objective(feature_pb2.Objective(**change), as_array, as_array)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("encode", "decode", "value"),
    [
        (
            feature.encode_model,
            feature.decode_model,
            Model("b", "d", "s", "cpu", "float32", (Stage("conv1", 64, 2),), server_version="1"),
        ),
        (
            stylize.encode_status,
            stylize.decode_status,
            types.StylizeStatus(1, 2, 3, 4, ("default",), "in-process", "1", (types.StylizeSettings(size=64),)),
        ),
    ],
)
def test_descriptions_arrive_as_they_were(encode: Any, decode: Any, value: Any) -> None:
    assert decode(encode(value)) == value


@pytest.mark.parametrize("element_type", [ElementType.FLOAT32, ElementType.BFLOAT16])
def test_an_evaluation_arrives_with_its_gradient(element_type: ElementType) -> None:
    evaluation = Evaluation(3.0, 1.0, 1.5, 0.5, {"conv1": 1.0}, np.full((3, 2, 2), 0.5, np.float32), Timing(1, 2))
    message = objective_wire.encode_evaluation(evaluation, 7, element_type)
    assert message.evaluation.sequence == 7
    decoded = objective_wire.decode_evaluation(message.evaluation)
    assert np.array_equal(decoded.gradient, evaluation.gradient)
    assert dataclasses.replace(decoded, gradient=PICTURE) == dataclasses.replace(evaluation, gradient=PICTURE)
