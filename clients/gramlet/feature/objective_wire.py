"""Codecs of gramlet.feature.v1: objectives, and the messages of Differentiate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gramlet.errors import InvalidInput
from gramlet.feature.types import Evaluation, Objective, StageBalance, Style
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.feature.wire import GRAM_NORMALIZATION
from gramlet.tensor.arrays import ELEMENT_TYPE, FLOAT_TYPE, encode_tensor
from gramlet.tensor.codec import EnumCodec, Functions, MessageCodec, checked, each
from gramlet.tensor.wire import MASK, PICTURE, TIMING, decode_float_picture
from gramlet.transport.rpc import Kind, Rpc
from gramlet.types import Array, ElementType, Picture

LoadPicture = Callable[[Picture, str], Array]
"""Turns a picture into (3, H, W) float32; the string is the picture's place in the request, for errors."""

Check = Callable[[Any], None]
"""Refuses settings before any picture is loaded: the pictures in what it is given are still as they travel."""


def accept(settings: Any) -> None:
    """The check that refuses nothing."""


def check_weight(weight: float, field: str) -> float:
    """The weight itself.

    Raises:
        InvalidInput: It is negative, infinite or not a number.
    """
    if not math.isfinite(weight) or weight < 0:
        raise InvalidInput(f"a weight is a finite number, 0 or more, not {weight}", field=field)
    return weight


def _encode_stage_weights(weights: Mapping[str, float]) -> list[feature_pb2.StageWeight]:
    return [feature_pb2.StageWeight(stage=stage, weight=weight) for stage, weight in weights.items()]


def _decode_stage_weights(messages: Iterable[feature_pb2.StageWeight], field: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for i, message in enumerate(messages):
        if message.stage in weights:
            raise InvalidInput(f"stage {message.stage!r} is named twice", field=f"{field}[{i}].stage")
        weights[message.stage] = check_weight(message.weight, f"{field}[{i}].weight")
    return weights


def _encode_stage_losses(losses: Mapping[str, float]) -> list[feature_pb2.StageLoss]:
    return [feature_pb2.StageLoss(stage=stage, loss=loss) for stage, loss in losses.items()]


def _decode_stage_losses(messages: Iterable[feature_pb2.StageLoss], field: str) -> dict[str, float]:
    return {message.stage: message.loss for message in messages}


WEIGHT = checked(check_weight)
STAGE_WEIGHTS = Functions(_encode_stage_weights, _decode_stage_weights)
STAGE_LOSSES = Functions(_encode_stage_losses, _decode_stage_losses)

# --- objectives and styles ---

STAGE_BALANCE = EnumCodec(
    {
        StageBalance.NONE: feature_pb2.STAGE_BALANCE_NONE,
        StageBalance.CONTENT: feature_pb2.STAGE_BALANCE_CONTENT,
    }
)
STYLE: MessageCodec[Style[Picture], feature_pb2.Style] = MessageCodec(
    Style, feature_pb2.Style, picture=PICTURE, weight=WEIGHT, content_region=MASK, style_region=MASK
)
_OBJECTIVE = MessageCodec(
    Objective,
    feature_pb2.Objective,
    content=PICTURE,
    content_weight=WEIGHT,
    styles=each(STYLE),
    style_stages=STAGE_WEIGHTS,
    style_weight=WEIGHT,
    total_variation_weight=WEIGHT,
    gram_normalization=GRAM_NORMALIZATION,
    stage_balance=STAGE_BALANCE,
)
_EVALUATION = MessageCodec(
    Evaluation,
    feature_pb2.DifferentiateResponse.Evaluation,
    beside=("sequence", "gradient"),
    stage_losses=STAGE_LOSSES,
    timing=TIMING,
)

encode_objective = _OBJECTIVE.encode


def decode_objective(
    message: feature_pb2.Objective,
    load: LoadPicture,
    load_region: LoadPicture,
    field: str = "objective",
    check: Check = accept,
) -> Objective:
    """An objective. The engine checks whether stages exist and shapes agree.

    Args:
        message: The objective.
        load: Turns a picture into (3, H, W) float32.
        load_region: Turns a mask into (H, W) float32.
        field: Its place in the request, for errors.
        check: Refuses an objective before its pictures are loaded.

    Raises:
        InvalidInput: A picture is missing or bad, a weight is negative or not a number, or a value is unknown.
    """
    decoded: Any = _OBJECTIVE.decode(message, field)  # its pictures are still as they travel
    check(decoded)

    def region(mask: Picture | None, path: str) -> Array | None:
        return None if mask is None else load_region(mask, path)

    def style(sent: Style[Picture], path: str) -> Style[Array]:
        return Style(
            load(sent.picture, f"{path}.picture"),
            sent.weight,
            region(sent.content_region, f"{path}.content_region"),
            region(sent.style_region, f"{path}.style_region"),
        )

    objective: Objective = dataclasses.replace(
        decoded,
        content=None if decoded.content is None else load(decoded.content, f"{field}.content"),
        styles=tuple(style(sent, f"{field}.styles[{i}]") for i, sent in enumerate(decoded.styles)),
    )
    return objective


# --- the messages of Differentiate ---


def encode_setup(
    objective: Objective, gradient_element_type: ElementType = ElementType.FLOAT32, weights_digest: str = ""
) -> feature_pb2.DifferentiateRequest:
    """The message that sets an objective, for the network with these weights, or any if the digest is empty."""
    return feature_pb2.DifferentiateRequest(
        setup=feature_pb2.DifferentiateRequest.Setup(
            objective=encode_objective(objective),
            gradient_element_type=ELEMENT_TYPE.encode(gradient_element_type),
            weights_digest=weights_digest,
        )
    )


def decode_setup(
    message: feature_pb2.DifferentiateRequest.Setup,
    load: LoadPicture,
    load_region: LoadPicture,
    field: str = "setup",
    check: Check = accept,
) -> tuple[Objective, ElementType]:
    """The objective and the element type of its gradients.

    Raises:
        InvalidInput: As `decode_objective`.
    """
    element_type = FLOAT_TYPE.decode(message.gradient_element_type, f"{field}.gradient_element_type")
    return decode_objective(message.objective, load, load_region, f"{field}.objective", check), element_type


def encode_evaluate(picture: Array, sequence: int) -> feature_pb2.DifferentiateRequest:
    """The message that asks for loss and gradient at a picture (3, H, W)."""
    return feature_pb2.DifferentiateRequest(
        evaluate=feature_pb2.DifferentiateRequest.Evaluate(picture=encode_tensor(picture), sequence=sequence)
    )


def decode_evaluate(message: feature_pb2.DifferentiateRequest.Evaluate, field: str = "evaluate") -> tuple[Array, int]:
    """The picture (3, H, W) at which to differentiate, as float32, and its sequence number.

    Raises:
        InvalidInput: The tensor is not a floating point picture.
    """
    return decode_float_picture(message.picture, f"{field}.picture"), message.sequence


def encode_ready(weights_digest: str) -> feature_pb2.DifferentiateResponse:
    """The message that confirms the objective."""
    return feature_pb2.DifferentiateResponse(
        ready=feature_pb2.DifferentiateResponse.Ready(weights_digest=weights_digest)
    )


def encode_evaluation(
    evaluation: Evaluation, sequence: int, gradient_element_type: ElementType = ElementType.FLOAT32
) -> feature_pb2.DifferentiateResponse:
    """Loss and gradient at the picture of that sequence number.

    Raises:
        InvalidInput: The gradient does not fit float16.
    """
    message = _EVALUATION.encode(evaluation)
    message.sequence = sequence
    message.gradient.CopyFrom(encode_tensor(evaluation.gradient, gradient_element_type))
    return feature_pb2.DifferentiateResponse(evaluation=message)


def decode_evaluation(message: feature_pb2.DifferentiateResponse.Evaluation) -> Evaluation:
    """Loss and gradient. The gradient may be read-only."""
    field = "evaluation"
    return _EVALUATION.decode(message, field, gradient=decode_float_picture(message.gradient, f"{field}.gradient"))


# --- what the client calls, sends and reads ---

DIFFERENTIATE = Rpc(feature_pb2_grpc.FeatureServiceStub, "Differentiate", Kind.STREAM)


def decode_ready(message: feature_pb2.DifferentiateResponse) -> str:
    """The weights digest of the network that has the objective."""
    return message.ready.weights_digest


def decode_evaluation_reply(message: feature_pb2.DifferentiateResponse) -> tuple[int, Evaluation]:
    """The sequence number of a picture, and loss and gradient at it."""
    return message.evaluation.sequence, decode_evaluation(message.evaluation)
