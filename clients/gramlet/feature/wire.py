"""Codecs of gramlet.feature.v1: the model and extractions. Objectives: `objective_wire`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gramlet.errors import GramletError, InternalError, InvalidInput, counted
from gramlet.feature.types import Extraction, Features, Form, GramNormalization, Load, Model, Stage
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.tensor.arrays import FLOAT_TYPE, decode_tensor, encode_symmetric, encode_tensor, put_tensor
from gramlet.tensor.codec import EnumCodec, MessageCodec, each
from gramlet.tensor.v1 import timing_pb2
from gramlet.tensor.wire import (
    RESIZE,
    decode_picture_error,
    decode_picture_or_error,
    encode_picture_error,
    put_picture,
)
from gramlet.transport.rpc import Kind, Rpc
from gramlet.types import Array, ElementType, Limits, Picture, Timing

StreamItems = list[tuple[str, Picture | GramletError]]
"""The pictures of one message of an ExtractStream, with their ids."""

_REPLY_BYTES = 4 * 2**20
_ALL_FORMS = tuple(Form)
_BESIDES_POOLED = (Form.ACTIVATIONS, Form.GRAM)

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
    return _extraction_in(message.SerializeToString(), field)


@lru_cache(maxsize=256)  # most calls of a program ask for the same
def _extraction_in(data: bytes, field: str) -> Extraction:
    message = feature_pb2.Extraction.FromString(data)
    if not message.stages:
        raise InvalidInput("name at least one stage", field=f"{field}.stages")
    if not message.forms:
        raise InvalidInput("ask for at least one form", field=f"{field}.forms")
    return _EXTRACTION.decode(message, field)


def encode_features(
    features: Features, extraction: Extraction, forms: Collection[Form] = _ALL_FORMS
) -> feature_pb2.PictureFeatures:
    """Features of one picture, in the element type and packing that the extraction asks for.

    Args:
        features: The features.
        extraction: What was asked for.
        forms: The forms to encode.

    Raises:
        InvalidInput: A value does not fit float16.
    """
    stages = extraction.stages if any(form in forms for form in extraction.forms) else ()
    timing = features.timing
    return feature_pb2.PictureFeatures(
        stages=[_encode_stage(features, stage, extraction, forms) for stage in stages],
        height=features.height,
        width=features.width,
        timing=timing_pb2.Timing(
            queue_seconds=timing.queue_seconds, compute_seconds=timing.compute_seconds, batch_size=timing.batch_size
        ),
        weights_digest=features.weights_digest,
    )


def _encode_stage(
    features: Features, stage: str, extraction: Extraction, forms: Collection[Form]
) -> feature_pb2.StageFeatures:
    element_type = extraction.element_type
    encode_gram = encode_symmetric if extraction.triangle else encode_tensor
    message = feature_pb2.StageFeatures(stage=stage)
    if stage in features.activations and Form.ACTIVATIONS in forms:
        put_tensor(message.activations, features.activations[stage], element_type)
    if stage in features.grams and Form.GRAM in forms:
        message.gram.CopyFrom(encode_gram(features.grams[stage], element_type))
    if stage in features.pooled and Form.POOLED in forms:
        put_tensor(message.pooled, features.pooled[stage], element_type)
    return message


def decode_features(message: feature_pb2.PictureFeatures, pooled: Mapping[str, Array] | None = None) -> Features:
    """Features of one picture; Gram matrices always whole. The arrays may be read-only.

    Args:
        message: The features.
        pooled: The pooled ones, where they came beside the message.
    """

    stages = message.stages

    def arrays(form: str) -> dict[str, Any]:
        return {
            stage.stage: decode_tensor(getattr(stage, form), f"{stage.stage}.{form}")
            for stage in stages
            if stage.HasField(form)
        }

    timing = message.timing
    return Features(
        activations=arrays("activations") if stages else {},
        grams=arrays("gram") if stages else {},
        pooled=pooled or arrays("pooled"),
        height=message.height,
        width=message.width,
        timing=Timing(timing.queue_seconds, timing.compute_seconds, timing.batch_size),
        weights_digest=message.weights_digest,
    )


def encode_outcome(
    outcome: Features | GramletError, extraction: Extraction, forms: Collection[Form] = _ALL_FORMS
) -> feature_pb2.ExtractResult:
    """The outcome for one picture. Features that do not fit the element type become that picture's error."""
    if isinstance(outcome, GramletError):
        return feature_pb2.ExtractResult(error=encode_picture_error(outcome))
    try:
        return feature_pb2.ExtractResult(features=encode_features(outcome, extraction, forms))
    except InvalidInput as error:
        misfit = InvalidInput(error.message, field="extraction.element_type")
        return feature_pb2.ExtractResult(error=encode_picture_error(misfit))


def decode_outcome(
    message: feature_pb2.ExtractResult, pooled: Mapping[str, Array] | None = None
) -> Features | GramletError:
    """The outcome for one picture: its features, or the error as a value."""
    match message.WhichOneof("outcome"):
        case "features":
            return decode_features(message.features, pooled)
        case "error":
            return decode_picture_error(message.error)
        case _:
            return InternalError("the server sent no outcome for a picture")


def encode_extract_request(extraction: Extraction, pictures: Iterable[Picture]) -> feature_pb2.ExtractRequest:
    """A few pictures and what to extract from them."""
    message = feature_pb2.ExtractRequest(extraction=encode_extraction(extraction))
    for picture in pictures:
        put_picture(message.pictures.add(), picture)
    return message


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


def encode_extract_items(items: Iterable[tuple[str, Picture]]) -> feature_pb2.ExtractStreamRequest:
    """Pictures of an ExtractStream, with their ids."""
    message = feature_pb2.ExtractStreamRequest()
    for identifier, picture in items:
        put_picture(message.items.add(id=identifier).picture, picture)
    return message


def decode_extract_stream(
    requests: Iterator[feature_pb2.ExtractStreamRequest],
) -> tuple[Extraction, Iterator[StreamItems]]:
    """What to extract, and the pictures with their ids, message by message. A bad picture becomes an error.

    Raises:
        InvalidInput: There is no extraction in the first message. Later: there is one, or no picture, in another.
    """
    first = next(requests, None)
    if first is None or not first.HasField("extraction"):
        raise InvalidInput("say what to extract before the first picture", field="extraction")
    return decode_extraction(first.extraction), _stream_items(first, requests)


def _stream_items(
    first: feature_pb2.ExtractStreamRequest, requests: Iterator[feature_pb2.ExtractStreamRequest]
) -> Iterator[StreamItems]:
    if first.items:
        yield _decode_items(first)
    for request in requests:
        if request.HasField("extraction") or not request.items:
            raise InvalidInput("after the extraction come pictures", field="items")
        yield _decode_items(request)


def _decode_items(request: feature_pb2.ExtractStreamRequest) -> StreamItems:
    return [
        (item.id, decode_picture_or_error(item.picture, f"items[{number}].picture"))
        for number, item in enumerate(request.items)
    ]


def encode_extract_replies(
    ids: Sequence[str], outcomes: Sequence[Features | GramletError], extraction: Extraction
) -> Iterator[feature_pb2.ExtractStreamResponse]:
    """The outcomes for some pictures of a stream, in messages of a few MiB, unless one picture has more."""
    start, size = 0, 0
    for end, outcome in enumerate(outcomes):
        more = _features_bytes(outcome)
        if end > start and size + more > _REPLY_BYTES:
            yield _encode_reply(ids[start:end], outcomes[start:end], extraction)
            start, size = end, 0
        size += more
    yield _encode_reply(ids[start:], outcomes[start:], extraction)


def _features_bytes(outcome: Features | GramletError) -> int:
    if isinstance(outcome, GramletError):
        return 0
    return sum(array.nbytes for form in (outcome.activations, outcome.grams, outcome.pooled) for array in form.values())


def _encode_reply(
    ids: Sequence[str], outcomes: Sequence[Features | GramletError], extraction: Extraction
) -> feature_pb2.ExtractStreamResponse:
    if Form.POOLED in extraction.forms and extraction.element_type is ElementType.FLOAT16:
        outcomes = [_fitting_float16(outcome) for outcome in outcomes]
    results = [encode_outcome(outcome, extraction, _BESIDES_POOLED) for outcome in outcomes]
    pooled = [
        outcome.pooled
        for outcome, result in zip(outcomes, results, strict=True)
        if isinstance(outcome, Features) and result.HasField("features") and outcome.pooled
    ]
    message = feature_pb2.ExtractStreamResponse(ids=ids, results=results)
    for stage in pooled[0] if pooled else ():
        of_stage = np.stack([rows[stage] for rows in pooled])
        put_tensor(message.pooled.add(stage=stage).pooled, of_stage, extraction.element_type)
    return message


def _fitting_float16(outcome: Features | GramletError) -> Features | GramletError:
    """An error in place of features whose pooled values do not fit float16."""
    if isinstance(outcome, Features):
        try:
            for row in outcome.pooled.values():
                encode_tensor(row, ElementType.FLOAT16)
        except InvalidInput as error:
            return InvalidInput(error.message, field="extraction.element_type")
    return outcome


# --- what the client calls, sends and reads ---

GET_MODEL = Rpc(feature_pb2_grpc.FeatureServiceStub, "GetModel")
EXTRACT = Rpc(feature_pb2_grpc.FeatureServiceStub, "Extract")
EXTRACT_STREAM = Rpc(feature_pb2_grpc.FeatureServiceStub, "ExtractStream", Kind.STREAM)


def encode_get_model(weights_digest: str = "") -> feature_pb2.GetModelRequest:
    """Asks for the network being served; with a digest, for the one with these weights."""
    return feature_pb2.GetModelRequest(weights_digest=weights_digest)


def decode_extract_response(message: feature_pb2.ExtractResponse, count: int) -> list[Features | GramletError]:
    """One outcome for each of so many pictures.

    Raises:
        InternalError: There are more or fewer.
    """
    if len(message.results) != count:
        raise InternalError(
            f"the server sent {counted(len(message.results), 'result')} for {counted(count, 'picture')}"
        )
    return [decode_outcome(result) for result in message.results]


def encode_extract_start(extraction: Extraction) -> feature_pb2.ExtractStreamRequest:
    """The first message of an ExtractStream."""
    return feature_pb2.ExtractStreamRequest(extraction=encode_extraction(extraction))


def decode_extract_reply(
    message: feature_pb2.ExtractStreamResponse,
) -> list[tuple[str, Features | GramletError]]:
    """The ids of pictures and their outcomes.

    Raises:
        InternalError: The parts of the message do not fit each other.
    """
    pooled = {each.stage: decode_tensor(each.pooled, f"{each.stage}.pooled") for each in message.pooled}
    found = sum(result.HasField("features") for result in message.results)
    if len(message.ids) != len(message.results) or any(len(rows) != found for rows in pooled.values()):
        raise InternalError("the server sent a reply whose parts do not fit each other")
    outcomes, row = [], 0
    for result in message.results:
        # Copies: a row would keep the features of all pictures of the message in memory.
        rows = {stage: rows[row].copy() for stage, rows in pooled.items()} if result.HasField("features") else {}
        row += bool(rows)
        outcomes.append(decode_outcome(result, rows))
    return list(zip(message.ids, outcomes, strict=True))
