"""Codecs of the sweeps in gramlet.stylize.v1."""

from __future__ import annotations

import math
from collections.abc import Iterable

from gramlet.errors import InvalidInput
from gramlet.run.wire import PROGRESS
from gramlet.stylize.sweep_types import (
    SweepCell,
    SweepEvent,
    SweepOrder,
    SweepQueued,
    SweepRemoteProgress,
    SweepResult,
    SweepStarted,
)
from gramlet.stylize.v1 import stylize_pb2, stylize_pb2_grpc
from gramlet.stylize.wire import RUN_ID, SETTINGS, STYLIZATION, decode_event, encode_event
from gramlet.tensor.codec import EventCodec, Functions, Inner, MessageCodec, checked
from gramlet.transport.rpc import BEATING_SECONDS, Kind, Rpc

SWEEP = Rpc(stylize_pb2_grpc.StylizeServiceStub, "Sweep", Kind.SERVER_STREAM, silence=BEATING_SECONDS)


def _check_ratios(ratios: Iterable[float], field: str) -> tuple[float, ...]:
    ratios = tuple(ratios)
    for index, ratio in enumerate(ratios):
        if not (math.isfinite(ratio) and ratio >= 0):
            raise InvalidInput(f"{ratio} is not a ratio: give a finite number, 0 or more", field=f"{field}[{index}]")
    return ratios


_ORDER = MessageCodec(
    SweepOrder,
    stylize_pb2.SweepRequest,
    stylization=STYLIZATION,
    resume_run_id=RUN_ID,
    run_id=RUN_ID,
    watch_run_id=RUN_ID,
    ratios=checked(_check_ratios),
)
_EVENTS: EventCodec[SweepEvent, stylize_pb2.SweepResponse] = EventCodec(
    stylize_pb2.SweepResponse,
    queued=MessageCodec(SweepQueued, stylize_pb2.Queued),
    started=MessageCodec(SweepStarted, stylize_pb2.SweepStarted, settings=SETTINGS),
    cell=MessageCodec(
        SweepCell, stylize_pb2.SweepCell, event=Functions(encode_event, lambda message, _: decode_event(message))
    ),
    result=MessageCodec(SweepResult, stylize_pb2.SweepResult),
    progress=Inner(SweepRemoteProgress, "progress", PROGRESS),
)
encode_sweep_order = _ORDER.encode


def decode_sweep_order(message: stylize_pb2.SweepRequest) -> SweepOrder:
    """What is asked of StylizeService.

    Raises:
        InvalidInput: No stylization and no sweep, a bad run id, a missing picture, a bad setting, or a
            ratio that is not one.
    """
    if message.WhichOneof("start") is None:
        raise InvalidInput("set `stylization`, `resume_run_id` or `watch_run_id`", field="start")
    return _ORDER.decode(message)


def encode_sweep_event(event: SweepEvent | None, run_id: str = "") -> stylize_pb2.SweepResponse:
    """An event, of that sweep (default: the event's own run id). None: a sign that the server works."""
    return _EVENTS.encode(event, run_id=run_id or ("" if event is None else event.run_id))


def decode_sweep_event(message: stylize_pb2.SweepResponse) -> SweepEvent | None:
    """An event; None for one that only a later release knows."""
    event = _EVENTS.decode(message)
    is_unknown = isinstance(event, SweepCell) and event.event is None
    return None if is_unknown else event
