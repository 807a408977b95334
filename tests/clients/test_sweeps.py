"""Sweeps on the wire: codecs and lost servers."""

from __future__ import annotations

import math

import pytest
from gramlet.errors import InvalidInput, Unavailable
from gramlet.feature.types import PictureStyle
from gramlet.run.types import Progress
from gramlet.stylize.sessions import SweepRun
from gramlet.stylize.sweep_types import (
    SweepCell,
    SweepEvent,
    SweepOrder,
    SweepQueued,
    SweepRemoteProgress,
    SweepResult,
    SweepStarted,
)
from gramlet.stylize.sweep_wire import decode_sweep_event, decode_sweep_order, encode_sweep_event, encode_sweep_order
from gramlet.stylize.types import Iteration, Result, Started, Stylization, StylizeEvent, StylizeSettings
from gramlet.stylize.v1 import stylize_pb2

NEW = SweepOrder(Stylization(b"content", (PictureStyle(b"style"),)), (0.0, 1e-3), ("conv1", "layer1"), run_id="s")


def iteration(number: int) -> Iteration:
    return Iteration(iteration=number, loss=1.0, style_loss=0.5, content_loss=0.5)


def cell(row: int, column: int, event: StylizeEvent) -> SweepCell:
    return SweepCell(run_id="s", row=row, column=column, deepest_stage="conv1", ratio=0.5, event=event)


STARTED = SweepStarted(run_id="s", ratios=(0.5, 1.0), deepest_stages=("conv1",), settings=StylizeSettings(size=64))
RESULT = Result(iteration=2, loss=1.0, png=b"png")


@pytest.mark.parametrize("order", [NEW, SweepOrder(resume_run_id="s")], ids=["new", "resumed"])
def test_an_order_arrives_as_it_was(order: SweepOrder) -> None:
    assert decode_sweep_order(encode_sweep_order(order)) == order


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({}, "start"),
        ({"resume_run_id": "no/name"}, "resume_run_id"),
        ({"resume_run_id": "s", "ratios": [1.0, -1.0]}, "ratios[1]"),
        ({"resume_run_id": "s", "ratios": [math.nan]}, "ratios[0]"),
    ],
)
def test_a_wrong_order_names_the_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_sweep_order(stylize_pb2.SweepRequest(**change))  # type: ignore[arg-type]
    assert caught.value.field == field


EVENTS = [
    SweepQueued(run_id="s", position=0),
    STARTED,
    cell(1, 2, RESULT),
    SweepRemoteProgress(run_id="s", progress=Progress(2, 6, 0.5, "cells")),
    SweepResult(run_id="s", png=b"png"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_arrives_as_it_was(event: SweepEvent) -> None:
    decoded = decode_sweep_event(encode_sweep_event(event))
    assert repr(decoded) == repr(event)  # NaN is not equal to itself
    assert getattr(decoded, "png", b"") == getattr(event, "png", b"")


def test_the_events_tested_are_all_there_are() -> None:
    assert len(EVENTS) == len(stylize_pb2.SweepResponse.DESCRIPTOR.oneofs_by_name["event"].fields)
    assert decode_sweep_event(stylize_pb2.SweepResponse(run_id="s")) is None


def test_after_a_break_nothing_is_told_twice() -> None:
    run = SweepRun(NEW)

    def told(*events: SweepEvent) -> list[SweepEvent]:
        accepted = [run.accept(encode_sweep_event(event)) for event in events]
        return [event for event in accepted if event is not None]

    begun = Started(height=4, width=4, settings=StylizeSettings())
    first = (STARTED, cell(0, 0, begun), cell(0, 0, RESULT), cell(0, 1, begun), cell(0, 1, iteration(1)))
    assert len(told(*first)) == 5
    run.broken(Unavailable("gone"))
    assert run.request().resume_run_id == "s"
    assert told(STARTED, cell(0, 0, RESULT), cell(0, 1, begun), cell(0, 1, iteration(1))) == []
    rest = (cell(0, 1, iteration(2)), cell(0, 1, RESULT), SweepResult(run_id="s", png=b"png"))
    assert len(told(*rest)) == 3
    assert run.done
