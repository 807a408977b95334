"""Codecs of gramlet.feature.v1: the messages of Descend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from gramlet.errors import InternalError, InvalidInput
from gramlet.feature.descent_types import (
    DescentEnding,
    DescentEvent,
    DescentFinished,
    DescentIteration,
    DescentPreview,
    DescentQueued,
    DescentReady,
    DescentRecovered,
    DescentReweighted,
    DescentSettings,
    DescentStart,
    DescentState,
    DescentWaiting,
    DescentWeights,
    LineSearch,
    Optimizer,
    RecoveryReason,
)
from gramlet.feature.objective_wire import (
    STAGE_LOSSES,
    STAGE_WEIGHTS,
    WEIGHT,
    LoadPicture,
    decode_objective,
    encode_objective,
)
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.tensor.arrays import encode_tensor
from gramlet.tensor.codec import EnumCodec, Functions, MessageCodec, checked
from gramlet.tensor.wire import PICTURE, TIMING, decode_float_picture
from gramlet.transport.rpc import Kind, Rpc

OPTIMIZER = EnumCodec({Optimizer.LBFGS: feature_pb2.OPTIMIZER_LBFGS, Optimizer.ADAM: feature_pb2.OPTIMIZER_ADAM})
LINE_SEARCH = EnumCodec(
    {
        LineSearch.NONE: feature_pb2.LINE_SEARCH_NONE,
        LineSearch.STRONG_WOLFE: feature_pb2.LINE_SEARCH_STRONG_WOLFE,
    }
)
_ENDING = EnumCodec(
    {
        DescentEnding.BEST: feature_pb2.DESCENT_ENDING_BEST,
        DescentEnding.PICTURE: feature_pb2.DESCENT_ENDING_PICTURE,
        DescentEnding.STATE: feature_pb2.DESCENT_ENDING_STATE,
    }
)


def _check_rate(rate: float, field: str) -> float:
    if not (math.isfinite(rate) and rate > 0):
        raise InvalidInput(f"a learning rate is a finite number above 0, not {rate}", field=field)
    return rate


def _check_count(count: int, field: str) -> int:
    if count < 1:
        raise InvalidInput("must be at least 1", field=field)
    return count


def _check_seconds(seconds: float, field: str) -> float:
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InvalidInput(f"seconds are a finite number, 0 or more, not {seconds}", field=field)
    return seconds


SECONDS = checked(_check_seconds)
_SETTINGS = MessageCodec(
    DescentSettings,
    feature_pb2.DescentSettings,
    optimizer=OPTIMIZER,
    learning_rate=checked(_check_rate),
    history_size=checked(_check_count),
    line_search=LINE_SEARCH,
)
_START = MessageCodec(
    DescentStart,
    feature_pb2.DescendRequest.Start,
    beside=("objective", "initial"),
    settings=_SETTINGS,
    iterations=checked(_check_count),
    ending=_ENDING,
    state_seconds=SECONDS,
)
_WEIGHTS = MessageCodec(
    DescentWeights,
    feature_pb2.DescentWeights,
    content_weight=WEIGHT,
    style_weight=WEIGHT,
    total_variation_weight=WEIGHT,
    style_stages=STAGE_WEIGHTS,
)
_RESPONSE = feature_pb2.DescendResponse
_ITERATION = MessageCodec(DescentIteration, _RESPONSE.Iteration, stage_losses=STAGE_LOSSES, timing=TIMING)
_EVENTS: dict[str, MessageCodec[Any, Any]] = {
    "queued": MessageCodec(DescentQueued, _RESPONSE.Queued),
    "ready": MessageCodec(DescentReady, _RESPONSE.Ready),
    "preview": MessageCodec(DescentPreview, _RESPONSE.Preview),
    "state": MessageCodec(DescentState, _RESPONSE.State),
    "diverged": MessageCodec(DescentRecovered, _RESPONSE.Diverged),
    "waiting": MessageCodec(DescentWaiting, _RESPONSE.Waiting),
    "finished": MessageCodec(
        DescentFinished,
        _RESPONSE.Finished,
        picture=Functions(encode_tensor, decode_float_picture),
        stage_losses=STAGE_LOSSES,
        timing=TIMING,
    ),
}
_NAMES = {codec.kind: name for name, codec in _EVENTS.items()}

DESCEND = Rpc(feature_pb2_grpc.FeatureServiceStub, "Descend", Kind.STREAM)

# --- requests ---


def encode_descent_start(start: DescentStart) -> feature_pb2.DescendRequest:
    """The first message of a descent."""
    message = _START.encode(start)
    message.objective.CopyFrom(encode_objective(start.objective))
    if start.initial is not None:
        message.initial.CopyFrom(PICTURE.encode(start.initial))
    return feature_pb2.DescendRequest(start=message)


def decode_descent_start(
    message: feature_pb2.DescendRequest | None, load: LoadPicture, load_region: LoadPicture
) -> DescentStart:
    """The start of a descent, from its first message. The engine checks whether everything fits together.

    Args:
        message: The message.
        load: Turns a picture into (3, H, W) float32.
        load_region: Turns a mask into (H, W) float32.

    Raises:
        InvalidInput: There is none or another message, a picture is missing or bad, or a value is not allowed.
    """
    if message is None or message.WhichOneof("message") != "start":
        raise InvalidInput("say what to do first", field="start")
    start = message.start
    objective = decode_objective(start.objective, load, load_region, "start.objective")
    initial = None
    if start.HasField("initial"):
        initial = load(PICTURE.decode(start.initial, "start.initial"), "start.initial")
    return _START.decode(start, "start", objective=objective, initial=initial)


def encode_reweight(weights: DescentWeights) -> feature_pb2.DescendRequest:
    """The message that brings new weights."""
    return feature_pb2.DescendRequest(reweight=_WEIGHTS.encode(weights))


def decode_reweight(message: feature_pb2.DescentWeights) -> DescentWeights:
    """New weights.

    Raises:
        InvalidInput: A weight is negative or not a number.
    """
    return _WEIGHTS.decode(message, "reweight")


def encode_proceed() -> feature_pb2.DescendRequest:
    """The message that lets the last iteration begin."""
    return feature_pb2.DescendRequest(proceed=feature_pb2.DescendRequest.Proceed())


def encode_stop() -> feature_pb2.DescendRequest:
    """The message that ends a descent with a state."""
    return feature_pb2.DescendRequest(stop=feature_pb2.DescendRequest.Stop())


# --- replies ---


def encode_descent_events(events: Iterable[DescentEvent]) -> Iterator[feature_pb2.DescendResponse]:
    """The messages of events that came at once. Iterations share one; DescentReweighted travels with its state."""
    for kind, group in groupby(events, type):
        if kind is DescentIteration:
            iterations = [_ITERATION.encode(event) for event in group if isinstance(event, DescentIteration)]
            yield _RESPONSE(iterations=_RESPONSE.Iterations(iterations=iterations))
        elif kind is not DescentReweighted:
            name = _NAMES[kind]
            yield from (_RESPONSE(**{name: _EVENTS[name].encode(event)}) for event in group)


def decode_descent_events(message: feature_pb2.DescendResponse) -> list[DescentEvent]:
    """The events in a message; none in one that only a later release knows.

    Raises:
        InternalError: The server sent something that makes no sense.
    """
    name = message.WhichOneof("message")
    try:
        match name:
            case None | "part":
                return []
            case "iterations":
                return [_ITERATION.decode(each, "iterations") for each in message.iterations.iterations]
            case "diverged":
                return [_EVENTS[name].decode(message.diverged, name, reason=RecoveryReason.DIVERGED)]
            case "state" if message.state.reweighted:
                state: DescentState = _EVENTS[name].decode(message.state, name)
                return [state, DescentReweighted(iteration=state.iteration, number=state.number)]
            case _:
                return [_EVENTS[name].decode(getattr(message, name), name)]
    except InvalidInput as error:
        raise InternalError(f"the server sent {error.field}: {error.message}") from None
