"""Codecs of gramlet.feature.v1: the model and extractions. Objectives: `objective_wire`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gramlet.errors import GramletError, InternalError, InvalidInput
from gramlet.feature.types import Extraction, Features, Form, GramNormalization, Load, Model, Stage
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.tensor.arrays import FLOAT_TYPE, decode_tensor, encode_symmetric, encode_tensor
from gramlet.tensor.codec import EnumCodec, MessageCodec, each
from gramlet.tensor.wire import (
    RESIZE,
    TIMING,
    decode_picture_error,
    decode_picture_or_error,
    encode_picture,
    encode_picture_error,
)
from gramlet.transport.rpc import Kind, Rpc
from gramlet.types import Limits, Picture

_FORM = EnumCodec(
    {
        Form.ACTIVATIONS: feature_pb2.Extraction.FORM_ACTIVATIONS,
        Form.GRAM: feature_pb2.Extraction.FORM_GRAM,
        Form.POOLED: feature_pb2.Extraction.FORM_POOLED,
    }
)
GRAM_NORMALIZATION = EnumCodec(
    {
        GramNormalization.NONE: feature_pb2.GRAM_NORMALIZATION_NONE,
        GramNormalization.POSITIONS: feature_pb2.GRAM_NORMALIZATION_POSITIONS,
        GramNormalization.ELEMENTS: feature_pb2.GRAM_NORMALIZATION_ELEMENTS,
    }
)
_MODEL = MessageCodec(
    Model,
    feature_pb2.GetModelResponse,
    stages=each(MessageCodec(Stage, feature_pb2.Stage)),
    limits=MessageCodec(Limits, feature_pb2.Limits),
    load=MessageCodec(Load, feature_pb2.Load),
)
_EXTRACTION = MessageCodec(
    Extraction,
    feature_pb2.Extraction,
    forms=each(_FORM),
    gram_normalization=GRAM_NORMALIZATION,
    element_type=FLOAT_TYPE,
    resize=RESIZE,
)
encode_model, decode_model = _MODEL.encode, _MODEL.decode
encode_extraction = _EXTRACTION.encode


def decode_extraction(message: feature_pb2.Extraction, field: str = "extraction") -> Extraction:
    """What to extract. The engine checks whether the network has the stages.

    Raises:
        InvalidInput: No stages, no forms, or an unknown value.
    """
    if not message.stages:
        raise InvalidInput("name at least one stage", field=f"{field}.stages")
    if not message.forms:
        raise InvalidInput("ask for at least one form", field=f"{field}.forms")
    return _EXTRACTION.decode(message, field)


def encode_features(features: Features, extraction: Extraction) -> feature_pb2.PictureFeatures:
    """Features of one picture, in the element type and packing that the extraction asks for.

    Raises:
        InvalidInput: A value does not fit float16.
    """
    return feature_pb2.PictureFeatures(
        stages=[_encode_stage(features, stage, extraction) for stage in extraction.stages],
        height=features.height,
        width=features.width,
        timing=TIMING.encode(features.timing),
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
        timing=TIMING.decode(message.timing),
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
    """What to extract, and the pictures: one that cannot be decoded becomes an error, and the others go on.

    Raises:
        InvalidInput: The extraction is wrong, or there are no pictures.
    """
    if not message.pictures:
        raise InvalidInput("send at least one picture", field="pictures")
    pictures = [decode_picture_or_error(picture, f"pictures[{i}]") for i, picture in enumerate(message.pictures)]
    return decode_extraction(message.extraction), pictures


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
    """The id and picture of a message of ExtractStream after the first: a bad picture becomes an error.

    Raises:
        InvalidInput: The message is not a picture.
    """
    if message.WhichOneof("message") != "item":
        raise InvalidInput("after the extraction come pictures", field="item")
    return message.item.id, decode_picture_or_error(message.item.picture, "item.picture")


# --- what the client calls, sends and reads ---

GET_MODEL = Rpc(feature_pb2_grpc.FeatureServiceStub, "GetModel")
EXTRACT = Rpc(feature_pb2_grpc.FeatureServiceStub, "Extract")
EXTRACT_STREAM = Rpc(feature_pb2_grpc.FeatureServiceStub, "ExtractStream", Kind.STREAM)


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
