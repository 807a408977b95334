"""Codecs of the sweeps in gramlet.stylize.v1."""

from __future__ import annotations

import math

from gramlet.errors import InvalidInput
from gramlet.stylize.types import SweepCell, SweepEvent, SweepOrder, SweepQueued, SweepResult, SweepStarted
from gramlet.stylize.v1 import stylize_pb2, stylize_pb2_grpc
from gramlet.stylize.wire import (
    check_run_id,
    decode_event,
    decode_settings,
    decode_stylization,
    encode_event,
    encode_settings,
    encode_stylization,
)
from gramlet.transport.rpc import Kind, Rpc

SWEEP = Rpc(stylize_pb2_grpc.StylizeServiceStub, "Sweep", Kind.SERVER_STREAM)


def encode_sweep_order(order: SweepOrder) -> stylize_pb2.SweepRequest:
    """What is asked of StylizeService."""
    message = stylize_pb2.SweepRequest(run_id=order.run_id, ratios=order.ratios, deepest_stages=order.deepest_stages)
    if order.stylization is not None:
        message.stylization.CopyFrom(encode_stylization(order.stylization))
    else:
        message.resume_run_id = order.resume_run_id
    return message


def decode_sweep_order(message: stylize_pb2.SweepRequest) -> SweepOrder:
    """What is asked of StylizeService.

    Raises:
        InvalidInput: Neither a stylization nor a sweep to resume, a bad run id, a missing picture, a bad setting, or a
            ratio that is none.
    """
    start = message.WhichOneof("start")
    if start is None:
        raise InvalidInput("set `stylization` or `resume_run_id`", field="start")
    if start == "resume_run_id":
        check_run_id(message.resume_run_id, "resume_run_id")
    if message.run_id:
        check_run_id(message.run_id, "run_id")
    for index, ratio in enumerate(message.ratios):
        if not (math.isfinite(ratio) and ratio >= 0):
            raise InvalidInput(f"{ratio} is no ratio: give a finite number, 0 or more", field=f"ratios[{index}]")
    return SweepOrder(
        stylization=decode_stylization(message.stylization) if start == "stylization" else None,
        ratios=tuple(message.ratios),
        deepest_stages=tuple(message.deepest_stages),
        resume_run_id=message.resume_run_id,
        run_id=message.run_id,
    )


def encode_sweep_event(event: SweepEvent, run_id: str = "") -> stylize_pb2.SweepResponse:
    """An event, of that sweep (default: the event's own run id)."""
    message = stylize_pb2.SweepResponse(run_id=run_id or event.run_id)
    match event:
        case SweepQueued():
            message.queued.position = event.position
            message.queued.SetInParent()
        case SweepStarted():
            started = stylize_pb2.SweepStarted(
                ratios=event.ratios, deepest_stages=event.deepest_stages, settings=encode_settings(event.settings)
            )
            message.started.CopyFrom(started)
        case SweepCell():
            cell = stylize_pb2.SweepCell(
                row=event.row,
                column=event.column,
                deepest_stage=event.deepest_stage,
                ratio=event.ratio,
                event=encode_event(event.event),
            )
            message.cell.CopyFrom(cell)
        case SweepResult():
            message.result.png = event.png
        case _:
            raise TypeError(f"not an event of a sweep: {type(event).__name__}")
    return message


def decode_sweep_event(message: stylize_pb2.SweepResponse) -> SweepEvent | None:
    """An event; None for one that only a later release knows."""
    run_id = message.run_id
    match message.WhichOneof("event"):
        case "queued":
            return SweepQueued(run_id=run_id, position=message.queued.position)
        case "started":
            return SweepStarted(
                run_id=run_id,
                ratios=tuple(message.started.ratios),
                deepest_stages=tuple(message.started.deepest_stages),
                settings=decode_settings(message.started.settings),
            )
        case "cell":
            return _decode_cell(message.cell, run_id)
        case "result":
            return SweepResult(run_id=run_id, png=message.result.png)
        case _:
            return None


def _decode_cell(message: stylize_pb2.SweepCell, run_id: str) -> SweepCell | None:
    event = decode_event(message.event)
    if event is None:
        return None
    return SweepCell(
        run_id=run_id,
        row=message.row,
        column=message.column,
        deepest_stage=message.deepest_stage,
        ratio=message.ratio,
        event=event,
    )
