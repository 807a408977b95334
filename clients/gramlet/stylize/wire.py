"""Codecs of gramlet.stylize.v1."""

from __future__ import annotations

import math
import re

from gramlet.errors import InvalidInput
from gramlet.feature.wire import (
    PRESET_GRAM_NORMALIZATION,
    PRESET_STAGE_BALANCE,
    checked_weight,
    decode_stage_losses,
    decode_stage_weights,
    decode_style,
    encode_stage_losses,
    encode_stage_weights,
    encode_style,
)
from gramlet.stylize.types import (
    Adjusted,
    Adjustment,
    Checkpoint,
    Colors,
    Initial,
    Iteration,
    LineSearch,
    Optimizer,
    Preview,
    Queued,
    Recovered,
    RecoveryReason,
    Result,
    Started,
    Stylization,
    StylizeEvent,
    StylizeOrder,
    StylizeSettings,
    StylizeStatus,
)
from gramlet.stylize.v1 import stylize_pb2, stylize_pb2_grpc
from gramlet.tensor.enums import EnumCodec
from gramlet.tensor.wire import decode_picture, decode_timing, encode_picture, encode_timing
from gramlet.transport.rpc import Kind, Rpc
from gramlet.types import Picture

INITIAL = EnumCodec(
    {
        Initial.CONTENT: stylize_pb2.INITIAL_CONTENT,
        Initial.STYLE: stylize_pb2.INITIAL_STYLE,
        Initial.NOISE: stylize_pb2.INITIAL_NOISE,
        Initial.GIVEN: stylize_pb2.INITIAL_GIVEN,
    }
)
OPTIMIZER = EnumCodec({Optimizer.LBFGS: stylize_pb2.OPTIMIZER_LBFGS, Optimizer.ADAM: stylize_pb2.OPTIMIZER_ADAM})
LINE_SEARCH = EnumCodec(
    {
        LineSearch.NONE: stylize_pb2.LINE_SEARCH_NONE,
        LineSearch.STRONG_WOLFE: stylize_pb2.LINE_SEARCH_STRONG_WOLFE,
    }
)
COLORS = EnumCodec(
    {
        Colors.STYLE: stylize_pb2.COLORS_STYLE,
        Colors.CONTENT_LUMINANCE: stylize_pb2.COLORS_CONTENT_LUMINANCE,
        Colors.CONTENT_HISTOGRAM: stylize_pb2.COLORS_CONTENT_HISTOGRAM,
    }
)
RECOVERY_REASON = EnumCodec(
    {
        RecoveryReason.DIVERGED: stylize_pb2.Recovered.REASON_DIVERGED,
        RecoveryReason.RECONNECTED: stylize_pb2.Recovered.REASON_RECONNECTED,
    }
)
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


# --- settings ---


def encode_settings(settings: StylizeSettings) -> stylize_pb2.Settings:
    """Settings. What is None stays unset."""
    message = stylize_pb2.Settings(
        preset=settings.preset or "",
        size=settings.size,
        iterations=settings.iterations,
        content_stage=settings.content_stage or "",
        style_stages=encode_stage_weights(settings.style_stages or {}),
        content_weight=settings.content_weight,
        style_weight=settings.style_weight,
        total_variation_weight=settings.total_variation_weight,
        gram_normalization=PRESET_GRAM_NORMALIZATION.encode(settings.gram_normalization),
        stage_balance=PRESET_STAGE_BALANCE.encode(settings.stage_balance),
        initial=INITIAL.encode(settings.initial),
        seed=settings.seed,
        optimizer=OPTIMIZER.encode(settings.optimizer),
        learning_rate=settings.learning_rate,
        history_size=settings.history_size,
        line_search=LINE_SEARCH.encode(settings.line_search),
        scales=settings.scales,
        style_size=settings.style_size,
        colors=COLORS.encode(settings.colors),
    )
    if settings.antialiased is not None:
        message.antialiased = settings.antialiased
    return message


def decode_settings(message: stylize_pb2.Settings, field: str = "settings") -> StylizeSettings:
    """Settings. What is unset is None.

    Raises:
        InvalidInput: A value that is out of its range or unknown. Whether presets and stages exist is the domain's
            business.
    """

    def positive(name: str) -> int | None:
        value: int | None = getattr(message, name) if message.HasField(name) else None
        if value == 0:
            raise InvalidInput("must be positive", field=f"{field}.{name}")
        return value

    def weight(name: str) -> float | None:
        return checked_weight(getattr(message, name), f"{field}.{name}") if message.HasField(name) else None

    return StylizeSettings(
        preset=message.preset or None,
        size=positive("size"),
        iterations=positive("iterations"),
        content_stage=message.content_stage or None,
        style_stages=decode_stage_weights(message.style_stages, f"{field}.style_stages") or None,
        content_weight=weight("content_weight"),
        style_weight=weight("style_weight"),
        total_variation_weight=weight("total_variation_weight"),
        gram_normalization=PRESET_GRAM_NORMALIZATION.decode_optional(
            message.gram_normalization, f"{field}.gram_normalization"
        ),
        stage_balance=PRESET_STAGE_BALANCE.decode_optional(message.stage_balance, f"{field}.stage_balance"),
        initial=INITIAL.decode_optional(message.initial, f"{field}.initial"),
        seed=message.seed if message.HasField("seed") else None,
        optimizer=OPTIMIZER.decode_optional(message.optimizer, f"{field}.optimizer"),
        learning_rate=_decode_learning_rate(message, f"{field}.learning_rate"),
        history_size=positive("history_size"),
        line_search=LINE_SEARCH.decode_optional(message.line_search, f"{field}.line_search"),
        antialiased=message.antialiased if message.HasField("antialiased") else None,
        scales=positive("scales"),
        style_size=positive("style_size"),
        colors=COLORS.decode_optional(message.colors, f"{field}.colors"),
    )


def _decode_learning_rate(message: stylize_pb2.Settings, field: str) -> float | None:
    if not message.HasField("learning_rate"):
        return None
    if not (math.isfinite(message.learning_rate) and message.learning_rate > 0):
        raise InvalidInput(f"must be positive and finite: {message.learning_rate}", field=field)
    return message.learning_rate


# --- the order ---


def encode_order(order: StylizeOrder) -> stylize_pb2.StylizeRequest:
    """What is asked of StylizeService."""
    message = stylize_pb2.StylizeRequest(
        run_id=order.run_id, preview_every=order.preview_every, checkpoint_every=order.checkpoint_every
    )
    if order.stylization is not None:
        message.stylization.CopyFrom(encode_stylization(order.stylization))
    else:
        message.resume_run_id = order.resume_run_id
    return message


def decode_order(message: stylize_pb2.StylizeRequest) -> StylizeOrder:
    """What is asked of StylizeService.

    Raises:
        InvalidInput: Neither a stylization nor a run to resume, a bad run id, a missing picture, or a bad setting.
    """
    start = message.WhichOneof("start")
    if start is None:
        raise InvalidInput("set `stylization` or `resume_run_id`", field="start")
    if start == "resume_run_id":
        check_run_id(message.resume_run_id, "resume_run_id")
    if message.run_id:
        check_run_id(message.run_id, "run_id")
    return StylizeOrder(
        stylization=decode_stylization(message.stylization) if start == "stylization" else None,
        resume_run_id=message.resume_run_id,
        run_id=message.run_id,
        preview_every=message.preview_every,
        checkpoint_every=message.checkpoint_every if message.HasField("checkpoint_every") else None,
    )


def check_run_id(run_id: str, field: str) -> None:
    """Refuses what is no name of a run.

    Raises:
        InvalidInput: Not 1 to 64 letters, digits, '-' or '_'.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise InvalidInput("a run id is 1 to 64 letters, digits, '-' or '_'", field=field)


def encode_stylization(stylization: Stylization) -> stylize_pb2.Stylization:
    """The pictures of a stylization, and its settings."""
    message = stylize_pb2.Stylization(
        content=encode_picture(stylization.content),
        styles=[encode_style(style) for style in stylization.styles],
        settings=encode_settings(stylization.settings),
    )
    if stylization.initial is not None:
        message.initial.CopyFrom(encode_picture(stylization.initial))
    if stylization.previous_content is not None:
        message.previous_content.CopyFrom(encode_picture(stylization.previous_content))
    return message


def decode_stylization(message: stylize_pb2.Stylization, field: str = "stylization") -> Stylization:
    """The pictures of a stylization, and its settings.

    Raises:
        InvalidInput: A missing picture, a bad setting, or a starting picture that does not go with them.
    """
    if not message.styles:
        raise InvalidInput("give at least one style", field=f"{field}.styles")
    settings = decode_settings(message.settings, f"{field}.settings")
    if (settings.initial is Initial.GIVEN) != message.HasField("initial"):
        raise InvalidInput("a picture to start from goes with settings.initial given", field=f"{field}.initial")
    if message.HasField("previous_content") and not message.HasField("initial"):
        raise InvalidInput("give its painting as `initial`", field=f"{field}.previous_content")

    def optional(name: str) -> Picture | None:
        return decode_picture(getattr(message, name), f"{field}.{name}") if message.HasField(name) else None

    return Stylization(
        content=decode_picture(message.content, f"{field}.content"),
        styles=tuple(decode_style(style, f"{field}.styles[{i}]") for i, style in enumerate(message.styles)),
        settings=settings,
        initial=optional("initial"),
        previous_content=optional("previous_content"),
    )


# --- events ---


def encode_event(event: StylizeEvent, run_id: str = "") -> stylize_pb2.StylizeResponse:
    """An event, of that run (default: the event's own run id)."""
    message = stylize_pb2.StylizeResponse(run_id=run_id or event.run_id)
    match event:
        case Queued():
            message.queued.position = event.position
            message.queued.SetInParent()
        case Started():
            message.started.CopyFrom(_encode_started(event))
        case Iteration():
            message.iteration.CopyFrom(_encode_iteration(event))
        case Preview():
            message.preview.CopyFrom(stylize_pb2.Preview(iteration=event.iteration, jpeg=event.jpeg))
        case Checkpoint():
            message.checkpoint.CopyFrom(stylize_pb2.Checkpoint(iteration=event.iteration))
        case Adjusted():
            adjusted = stylize_pb2.Adjusted(
                iteration=event.iteration, settings=encode_settings(event.settings), number=event.number
            )
            message.adjusted.CopyFrom(adjusted)
        case Recovered():
            message.recovered.CopyFrom(_encode_recovered(event))
        case Result():
            message.result.CopyFrom(_encode_result(event))
        case _:
            raise TypeError(f"not an event of a stylization: {type(event).__name__}")
    return message


def decode_event(message: stylize_pb2.StylizeResponse) -> StylizeEvent | None:
    """An event; None for one that only a later release knows. Events that carry no loss of their own have NaN."""
    run_id = message.run_id
    match message.WhichOneof("event"):
        case "queued":
            return Queued(run_id=run_id, position=message.queued.position)
        case "started":
            return _decode_started(message.started, run_id)
        case "iteration":
            return _decode_iteration(message.iteration, run_id)
        case "preview":
            return Preview(run_id=run_id, iteration=message.preview.iteration, jpeg=message.preview.jpeg)
        case "checkpoint":
            return Checkpoint(run_id=run_id, iteration=message.checkpoint.iteration)
        case "adjusted":
            adjusted = message.adjusted
            settings = decode_settings(adjusted.settings)
            return Adjusted(run_id=run_id, iteration=adjusted.iteration, settings=settings, number=adjusted.number)
        case "recovered":
            return _decode_recovered(message.recovered, run_id)
        case "result":
            return _decode_result(message.result, run_id)
        case _:
            return None


def _encode_started(event: Started) -> stylize_pb2.Started:
    return stylize_pb2.Started(
        iteration=event.iteration,
        height=event.height,
        width=event.width,
        settings=encode_settings(event.settings),
        backbone=event.backbone,
        weights_digest=event.weights_digest,
    )


def _decode_started(message: stylize_pb2.Started, run_id: str) -> Started:
    return Started(
        run_id=run_id,
        iteration=message.iteration,
        height=message.height,
        width=message.width,
        settings=decode_settings(message.settings),
        backbone=message.backbone,
        weights_digest=message.weights_digest,
    )


def _encode_iteration(event: Iteration) -> stylize_pb2.Iteration:
    return stylize_pb2.Iteration(
        iteration=event.iteration,
        loss=event.loss,
        style_loss=event.style_loss,
        content_loss=event.content_loss,
        total_variation_loss=event.total_variation_loss,
        stage_losses=encode_stage_losses(event.stage_losses),
        evaluations=event.evaluations,
        timing=encode_timing(event.timing),
    )


def _decode_iteration(message: stylize_pb2.Iteration, run_id: str) -> Iteration:
    return Iteration(
        run_id=run_id,
        iteration=message.iteration,
        loss=message.loss,
        style_loss=message.style_loss,
        content_loss=message.content_loss,
        total_variation_loss=message.total_variation_loss,
        stage_losses=decode_stage_losses(message.stage_losses),
        evaluations=message.evaluations,
        timing=decode_timing(message.timing),
    )


def _encode_recovered(event: Recovered) -> stylize_pb2.Recovered:
    return stylize_pb2.Recovered(
        reason=RECOVERY_REASON.encode(event.reason),
        iteration=event.iteration,
        message=event.message,
    )


def _decode_recovered(message: stylize_pb2.Recovered, run_id: str) -> Recovered:
    return Recovered(
        run_id=run_id,
        iteration=message.iteration,
        reason=RECOVERY_REASON.decode(message.reason, "recovered.reason"),
        message=message.message,
    )


def _encode_result(event: Result) -> stylize_pb2.Result:
    return stylize_pb2.Result(
        png=event.png,
        iteration=event.iteration,
        loss=event.loss,
        style_loss=event.style_loss,
        content_loss=event.content_loss,
        timing=encode_timing(event.timing),
    )


def _decode_result(message: stylize_pb2.Result, run_id: str) -> Result:
    return Result(
        run_id=run_id,
        iteration=message.iteration,
        loss=message.loss,
        png=message.png,
        style_loss=message.style_loss,
        content_loss=message.content_loss,
        timing=decode_timing(message.timing),
    )


# --- adjustments ---


def encode_adjust(run_id: str, adjustment: Adjustment) -> stylize_pb2.AdjustRequest:
    """A change of a run's weights."""
    return stylize_pb2.AdjustRequest(
        run_id=run_id,
        adjustment=stylize_pb2.Adjustment(
            content_weight=adjustment.content_weight,
            style_weight=adjustment.style_weight,
            total_variation_weight=adjustment.total_variation_weight,
            style_stages=encode_stage_weights(adjustment.style_stages or {}),
        ),
    )


def decode_adjust(message: stylize_pb2.AdjustRequest) -> tuple[str, Adjustment]:
    """The run id, and the change of its weights.

    Raises:
        InvalidInput: A bad run id, a value that is no weight, or nothing to change.
    """
    check_run_id(message.run_id, "run_id")
    sent, field = message.adjustment, "adjustment"

    def weight(name: str) -> float | None:
        return checked_weight(getattr(sent, name), f"{field}.{name}") if sent.HasField(name) else None

    adjustment = Adjustment(
        content_weight=weight("content_weight"),
        style_weight=weight("style_weight"),
        total_variation_weight=weight("total_variation_weight"),
        style_stages=decode_stage_weights(sent.style_stages, f"{field}.style_stages") or None,
    )
    if adjustment == Adjustment():
        raise InvalidInput("nothing to change: give a weight", field=field)
    return message.run_id, adjustment


def encode_adjusted(settings: StylizeSettings) -> stylize_pb2.AdjustResponse:
    """The settings that will be in force."""
    return stylize_pb2.AdjustResponse(settings=encode_settings(settings))


def decode_adjusted(message: stylize_pb2.AdjustResponse) -> StylizeSettings:
    """The settings that will be in force."""
    return decode_settings(message.settings)


# --- status ---


def encode_status(status: StylizeStatus) -> stylize_pb2.GetStatusResponse:
    """How busy the service is."""
    return stylize_pb2.GetStatusResponse(
        running=status.running,
        running_limit=status.running_limit,
        queued=status.queued,
        queue_limit=status.queue_limit,
        presets=status.presets,
        features=status.features,
        server_version=status.server_version,
    )


def decode_status(message: stylize_pb2.GetStatusResponse) -> StylizeStatus:
    """How busy the service is."""
    return StylizeStatus(
        running=message.running,
        running_limit=message.running_limit,
        queued=message.queued,
        queue_limit=message.queue_limit,
        presets=tuple(message.presets),
        features=message.features,
        server_version=message.server_version,
    )


# --- what the client calls and sends ---

STYLIZE = Rpc(stylize_pb2_grpc.StylizeServiceStub, "Stylize", Kind.SERVER_STREAM)
ADJUST = Rpc(stylize_pb2_grpc.StylizeServiceStub, "Adjust")
GET_STATUS = Rpc(stylize_pb2_grpc.StylizeServiceStub, "GetStatus")


def encode_get_status() -> stylize_pb2.GetStatusRequest:
    """Asks how busy the service is."""
    return stylize_pb2.GetStatusRequest()
