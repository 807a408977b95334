from __future__ import annotations

import dataclasses
import math
from enum import Enum
from typing import Any

import numpy as np
import pytest
from gramlet.errors import GramletError, InvalidInput
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
    PictureStyle,
    Stage,
    StageBalance,
    Style,
)
from gramlet.feature.v1 import feature_pb2
from gramlet.stylize import types
from gramlet.stylize import wire as stylize
from gramlet.stylize.types import Colors, Initial, LineSearch, Optimizer, Stylization, StylizeOrder, StylizeSettings
from gramlet.stylize.v1 import stylize_pb2
from gramlet.tensor import wire as tensor
from gramlet.tensor.arrays import encode_tensor
from gramlet.tensor.v1 import picture_pb2
from gramlet.transport.failures import BY_CODE
from gramlet.types import ElementType, Picture, Resize, ResizeMode, Timing

RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.random((3, 4, 5), dtype=np.float32)
ALL_SETTINGS = StylizeSettings(
    preset="classic",
    size=64,
    iterations=7,
    content_stage="layer2",
    style_stages={"conv1": 0.5, "layer1": 2.0},
    content_weight=0.0,
    style_weight=1e6,
    total_variation_weight=0.1,
    gram_normalization=GramNormalization.ELEMENTS,
    stage_balance=StageBalance.CONTENT,
    initial=Initial.NOISE,
    seed=0,
    optimizer=Optimizer.ADAM,
    learning_rate=0.02,
    history_size=9,
    line_search=LineSearch.STRONG_WOLFE,
    antialiased=True,
    scales=3,
    style_size=96,
    colors=Colors.CONTENT_LUMINANCE,
)


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


@pytest.mark.parametrize("settings", [StylizeSettings(), ALL_SETTINGS])
def test_settings_arrive_as_they_were(settings: StylizeSettings) -> None:
    assert stylize.decode_settings(stylize.encode_settings(settings)) == settings


@pytest.mark.parametrize(
    "name", ["initial", "optimizer", "line_search", "gram_normalization", "stage_balance", "colors"]
)
def test_every_member_of_a_setting_arrives(name: str) -> None:
    kinds = {"initial": Initial, "optimizer": Optimizer, "line_search": LineSearch}
    kinds |= {"gram_normalization": GramNormalization, "stage_balance": StageBalance, "colors": Colors}
    for member in kinds[name]:
        settings = StylizeSettings(**{name: member})
        assert stylize.decode_settings(stylize.encode_settings(settings)) == settings


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"size": 0}, "settings.size"),
        ({"iterations": 0}, "settings.iterations"),
        ({"history_size": 0}, "settings.history_size"),
        ({"style_size": 0}, "settings.style_size"),
        ({"learning_rate": 0.0}, "settings.learning_rate"),
        ({"learning_rate": math.nan}, "settings.learning_rate"),
        ({"content_weight": -1.0}, "settings.content_weight"),
    ],
)
def test_a_wrong_setting_names_the_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        stylize.decode_settings(stylize_pb2.Settings(**change))
    assert caught.value.field == field


def test_an_order_arrives_as_it_was() -> None:
    styles = (PictureStyle(b"one", 2.0, b"here", b"this"), PictureStyle(b"two"))
    new = StylizeOrder(Stylization(b"content", styles, ALL_SETTINGS), run_id="a-b_9", preview_every=3)
    resumed = StylizeOrder(resume_run_id="run", state_seconds=0.0)
    for order in (new, resumed):
        assert stylize.decode_order(stylize.encode_order(order)) == order


def test_a_given_start_arrives_with_its_picture() -> None:
    settings = StylizeSettings(initial=Initial.GIVEN)
    order = StylizeOrder(Stylization(b"content", (PictureStyle(b"style"),), settings, b"start", b"previous"))
    assert stylize.decode_order(stylize.encode_order(order)) == order


GOOD = stylize_pb2.Stylization(content={"encoded": b"c"}, styles=[{"picture": {"encoded": b"s"}}])  # type: ignore[arg-type,list-item]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (stylize_pb2.StylizeRequest(), "start"),
        (stylize_pb2.StylizeRequest(resume_run_id="../etc"), "resume_run_id"),
        (stylize_pb2.StylizeRequest(stylization=GOOD, run_id="x" * 65), "run_id"),
        (stylize_pb2.StylizeRequest(stylization=stylize_pb2.Stylization()), "stylization.styles"),
        (
            stylize_pb2.StylizeRequest(stylization=stylize_pb2.Stylization(styles=GOOD.styles)),
            "stylization.content",
        ),
        (
            stylize_pb2.StylizeRequest(
                stylization=stylize_pb2.Stylization(
                    content=GOOD.content,
                    styles=GOOD.styles,
                    settings=stylize_pb2.Settings(initial=4),  # type: ignore[arg-type]
                )
            ),
            "stylization.initial",
        ),
    ],
)
def test_a_wrong_order_names_the_field(request_: stylize_pb2.StylizeRequest, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        stylize.decode_order(request_)
    assert caught.value.field == field


EVENTS = [
    types.Queued(run_id="r", position=0),
    types.Started(run_id="r", iteration=5, height=4, width=3, settings=ALL_SETTINGS, backbone="b", weights_digest="d"),
    types.ScaleStarted(run_id="r", iteration=5, height=4, width=3),
    types.Iteration(
        run_id="r",
        iteration=6,
        loss=1.0,
        style_loss=0.5,
        content_loss=0.25,
        total_variation_loss=0.125,
        stage_losses={"conv1": 2.0},
        evaluations=8,
        timing=Timing(1.0, 2.0, 3),
    ),
    types.Preview(run_id="r", iteration=6, jpeg=b"jpeg"),
    types.Checkpoint(run_id="r", iteration=6),
    types.Recovered(run_id="r", iteration=7, reason=types.RecoveryReason.DIVERGED, message="why"),
    types.Adjusted(run_id="r", iteration=8, settings=ALL_SETTINGS, number=2),
    types.RemoteProgress(run_id="r", iteration=3, loss=0.5, total=9),
    types.Result(run_id="r", iteration=9, loss=1.0, png=b"png", style_loss=0.5, content_loss=0.25, timing=Timing(0.5)),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_arrives_as_it_was(event: types.StylizeEvent) -> None:
    decoded = stylize.decode_event(stylize.encode_event(event))
    assert repr(decoded) == repr(event)  # NaN is not equal to itself
    assert [getattr(decoded, name, b"") for name in ("jpeg", "png")] == [
        getattr(event, name, b"") for name in ("jpeg", "png")
    ]


def test_the_events_tested_are_all_there_are() -> None:
    assert len(EVENTS) == len(stylize_pb2.StylizeResponse.DESCRIPTOR.oneofs_by_name["event"].fields)


def test_an_adjustment_arrives_as_it_was() -> None:
    for adjustment in (types.Adjustment(0.0, 1.0, 2.0, {"layer1": 0.0}), types.Adjustment(style_weight=3.0)):
        assert stylize.decode_adjust(stylize.encode_adjust("r", adjustment)) == ("r", adjustment)


@pytest.mark.parametrize(
    ("run_id", "adjustment", "field"),
    [
        ("r", types.Adjustment(), "adjustment"),
        ("no/name", types.Adjustment(style_weight=1.0), "run_id"),
        ("r", types.Adjustment(content_weight=-1.0), "adjustment.content_weight"),
    ],
)
def test_a_wrong_adjustment_names_the_field(run_id: str, adjustment: types.Adjustment, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        stylize.decode_adjust(stylize.encode_adjust(run_id, adjustment))
    assert caught.value.field == field


def test_an_event_of_a_later_release_is_passed_over() -> None:
    assert stylize.decode_event(stylize_pb2.StylizeResponse(run_id="r")) is None


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
