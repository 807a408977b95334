"""Messages of StylizeService arrive as they were sent; wrong ones name the field."""

from __future__ import annotations

import math
from typing import Any

import pytest
from gramlet.errors import InvalidInput
from gramlet.feature.types import (
    GramNormalization,
    PictureStyle,
    StageBalance,
)
from gramlet.stylize import types
from gramlet.stylize import wire as stylize
from gramlet.stylize.types import Colors, Initial, LineSearch, Optimizer, Stylization, StylizeOrder, StylizeSettings
from gramlet.stylize.v1 import stylize_pb2
from gramlet.types import Timing

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
