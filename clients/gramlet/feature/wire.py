"""Codecs of gramlet.feature.v1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from gramlet.errors import GramletError, InternalError, InvalidInput
from gramlet.feature.types import (
    Evaluation,
    Extraction,
    Features,
    Form,
    GramNormalization,
    Load,
    Model,
    Objective,
    Stage,
    StageBalance,
    Style,
)
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.tensor.arrays import decode_float_type, decode_tensor, encode_element_type, encode_symmetric, encode_tensor
from gramlet.tensor.enums import EnumCodec
from gramlet.tensor.wire import (
    decode_float_picture,
    decode_mask,
    decode_picture,
    decode_picture_error,
    decode_resize,
    decode_timing,
    encode_picture,
    encode_picture_error,
    encode_resize,
    encode_timing,
)
from gramlet.transport.rpc import Kind, Rpc
from gramlet.types import Array, ElementType, Limits, Picture

FORM = EnumCodec(
    {
        Form.ACTIVATIONS: feature_pb2.Extraction.FORM_ACTIVATIONS,
        Form.GRAM: feature_pb2.Extraction.FORM_GRAM,
        Form.POOLED: feature_pb2.Extraction.FORM_POOLED,
    }
)
_NORMALIZATIONS = {
    GramNormalization.NONE: feature_pb2.GRAM_NORMALIZATION_NONE,
    GramNormalization.POSITIONS: feature_pb2.GRAM_NORMALIZATION_POSITIONS,
    GramNormalization.ELEMENTS: feature_pb2.GRAM_NORMALIZATION_ELEMENTS,
}
_BALANCES = {
    StageBalance.NONE: feature_pb2.STAGE_BALANCE_NONE,
    StageBalance.CONTENT: feature_pb2.STAGE_BALANCE_CONTENT,
}
GRAM_NORMALIZATION = EnumCodec(_NORMALIZATIONS, default=GramNormalization.NONE)
STAGE_BALANCE = EnumCodec(_BALANCES, default=StageBalance.NONE)
# Where unset means "as the preset says" rather than a value.
PRESET_GRAM_NORMALIZATION = EnumCodec(_NORMALIZATIONS)
PRESET_STAGE_BALANCE = EnumCodec(_BALANCES)

LoadPicture = Callable[[Picture, str], Array]
"""Turns a picture into (3, H, W) float32; the string is the picture's place in the request, for errors."""


# --- the model ---


def encode_model(model: Model) -> feature_pb2.GetModelResponse:
    """The network being served."""
    return feature_pb2.GetModelResponse(
        backbone=model.backbone,
        weights_digest=model.weights_digest,
        weights_source=model.weights_source,
        device=model.device,
        precision=model.precision,
        stages=[feature_pb2.Stage(name=s.name, channels=s.channels, stride=s.stride) for s in model.stages],
        limits=_encode_limits(model.limits),
        load=_encode_load(model.load),
        server_version=model.server_version,
    )


def decode_model(message: feature_pb2.GetModelResponse) -> Model:
    """The network being served."""
    return Model(
        backbone=message.backbone,
        weights_digest=message.weights_digest,
        weights_source=message.weights_source,
        device=message.device,
        precision=message.precision,
        stages=tuple(Stage(stage.name, stage.channels, stage.stride) for stage in message.stages),
        limits=_decode_limits(message.limits),
        load=_decode_load(message.load),
        server_version=message.server_version,
    )


def _encode_limits(limits: Limits) -> feature_pb2.Limits:
    return feature_pb2.Limits(
        message_bytes=limits.message_bytes,
        picture_bytes=limits.picture_bytes,
        decoded_pixels=limits.decoded_pixels,
        network_pixels=limits.network_pixels,
        pictures_per_extract=limits.pictures_per_extract,
    )


def _decode_limits(message: feature_pb2.Limits) -> Limits:
    return Limits(
        message_bytes=message.message_bytes,
        picture_bytes=message.picture_bytes,
        decoded_pixels=message.decoded_pixels,
        network_pixels=message.network_pixels,
        pictures_per_extract=message.pictures_per_extract,
    )


def _encode_load(load: Load) -> feature_pb2.Load:
    return feature_pb2.Load(
        queued=load.queued, queue_limit=load.queue_limit, callers=load.callers, device_seconds=load.device_seconds
    )


def _decode_load(message: feature_pb2.Load) -> Load:
    return Load(message.queued, message.queue_limit, message.callers, message.device_seconds)


# --- extraction ---


def encode_extraction(extraction: Extraction) -> feature_pb2.Extraction:
    """What to extract."""
    return feature_pb2.Extraction(
        stages=extraction.stages,
        forms=[FORM.encode(form) for form in extraction.forms],
        gram_normalization=GRAM_NORMALIZATION.encode(extraction.gram_normalization),
        triangle=extraction.triangle,
        element_type=encode_element_type(extraction.element_type),
        resize=encode_resize(extraction.resize),
    )


def decode_extraction(message: feature_pb2.Extraction, field: str = "extraction") -> Extraction:
    """What to extract. Whether the network has the stages is for the engine to say.

    Raises:
        InvalidInput: No stages, no forms, or an unknown value.
    """
    if not message.stages:
        raise InvalidInput("name at least one stage", field=f"{field}.stages")
    if not message.forms:
        raise InvalidInput("ask for at least one form", field=f"{field}.forms")
    return Extraction(
        stages=tuple(message.stages),
        forms=tuple(FORM.decode(form, f"{field}.forms[{i}]") for i, form in enumerate(message.forms)),
        gram_normalization=GRAM_NORMALIZATION.decode(message.gram_normalization, f"{field}.gram_normalization"),
        triangle=message.triangle,
        element_type=decode_float_type(message.element_type, f"{field}.element_type"),
        resize=decode_resize(message.resize, f"{field}.resize"),
    )


def encode_features(features: Features, extraction: Extraction) -> feature_pb2.PictureFeatures:
    """Features of one picture, in the element type and packing that the extraction asks for.

    Raises:
        InvalidInput: A value does not fit float16.
    """
    return feature_pb2.PictureFeatures(
        stages=[_encode_stage(features, stage, extraction) for stage in extraction.stages],
        height=features.height,
        width=features.width,
        timing=encode_timing(features.timing),
    )


def _encode_stage(features: Features, stage: str, extraction: Extraction) -> feature_pb2.StageFeatures:
    element_type = extraction.element_type
    encode_gram = encode_symmetric if extraction.triangle else encode_tensor
    message = feature_pb2.StageFeatures(stage=stage)
    if stage in features.activations:
        message.activations.CopyFrom(encode_tensor(features.activations[stage], element_type))
    if stage in features.grams:
        message.gram.CopyFrom(encode_gram(features.grams[stage], element_type))
    if stage in features.pooled:
        message.pooled.CopyFrom(encode_tensor(features.pooled[stage], element_type))
    return message


def decode_features(message: feature_pb2.PictureFeatures) -> Features:
    """Features of one picture; Gram matrices always whole. The arrays may be read-only."""

    def arrays(form: str) -> dict[str, Any]:
        return {
            stage.stage: decode_tensor(getattr(stage, form), f"{stage.stage}.{form}")
            for stage in message.stages
            if stage.HasField(form)
        }

    return Features(
        activations=arrays("activations"),
        grams=arrays("gram"),
        pooled=arrays("pooled"),
        height=message.height,
        width=message.width,
        timing=decode_timing(message.timing),
    )


def encode_outcome(outcome: Features | GramletError, extraction: Extraction) -> feature_pb2.ExtractResult:
    """The outcome for one picture. Features that do not fit the element type become that picture's error."""
    if isinstance(outcome, GramletError):
        return feature_pb2.ExtractResult(error=encode_picture_error(outcome))
    try:
        return feature_pb2.ExtractResult(features=encode_features(outcome, extraction))
    except InvalidInput as error:
        misfit = InvalidInput(error.message, field="extraction.element_type")
        return feature_pb2.ExtractResult(error=encode_picture_error(misfit))


def decode_outcome(message: feature_pb2.ExtractResult) -> Features | GramletError:
    """The outcome for one picture: its features, or the error as a value."""
    match message.WhichOneof("outcome"):
        case "features":
            return decode_features(message.features)
        case "error":
            return decode_picture_error(message.error)
        case _:
            return InternalError("the server sent no outcome for a picture")


def encode_extract_request(extraction: Extraction, pictures: Iterable[Picture]) -> feature_pb2.ExtractRequest:
    """A few pictures and what to extract from them."""
    return feature_pb2.ExtractRequest(
        extraction=encode_extraction(extraction), pictures=[encode_picture(picture) for picture in pictures]
    )


def decode_extract_request(
    message: feature_pb2.ExtractRequest,
) -> tuple[Extraction, list[Picture | GramletError]]:
    """What to extract, and the pictures: one that cannot be decoded is an error in its place, and costs no other.

    Raises:
        InvalidInput: The extraction is wrong, or there are no pictures.
    """
    if not message.pictures:
        raise InvalidInput("send at least one picture", field="pictures")
    pictures = [_picture_or_error(picture, f"pictures[{i}]") for i, picture in enumerate(message.pictures)]
    return decode_extraction(message.extraction), pictures


def _picture_or_error(message: Any, field: str) -> Picture | GramletError:
    try:
        return decode_picture(message, field)
    except InvalidInput as error:
        return error


def encode_extract_item(identifier: str, picture: Picture) -> feature_pb2.ExtractStreamRequest:
    """A picture of an ExtractStream."""
    return feature_pb2.ExtractStreamRequest(
        item=feature_pb2.ExtractStreamRequest.Item(id=identifier, picture=encode_picture(picture))
    )


def decode_extract_start(requests: Iterator[feature_pb2.ExtractStreamRequest]) -> Extraction:
    """What to extract, from the first message of an ExtractStream.

    Raises:
        InvalidInput: The first message is something else, or there is none.
    """
    first = next(requests, None)
    if first is None or first.WhichOneof("message") != "extraction":
        raise InvalidInput("say what to extract before the first picture", field="extraction")
    return decode_extraction(first.extraction)


def decode_extract_item(message: feature_pb2.ExtractStreamRequest) -> tuple[str, Picture | GramletError]:
    """The id and picture of a message of ExtractStream after the first: a bad picture is an error in its place.

    Raises:
        InvalidInput: The message is no picture.
    """
    if message.WhichOneof("message") != "item":
        raise InvalidInput("after the extraction come pictures", field="item")
    return message.item.id, _picture_or_error(message.item.picture, "item.picture")


# --- differentiation ---


def encode_objective(objective: Objective) -> feature_pb2.Objective:
    """An objective; its pictures travel as pixels (or, given bytes, as encoded files)."""
    message = feature_pb2.Objective(
        content_stage=objective.content_stage,
        content_weight=objective.content_weight,
        styles=[encode_style(style) for style in objective.styles],
        style_stages=encode_stage_weights(objective.style_stages),
        style_weight=objective.style_weight,
        total_variation_weight=objective.total_variation_weight,
        gram_normalization=GRAM_NORMALIZATION.encode(objective.gram_normalization),
        stage_balance=STAGE_BALANCE.encode(objective.stage_balance),
        antialiased=objective.antialiased,
        reduced_precision=objective.reduced_precision,
    )
    if objective.content is not None:
        message.content.CopyFrom(encode_picture(objective.content))
    return message


def decode_objective(
    message: feature_pb2.Objective, load: LoadPicture, load_region: LoadPicture, field: str = "objective"
) -> Objective:
    """An objective. Whether stages exist and shapes agree is for the engine to say.

    Args:
        message: The objective.
        load: Turns a picture into (3, H, W) float32.
        load_region: Turns a mask into (H, W) float32.
        field: Its place in the request, for errors.

    Raises:
        InvalidInput: A picture is missing or bad, a weight is negative or no number, or a value is unknown.
    """

    def region(mask: Picture | None, path: str) -> Array | None:
        return None if mask is None else load_region(mask, path)

    def style(source: feature_pb2.Style, path: str) -> Style[Array]:
        decoded = decode_style(source, path)
        return Style(
            load(decoded.picture, f"{path}.picture"),
            decoded.weight,
            region(decoded.content_region, f"{path}.content_region"),
            region(decoded.style_region, f"{path}.style_region"),
        )

    has_content, content = message.HasField("content"), f"{field}.content"
    return Objective(
        content=load(decode_picture(message.content, content), content) if has_content else None,
        content_stage=message.content_stage,
        content_weight=checked_weight(message.content_weight, f"{field}.content_weight"),
        styles=tuple(style(each, f"{field}.styles[{i}]") for i, each in enumerate(message.styles)),
        style_stages=decode_stage_weights(message.style_stages, f"{field}.style_stages"),
        style_weight=checked_weight(message.style_weight, f"{field}.style_weight"),
        total_variation_weight=checked_weight(message.total_variation_weight, f"{field}.total_variation_weight"),
        gram_normalization=GRAM_NORMALIZATION.decode(message.gram_normalization, f"{field}.gram_normalization"),
        stage_balance=STAGE_BALANCE.decode(message.stage_balance, f"{field}.stage_balance"),
        antialiased=message.antialiased,
        reduced_precision=message.reduced_precision,
    )


def encode_setup(
    objective: Objective, gradient_element_type: ElementType = ElementType.FLOAT32
) -> feature_pb2.DifferentiateRequest:
    """The message that puts an objective in place."""
    return feature_pb2.DifferentiateRequest(
        setup=feature_pb2.DifferentiateRequest.Setup(
            objective=encode_objective(objective), gradient_element_type=encode_element_type(gradient_element_type)
        )
    )


def decode_setup(
    message: feature_pb2.DifferentiateRequest.Setup, load: LoadPicture, load_region: LoadPicture, field: str = "setup"
) -> tuple[Objective, ElementType]:
    """The objective and the element type of its gradients.

    Raises:
        InvalidInput: As `decode_objective`.
    """
    element_type = decode_float_type(message.gradient_element_type, f"{field}.gradient_element_type")
    return decode_objective(message.objective, load, load_region, f"{field}.objective"), element_type


def encode_evaluate(picture: Array, sequence: int) -> feature_pb2.DifferentiateRequest:
    """The message that asks for loss and gradient at a picture (3, H, W)."""
    return feature_pb2.DifferentiateRequest(
        evaluate=feature_pb2.DifferentiateRequest.Evaluate(picture=encode_tensor(picture), sequence=sequence)
    )


def decode_evaluate(message: feature_pb2.DifferentiateRequest.Evaluate, field: str = "evaluate") -> tuple[Array, int]:
    """The picture (3, H, W) at which to differentiate, as float32, and its sequence number.

    Raises:
        InvalidInput: The tensor is no floating point picture.
    """
    return decode_float_picture(message.picture, f"{field}.picture"), message.sequence


def encode_ready(weights_digest: str) -> feature_pb2.DifferentiateResponse:
    """The message that says the objective is in place."""
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
    return feature_pb2.DifferentiateResponse(
        evaluation=feature_pb2.DifferentiateResponse.Evaluation(
            sequence=sequence,
            loss=evaluation.loss,
            style_loss=evaluation.style_loss,
            content_loss=evaluation.content_loss,
            total_variation_loss=evaluation.total_variation_loss,
            stage_losses=encode_stage_losses(evaluation.stage_losses),
            gradient=encode_tensor(evaluation.gradient, gradient_element_type),
            timing=encode_timing(evaluation.timing),
        )
    )


def decode_evaluation(message: feature_pb2.DifferentiateResponse.Evaluation) -> Evaluation:
    """Loss and gradient. The gradient may be read-only."""
    return Evaluation(
        loss=message.loss,
        style_loss=message.style_loss,
        content_loss=message.content_loss,
        total_variation_loss=message.total_variation_loss,
        stage_losses=decode_stage_losses(message.stage_losses),
        gradient=decode_float_picture(message.gradient, "evaluation.gradient"),
        timing=decode_timing(message.timing),
    )


# --- styles, weights and losses by stage, shared with stylization ---


def encode_style(style: Style[Any]) -> feature_pb2.Style:
    """A style; its picture and masks travel as they are."""
    message = feature_pb2.Style(picture=encode_picture(style.picture), weight=style.weight)
    if style.content_region is not None:
        message.content_region.CopyFrom(encode_picture(style.content_region))
    if style.style_region is not None:
        message.style_region.CopyFrom(encode_picture(style.style_region))
    return message


def decode_style(message: feature_pb2.Style, field: str) -> Style[Picture]:
    """A style as it travels; its weight is 1 if unset.

    Raises:
        InvalidInput: The picture is missing, a picture or mask is bad, or the weight is negative or no number.
    """

    def mask(name: str) -> Picture | None:
        return decode_mask(getattr(message, name), f"{field}.{name}") if message.HasField(name) else None

    return Style(
        decode_picture(message.picture, f"{field}.picture"),
        checked_weight(message.weight, f"{field}.weight") if message.HasField("weight") else 1.0,
        mask("content_region"),
        mask("style_region"),
    )


def encode_stage_weights(weights: Mapping[str, float]) -> list[feature_pb2.StageWeight]:
    """Weights by stage."""
    return [feature_pb2.StageWeight(stage=stage, weight=weight) for stage, weight in weights.items()]


def decode_stage_weights(messages: Iterable[feature_pb2.StageWeight], field: str) -> dict[str, float]:
    """Weights by stage.

    Raises:
        InvalidInput: A stage twice, or a weight that is negative or no number.
    """
    weights: dict[str, float] = {}
    for i, message in enumerate(messages):
        if message.stage in weights:
            raise InvalidInput(f"stage {message.stage!r} is named twice", field=f"{field}[{i}].stage")
        weights[message.stage] = checked_weight(message.weight, f"{field}[{i}].weight")
    return weights


def checked_weight(weight: float, field: str) -> float:
    """The weight itself.

    Raises:
        InvalidInput: It is negative, infinite or no number.
    """
    if not math.isfinite(weight) or weight < 0:
        raise InvalidInput(f"a weight is a finite number, not negative: {weight}", field=field)
    return weight


def encode_stage_losses(losses: Mapping[str, float]) -> list[feature_pb2.StageLoss]:
    """Style losses by stage."""
    return [feature_pb2.StageLoss(stage=stage, loss=loss) for stage, loss in losses.items()]


def decode_stage_losses(messages: Iterable[feature_pb2.StageLoss]) -> dict[str, float]:
    """Style losses by stage."""
    return {message.stage: message.loss for message in messages}


# --- what the client calls, sends and reads ---

GET_MODEL = Rpc(feature_pb2_grpc.FeatureServiceStub, "GetModel")
EXTRACT = Rpc(feature_pb2_grpc.FeatureServiceStub, "Extract")
EXTRACT_STREAM = Rpc(feature_pb2_grpc.FeatureServiceStub, "ExtractStream", Kind.STREAM)
DIFFERENTIATE = Rpc(feature_pb2_grpc.FeatureServiceStub, "Differentiate", Kind.STREAM)


def encode_get_model() -> feature_pb2.GetModelRequest:
    """Asks for the network being served."""
    return feature_pb2.GetModelRequest()


def decode_extract_response(message: feature_pb2.ExtractResponse) -> list[Features | GramletError]:
    """One outcome for each picture."""
    return [decode_outcome(result) for result in message.results]


def encode_extract_start(extraction: Extraction) -> feature_pb2.ExtractStreamRequest:
    """The first message of an ExtractStream."""
    return feature_pb2.ExtractStreamRequest(extraction=encode_extraction(extraction))


def decode_extract_reply(message: feature_pb2.ExtractStreamResponse) -> tuple[str, Features | GramletError]:
    """The id of a picture and its outcome."""
    return message.id, decode_outcome(message.result)


def decode_ready(message: feature_pb2.DifferentiateResponse) -> str:
    """The weights digest of the network that has the objective."""
    return message.ready.weights_digest


def decode_evaluation_reply(message: feature_pb2.DifferentiateResponse) -> tuple[int, Evaluation]:
    """The sequence number of a picture, and loss and gradient at it."""
    return message.evaluation.sequence, decode_evaluation(message.evaluation)
