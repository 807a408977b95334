"""Codecs of gramlet.stylize.v1: settings, runs, adjustments, status. Sweeps: `sweep_wire`."""

from __future__ import annotations

import math
from typing import Any

from gramlet.errors import InvalidInput
from gramlet.feature.descent_wire import LINE_SEARCH, MOMENTUM, OPTIMIZER, SECONDS
from gramlet.feature.objective_wire import STAGE_BALANCE, STAGE_LOSSES, STAGE_WEIGHTS, STYLE, WEIGHT
from gramlet.feature.wire import GRAM_NORMALIZATION
from gramlet.run.types import Progress
from gramlet.run.wire import PROGRESS
from gramlet.stylize.types import (
    Adjusted,
    Adjustment,
    Checkpoint,
    Colors,
    Initial,
    Iteration,
    Preview,
    Queued,
    Recovered,
    RecoveryReason,
    RemoteProgress,
    Result,
    ScaleStarted,
    Started,
    Stylization,
    StylizeEvent,
    StylizeOrder,
    StylizeSettings,
    StylizeStatus,
)
from gramlet.stylize.v1 import stylize_pb2, stylize_pb2_grpc
from gramlet.tensor.codec import EnumCodec, EventCodec, Functions, MessageCodec, checked, each
from gramlet.tensor.wire import PICTURE, TIMING
from gramlet.transport.rpc import BEATING_SECONDS, Kind, Rpc
from gramlet.types import check_name

_INITIAL = EnumCodec(
    {
        Initial.CONTENT: stylize_pb2.INITIAL_CONTENT,
        Initial.STYLE: stylize_pb2.INITIAL_STYLE,
        Initial.NOISE: stylize_pb2.INITIAL_NOISE,
        Initial.GIVEN: stylize_pb2.INITIAL_GIVEN,
    }
)
_COLORS = EnumCodec(
    {
        Colors.STYLE: stylize_pb2.COLORS_STYLE,
        Colors.CONTENT_LUMINANCE: stylize_pb2.COLORS_CONTENT_LUMINANCE,
        Colors.CONTENT_HISTOGRAM: stylize_pb2.COLORS_CONTENT_HISTOGRAM,
    }
)
_RECOVERY_REASON = EnumCodec(
    {
        RecoveryReason.DIVERGED: stylize_pb2.Recovered.REASON_DIVERGED,
        RecoveryReason.RECONNECTED: stylize_pb2.Recovered.REASON_RECONNECTED,
    }
)


# --- settings ---


def _check_positive(value: int, field: str) -> int:
    if not value:
        raise InvalidInput("must be positive", field=field)
    return value


def _check_learning_rate(rate: float, field: str) -> float:
    if not (math.isfinite(rate) and rate > 0):
        raise InvalidInput(f"must be positive and finite: {rate}", field=field)
    return rate


_POSITIVE = checked(_check_positive)
SETTINGS = MessageCodec(
    StylizeSettings,
    stylize_pb2.Settings,
    size=_POSITIVE,
    iterations=_POSITIVE,
    style_stages=STAGE_WEIGHTS,
    content_weight=WEIGHT,
    style_weight=WEIGHT,
    total_variation_weight=WEIGHT,
    gram_normalization=GRAM_NORMALIZATION,
    stage_balance=STAGE_BALANCE,
    initial=_INITIAL,
    optimizer=OPTIMIZER,
    learning_rate=checked(_check_learning_rate),
    history_size=_POSITIVE,
    line_search=LINE_SEARCH,
    scales=_POSITIVE,
    style_size=_POSITIVE,
    colors=_COLORS,
    momentum=MOMENTUM,
)
encode_settings = SETTINGS.encode


def decode_settings(message: stylize_pb2.Settings, field: str = "settings") -> StylizeSettings:
    """Settings. What is unset is None. The service checks whether presets and stages exist.

    Raises:
        InvalidInput: A value that is out of its range or unknown.
    """
    return SETTINGS.decode(message, field)


# --- the order ---

_STYLIZATION = MessageCodec(
    Stylization,
    stylize_pb2.Stylization,
    content=PICTURE,
    styles=each(STYLE),
    initial=PICTURE,
    settings=SETTINGS,
    previous_content=PICTURE,
)


def _decode_stylization(message: stylize_pb2.Stylization, field: str) -> Stylization:
    if not message.styles:
        raise InvalidInput("give at least one style", field=f"{field}.styles")
    stylization = _STYLIZATION.decode(message, field)
    if (stylization.settings.initial is Initial.GIVEN) != (stylization.initial is not None):
        raise InvalidInput("a picture to start from goes with settings.initial given", field=f"{field}.initial")
    if stylization.previous_content is not None and stylization.initial is None:
        raise InvalidInput("give its painting as `initial`", field=f"{field}.previous_content")
    return stylization


STYLIZATION = Functions(_STYLIZATION.encode, _decode_stylization)
RUN_ID = checked(check_name)
_ORDER = MessageCodec(
    StylizeOrder,
    stylize_pb2.StylizeRequest,
    stylization=STYLIZATION,
    resume_run_id=RUN_ID,
    run_id=RUN_ID,
    watch_run_id=RUN_ID,
    state_seconds=SECONDS,
)
encode_order = _ORDER.encode


def decode_order(message: stylize_pb2.StylizeRequest) -> StylizeOrder:
    """What is asked of StylizeService.

    Raises:
        InvalidInput: No stylization and no run, a bad run id, a missing picture, or a bad setting.
    """
    if message.WhichOneof("start") is None:
        raise InvalidInput("set `stylization`, `resume_run_id` or `watch_run_id`", field="start")
    return _ORDER.decode(message)


# --- events ---


class _RemoteProgress:
    """The case of `RemoteProgress`, which has the values of a `Progress` in the fields of a stylization's events."""

    kind = RemoteProgress

    def encode(self, event: RemoteProgress) -> Any:
        loss = event.loss if math.isfinite(event.loss) else None
        return PROGRESS.encode(Progress(event.iteration, event.total, loss, "iterations"))

    def decode(self, message: Any, field: str, /, **given: Any) -> RemoteProgress:
        progress = PROGRESS.decode(message, field)
        loss = math.nan if progress.loss is None else progress.loss
        return RemoteProgress(iteration=progress.done, total=progress.total, loss=loss, **given)


_EVENTS: EventCodec[StylizeEvent, stylize_pb2.StylizeResponse] = EventCodec(
    stylize_pb2.StylizeResponse,
    queued=MessageCodec(Queued, stylize_pb2.Queued),
    started=MessageCodec(Started, stylize_pb2.Started, settings=SETTINGS),
    iteration=MessageCodec(Iteration, stylize_pb2.Iteration, stage_losses=STAGE_LOSSES, timing=TIMING),
    preview=MessageCodec(Preview, stylize_pb2.Preview),
    checkpoint=MessageCodec(Checkpoint, stylize_pb2.Checkpoint),
    recovered=MessageCodec(Recovered, stylize_pb2.Recovered, reason=_RECOVERY_REASON),
    result=MessageCodec(Result, stylize_pb2.Result, timing=TIMING),
    adjusted=MessageCodec(Adjusted, stylize_pb2.Adjusted, settings=SETTINGS),
    progress=_RemoteProgress(),
    scale_started=MessageCodec(ScaleStarted, stylize_pb2.ScaleStarted),
)


def encode_event(event: StylizeEvent | None, run_id: str = "") -> stylize_pb2.StylizeResponse:
    """An event, of that run (default: the event's own run id). None: a sign that the server works."""
    return _EVENTS.encode(event, run_id=run_id or ("" if event is None else event.run_id))


def decode_event(message: stylize_pb2.StylizeResponse) -> StylizeEvent | None:
    """An event; None for one that only a later release knows. Events that carry no loss of their own have NaN."""
    return _EVENTS.decode(message)


# --- adjustments and status ---

_ADJUSTMENT = MessageCodec(
    Adjustment,
    stylize_pb2.Adjustment,
    content_weight=WEIGHT,
    style_weight=WEIGHT,
    total_variation_weight=WEIGHT,
    style_stages=STAGE_WEIGHTS,
)
_STATUS = MessageCodec(StylizeStatus, stylize_pb2.GetStatusResponse, preset_settings=each(SETTINGS))
encode_status, decode_status = _STATUS.encode, _STATUS.decode


def encode_adjust(run_id: str, adjustment: Adjustment) -> stylize_pb2.AdjustRequest:
    """A change of a run's weights."""
    return stylize_pb2.AdjustRequest(run_id=run_id, adjustment=_ADJUSTMENT.encode(adjustment))


def decode_adjust(message: stylize_pb2.AdjustRequest) -> tuple[str, Adjustment]:
    """The run id, and the change of its weights.

    Raises:
        InvalidInput: A bad run id, a value that is not a weight, or nothing to change.
    """
    run_id = check_name(message.run_id, "run_id")
    adjustment = _ADJUSTMENT.decode(message.adjustment, "adjustment")
    if adjustment == Adjustment():
        raise InvalidInput("nothing to change: give a weight", field="adjustment")
    return run_id, adjustment


def encode_adjusted(settings: StylizeSettings) -> stylize_pb2.AdjustResponse:
    """The settings that will be in force."""
    return stylize_pb2.AdjustResponse(settings=encode_settings(settings))


def decode_adjusted(message: stylize_pb2.AdjustResponse) -> StylizeSettings:
    """The settings that will be in force."""
    return decode_settings(message.settings)


# --- what the client calls and sends ---

STYLIZE = Rpc(stylize_pb2_grpc.StylizeServiceStub, "Stylize", Kind.SERVER_STREAM, silence=BEATING_SECONDS)
ADJUST = Rpc(stylize_pb2_grpc.StylizeServiceStub, "Adjust")
GET_STATUS = Rpc(stylize_pb2_grpc.StylizeServiceStub, "GetStatus")


def encode_get_status() -> stylize_pb2.GetStatusRequest:
    """Asks how busy the service is."""
    return stylize_pb2.GetStatusRequest()
