"""Codecs of gramlet.train.v1: recipes, reports, heads, predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gramlet.errors import GramletError, InvalidInput
from gramlet.tensor.arrays import decode_tensor, encode_tensor
from gramlet.tensor.codec import EnumCodec, Functions, MessageCodec, each
from gramlet.tensor.wire import (
    TIMING,
    decode_picture_error,
    decode_picture_or_error,
    encode_picture_error,
    put_picture,
)
from gramlet.train.configuration import ClassWeights, HeadKind, Metric, Optimizer, Recipe, Schedule, Strategy
from gramlet.train.predictions import ClassProbability, Prediction, PredictOptions
from gramlet.train.types import (
    ClassReport,
    Duplicate,
    Epoch,
    ExportFormat,
    Findings,
    Head,
    HeadDetails,
    HeadRef,
    NearDuplicate,
    Outcome,
    Report,
    Skipped,
    Suspect,
)
from gramlet.train.v1 import train_pb2, train_pb2_grpc
from gramlet.transport.rpc import Kind, Rpc
from gramlet.types import Picture

# --- recipes ---

_KIND = EnumCodec(
    {
        HeadKind.MLP: train_pb2.HEAD_KIND_MLP,
        HeadKind.LINEAR: train_pb2.HEAD_KIND_LINEAR,
        HeadKind.LOGISTIC: train_pb2.HEAD_KIND_LOGISTIC,
    },
)
_STRATEGY = EnumCodec(
    {
        Strategy.HEAD: train_pb2.STRATEGY_HEAD,
        Strategy.ALL_AT_ONCE: train_pb2.STRATEGY_ALL_AT_ONCE,
        Strategy.HEAD_THEN_STAGES: train_pb2.STRATEGY_HEAD_THEN_STAGES,
    },
)
_OPTIMIZER = EnumCodec(
    {
        Optimizer.ADAMW: train_pb2.OPTIMIZER_ADAMW,
        Optimizer.SGD: train_pb2.OPTIMIZER_SGD,
        Optimizer.LBFGS: train_pb2.OPTIMIZER_LBFGS,
    },
)
_SCHEDULE = EnumCodec(
    {
        Schedule.CONSTANT: train_pb2.SCHEDULE_CONSTANT,
        Schedule.COSINE: train_pb2.SCHEDULE_COSINE,
        Schedule.LINEAR: train_pb2.SCHEDULE_LINEAR,
    },
)
_METRIC = EnumCodec(
    {
        Metric.LOSS: train_pb2.METRIC_LOSS,
        Metric.ACCURACY: train_pb2.METRIC_ACCURACY,
        Metric.MACRO_F1: train_pb2.METRIC_MACRO_F1,
    },
)
_CLASS_WEIGHTS = EnumCodec(
    {
        ClassWeights.AUTO: train_pb2.CLASS_WEIGHTS_AUTO,
        ClassWeights.NONE: train_pb2.CLASS_WEIGHTS_NONE,
        ClassWeights.BALANCED: train_pb2.CLASS_WEIGHTS_BALANCED,
    },
)
RECIPE = MessageCodec(
    Recipe,
    train_pb2.Recipe,
    kind=_KIND,
    strategy=_STRATEGY,
    optimizer=_OPTIMIZER,
    schedule=_SCHEDULE,
    metric=_METRIC,
    class_weights=_CLASS_WEIGHTS,
)

# --- heads ---


def _encode_confusion(confusion: Sequence[Sequence[int]]) -> list[int]:
    return [count for row in confusion for count in row]


def _decode_confusion(counts: Sequence[int], field: str) -> tuple[tuple[int, ...], ...]:
    width = math.isqrt(len(counts))
    return tuple(tuple(counts[start : start + width]) for start in range(0, len(counts), width or 1))


EPOCH = MessageCodec(Epoch, train_pb2.Epoch)
SKIPPED = MessageCodec(Skipped, train_pb2.Skipped)
_REPORT = MessageCodec(
    Report,
    train_pb2.Report,
    classes=each(MessageCodec(ClassReport, train_pb2.ClassReport)),
    confusion=Functions(_encode_confusion, _decode_confusion),
)
OUTCOME = MessageCodec(Outcome, train_pb2.Outcome, recipe=RECIPE, reports=each(_REPORT), history=each(EPOCH))
_FINDINGS = MessageCodec(
    Findings,
    train_pb2.Findings,
    skipped=each(SKIPPED),
    duplicates=each(MessageCodec(Duplicate, train_pb2.Duplicate)),
    suspects=each(MessageCodec(Suspect, train_pb2.Suspect)),
    near_duplicates=each(MessageCodec(NearDuplicate, train_pb2.NearDuplicate)),
)
HEAD = MessageCodec(Head, train_pb2.Head, kind=_KIND, outcome=OUTCOME, findings=_FINDINGS)
_REF = MessageCodec(HeadRef, train_pb2.HeadRef)
_DETAILS = MessageCodec(HeadDetails, train_pb2.GetHeadResponse, head=HEAD)
EXPORT_FORMAT = EnumCodec(
    {
        ExportFormat.SAFETENSORS: train_pb2.EXPORT_FORMAT_SAFETENSORS,
        ExportFormat.ONNX: train_pb2.EXPORT_FORMAT_ONNX,
    },
    default=ExportFormat.SAFETENSORS,
)

decode_head = HEAD.decode
encode_ref, decode_ref = _REF.encode, _REF.decode
encode_details, decode_details = _DETAILS.encode, _DETAILS.decode


def encode_head(head: Head, *, summary: bool = False) -> train_pb2.Head:
    """A head; a summary leaves the history and the confusion matrices out."""
    message = HEAD.encode(head)
    if summary:
        message.outcome.ClearField("history")
        for report in message.outcome.reports:
            report.ClearField("confusion")
    return message


def encode_export_request(ref: HeadRef, file_format: ExportFormat, with_backbone: bool) -> train_pb2.ExportHeadRequest:
    """Asks for a file."""
    return train_pb2.ExportHeadRequest(
        head=encode_ref(ref), format=EXPORT_FORMAT.encode(file_format), with_backbone=with_backbone
    )


# --- predictions ---

_PREDICTION = MessageCodec(
    Prediction,
    train_pb2.Prediction,
    classes=each(MessageCodec(ClassProbability, train_pb2.ClassProbability)),
    timing=TIMING,
    heat_map=Functions(lambda values: None if values is None else encode_tensor(values), decode_tensor),
)


def encode_predict_request(
    ref: HeadRef, pictures: Sequence[Picture], options: PredictOptions
) -> train_pb2.PredictRequest:
    """Pictures to classify."""
    message = train_pb2.PredictRequest(
        head=encode_ref(ref),
        top_k=options.top_k,
        coverage=options.coverage,
        heat_maps=options.heat_maps,
        weights_digest=options.weights_digest,
    )
    for picture in pictures:
        put_picture(message.pictures.add(), picture)
    return message


def decode_predict_request(
    message: train_pb2.PredictRequest,
) -> tuple[HeadRef, list[Picture | GramletError], PredictOptions]:
    """The head, the pictures (one that cannot be decoded becomes an error), and what to return for each.

    Raises:
        InvalidInput: The coverage is not between 0 and 1.
    """
    pictures = [decode_picture_or_error(picture, f"pictures[{i}]") for i, picture in enumerate(message.pictures)]
    options = PredictOptions(
        message.top_k or PredictOptions.top_k, heat_maps=message.heat_maps, weights_digest=message.weights_digest
    )
    if message.HasField("coverage"):
        if not 0 < message.coverage < 1:
            raise InvalidInput("must be above 0 and below 1", field="coverage")
        options = replace(options, coverage=message.coverage)
    return decode_ref(message.head), pictures, options


def encode_predict_response(ref: HeadRef, outcomes: Sequence[Prediction | GramletError]) -> train_pb2.PredictResponse:
    """One outcome a picture."""
    return train_pb2.PredictResponse(head=encode_ref(ref), results=[_encode_predicted(outcome) for outcome in outcomes])


def decode_predict_response(message: train_pb2.PredictResponse) -> list[Prediction | GramletError]:
    """One outcome a picture."""
    return [_decode_predicted(result) for result in message.results]


def _encode_predicted(outcome: Prediction | GramletError) -> train_pb2.PredictResult:
    if isinstance(outcome, GramletError):
        return train_pb2.PredictResult(error=encode_picture_error(outcome))
    return train_pb2.PredictResult(prediction=_PREDICTION.encode(outcome))


def _decode_predicted(message: train_pb2.PredictResult) -> Prediction | GramletError:
    if message.WhichOneof("outcome") == "error":
        return decode_picture_error(message.error)
    return _PREDICTION.decode(message.prediction)


# --- what the client calls, sends and reads ---

PREDICT = Rpc(train_pb2_grpc.TrainServiceStub, "Predict")
GET_HEAD = Rpc(train_pb2_grpc.TrainServiceStub, "GetHead")
LIST_HEADS = Rpc(train_pb2_grpc.TrainServiceStub, "ListHeads")
DELETE_HEAD = Rpc(train_pb2_grpc.TrainServiceStub, "DeleteHead")
EXPORT_HEAD = Rpc(train_pb2_grpc.TrainServiceStub, "ExportHead", Kind.SERVER_STREAM)


def encode_get_head(ref: HeadRef) -> train_pb2.GetHeadRequest:
    """Asks for a head with its drawings."""
    return train_pb2.GetHeadRequest(head=encode_ref(ref))


def encode_list_heads(name: str) -> train_pb2.ListHeadsRequest:
    """Asks for the versions of a head; for all heads if the name is empty."""
    return train_pb2.ListHeadsRequest(name=name)


def decode_heads(message: train_pb2.ListHeadsResponse) -> list[Head]:
    """The heads, in short."""
    return [decode_head(head) for head in message.heads]


def encode_delete_head(ref: HeadRef) -> train_pb2.DeleteHeadRequest:
    """Asks to remove a head."""
    return train_pb2.DeleteHeadRequest(head=encode_ref(ref))


def decode_export_chunk(message: train_pb2.ExportHeadResponse) -> bytes:
    """The next piece of the file."""
    return message.chunk
