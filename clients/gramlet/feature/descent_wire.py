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
    Check,
    LoadPicture,
    accept,
    decode_objective,
    encode_objective,
)
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.tensor.arrays import encode_tensor
from gramlet.tensor.codec import EnumCodec, Functions, MessageCodec, checked
from gramlet.tensor.parts import PART_BYTES, split
from gramlet.tensor.wire import PICTURE, TIMING, decode_float_picture
from gramlet.transport.rpc import BEATING_SECONDS, Kind, Rpc

OPTIMIZER = EnumCodec(
    {
        Optimizer.LBFGS: feature_pb2.OPTIMIZER_LBFGS,
        Optimizer.ADAM: feature_pb2.OPTIMIZER_ADAM,
        Optimizer.GRADIENT_DESCENT: feature_pb2.OPTIMIZER_GRADIENT_DESCENT,
    }
)
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


def _check_momentum(momentum: float, field: str) -> float:
    if not 0 <= momentum < 1:
        raise InvalidInput(f"a momentum is 0 or more and less than 1, not {momentum}", field=field)
    return momentum


def _check_count(count: int, field: str) -> int:
    if count < 1:
        raise InvalidInput("must be at least 1", field=field)
    return count


def _check_seconds(seconds: float, field: str) -> float:
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InvalidInput(f"seconds are a finite number, 0 or more, not {seconds}", field=field)
    return seconds


SECONDS = checked(_check_seconds)
MOMENTUM = checked(_check_momentum)
_SETTINGS = MessageCodec(
    DescentSettings,
    feature_pb2.DescentSettings,
    optimizer=OPTIMIZER,
    learning_rate=checked(_check_rate),
    history_size=checked(_check_count),
    line_search=LINE_SEARCH,
    momentum=MOMENTUM,
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

DESCEND = Rpc(feature_pb2_grpc.FeatureServiceStub, "Descend", Kind.STREAM, silence=BEATING_SECONDS)

MOST_STATE_BYTES = 2**31
"""The largest state that is taken: twice the largest history of L-BFGS."""

# --- requests ---


def encode_descent_start(start: DescentStart) -> Iterator[feature_pb2.DescendRequest]:
    """The first messages of a descent."""
    for begin in range(0, len(start.state), PART_BYTES):
        yield feature_pb2.DescendRequest(state=start.state[begin : begin + PART_BYTES])
    message = _START.encode(start)
    message.objective.CopyFrom(encode_objective(start.objective))
    if start.initial is not None:
        message.initial.CopyFrom(PICTURE.encode(start.initial))
    yield from split(feature_pb2.DescendRequest(start=message))


def decode_descent_start(
    messages: Iterator[feature_pb2.DescendRequest],
    load: LoadPicture,
    load_region: LoadPicture,
    check: Check = accept,
) -> DescentStart:
    """The start of a descent, from its first messages. The engine checks whether everything fits together.

    Args:
        messages: The messages; those after the start are left in it.
        load: Turns a picture into (3, H, W) float32.
        load_region: Turns a mask into (H, W) float32.
        check: Refuses a start before its pictures are loaded.

    Raises:
        InvalidInput: There is no start, a picture is missing or bad, or a value is not allowed.
    """
    chunks: list[bytes] = []
    message = next(messages, None)
    while message is not None and message.WhichOneof("message") == "state":
        chunks.append(message.state)
        if sum(map(len, chunks)) > MOST_STATE_BYTES:
            raise InvalidInput(f"a state of more than {MOST_STATE_BYTES:,} bytes", field="state")
        message = next(messages, None)
    if message is None or message.WhichOneof("message") != "start":
        raise InvalidInput("say what to do first", field="start")
    start = message.start
    sent: Any = PICTURE.decode(start.initial, "start.initial") if start.HasField("initial") else None

    def whole(objective: Any, initial: Any) -> DescentStart:
        return _START.decode(start, "start", objective=objective, initial=initial, state=b"".join(chunks))

    objective = decode_objective(
        start.objective, load, load_region, "start.objective", lambda unread: check(whole(unread, sent))
    )
    return whole(objective, None if sent is None else load(sent, "start.initial"))


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
            for event in group:
                yield from _encode_state(event) if isinstance(event, DescentState) else [_encode_event(event)]


def encode_state(
    chunks: Iterable[bytes], *, iteration: int, number: int, reweighted: bool
) -> Iterator[feature_pb2.DescendResponse]:
    """The messages of a state whose data comes in chunks."""

    def message(data: bytes, last: bool) -> feature_pb2.DescendResponse:
        response = _RESPONSE()
        state = response.state  # in place: a message that is handed over is copied
        state.iteration, state.number, state.reweighted, state.last = iteration, number, reweighted, last
        state.data = data
        return response

    waiting: bytes | None = None
    for chunk in chunks:
        if waiting is not None:
            yield message(waiting, last=False)
        waiting = chunk
    yield message(waiting or b"", last=True)


def _encode_state(state: DescentState) -> Iterator[feature_pb2.DescendResponse]:
    chunks = (state.data[begin : begin + PART_BYTES] for begin in range(0, len(state.data), PART_BYTES))
    yield from encode_state(chunks, iteration=state.iteration, number=state.number, reweighted=state.reweighted)


def _encode_event(event: DescentEvent) -> feature_pb2.DescendResponse:
    name = _NAMES[type(event)]
    return _RESPONSE(**{name: _EVENTS[name].encode(event)})


class DescentReader:
    """Decodes the replies of one connection. States come in several."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def events(self, message: feature_pb2.DescendResponse) -> list[DescentEvent]:
        """The events that are complete with a message; none in one that only a later release knows.

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
                case "state":
                    return self._state(message.state)
                case _:
                    return [_EVENTS[name].decode(getattr(message, name), name)]
        except InvalidInput as error:
            raise InternalError(f"the server sent {error.field}: {error.message}") from None

    def _state(self, message: feature_pb2.DescendResponse.State) -> list[DescentEvent]:
        self._chunks.append(message.data)
        if not message.last:
            return []
        data, self._chunks = b"".join(self._chunks), []
        iteration, number = message.iteration, message.number
        state = DescentState(iteration=iteration, number=number, data=data, reweighted=message.reweighted)
        return [state, DescentReweighted(iteration=iteration, number=number)] if message.reweighted else [state]
