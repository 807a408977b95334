"""Codecs of gramlet.train.v1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gramlet.errors import GramletError, InvalidInput
from gramlet.tensor.enums import EnumCodec
from gramlet.tensor.v1 import picture_pb2
from gramlet.tensor.wire import (
    decode_picture,
    decode_picture_error,
    decode_timing,
    encode_picture,
    encode_picture_error,
    encode_timing,
)
from gramlet.train.types import (
    TRAIN,
    Accepted,
    ClassProbability,
    ClassReport,
    ClassWeights,
    Configuration,
    Duplicate,
    Entry,
    Epoch,
    Event,
    ExportFormat,
    Extracting,
    Findings,
    Head,
    HeadDetails,
    HeadKind,
    HeadRef,
    Metric,
    Optimizer,
    Outcome,
    Prediction,
    Queued,
    Recipe,
    Report,
    Result,
    Schedule,
    Skipped,
    Started,
    Step,
    Strategy,
    Suspect,
    TrainOrder,
    Unreadable,
    Upload,
)
from gramlet.train.v1 import train_pb2, train_pb2_grpc
from gramlet.transport.rpc import Kind, Rpc
from gramlet.types import Picture

DEFAULT_TOP_K = 5

KIND = EnumCodec(
    {HeadKind.MLP: train_pb2.HEAD_KIND_MLP, HeadKind.LINEAR: train_pb2.HEAD_KIND_LINEAR}, default=HeadKind.MLP
)
STRATEGY = EnumCodec(
    {
        Strategy.HEAD: train_pb2.STRATEGY_HEAD,
        Strategy.ALL_AT_ONCE: train_pb2.STRATEGY_ALL_AT_ONCE,
        Strategy.HEAD_THEN_STAGES: train_pb2.STRATEGY_HEAD_THEN_STAGES,
    },
    default=Strategy.HEAD,
)
OPTIMIZER = EnumCodec(
    {
        Optimizer.ADAMW: train_pb2.OPTIMIZER_ADAMW,
        Optimizer.SGD: train_pb2.OPTIMIZER_SGD,
        Optimizer.LBFGS: train_pb2.OPTIMIZER_LBFGS,
    },
    default=Optimizer.ADAMW,
)
SCHEDULE = EnumCodec(
    {
        Schedule.CONSTANT: train_pb2.SCHEDULE_CONSTANT,
        Schedule.COSINE: train_pb2.SCHEDULE_COSINE,
        Schedule.LINEAR: train_pb2.SCHEDULE_LINEAR,
    },
    default=Schedule.COSINE,
)
METRIC = EnumCodec(
    {
        Metric.LOSS: train_pb2.METRIC_LOSS,
        Metric.ACCURACY: train_pb2.METRIC_ACCURACY,
        Metric.MACRO_F1: train_pb2.METRIC_MACRO_F1,
    },
    default=Metric.LOSS,
)
CLASS_WEIGHTS = EnumCodec(
    {
        ClassWeights.NONE: train_pb2.CLASS_WEIGHTS_NONE,
        ClassWeights.BALANCED: train_pb2.CLASS_WEIGHTS_BALANCED,
    },
    default=ClassWeights.NONE,
)
UNREADABLE = EnumCodec(
    {Unreadable.SKIP: train_pb2.UNREADABLE_SKIP, Unreadable.FAIL: train_pb2.UNREADABLE_FAIL}, default=Unreadable.SKIP
)
EXPORT_FORMAT = EnumCodec(
    {
        ExportFormat.SAFETENSORS: train_pb2.EXPORT_FORMAT_SAFETENSORS,
        ExportFormat.ONNX: train_pb2.EXPORT_FORMAT_ONNX,
    },
    default=ExportFormat.SAFETENSORS,
)

# Fields with a default of their own: what a message leaves unset comes from the dataclass.
_RECIPE_OPTIONAL = (
    "stage_learning_rate",
    "learning_rate",
    "head_rate_factor",
    "epochs",
    "stage_epochs",
    "batch_size",
    "weight_decay",
    "patience",
    "calibrate",
)
_CONFIGURATION_OPTIONAL = ("size", "validation_fraction")


# --- requests of Train ---


def encode_order(order: TrainOrder) -> train_pb2.TrainRequest:
    """The first message of a run."""
    if order.configuration is None:
        return train_pb2.TrainRequest(resume_run_id=order.resume_run_id)
    return train_pb2.TrainRequest(configuration=_encode_configuration(order.configuration, order.run_id))


def encode_upload(upload: Upload) -> train_pb2.TrainRequest:
    """A picture that the server asked for."""
    return train_pb2.TrainRequest(
        picture=train_pb2.LabelledPicture(entry=upload.entry, picture=encode_picture(upload.picture))
    )


def decode_order(requests: Iterator[train_pb2.TrainRequest]) -> TrainOrder:
    """The first message of a run.

    Raises:
        InvalidInput: There is none, or it is a picture, or something in it is wrong.
    """
    request = next(requests, None)
    match request.WhichOneof("message") if request is not None else None:
        case "configuration":
            assert request is not None
            configuration = request.configuration
            return TrainOrder(decode_configuration(configuration), run_id=configuration.run_id)
        case "resume_run_id":
            assert request is not None
            return TrainOrder(resume_run_id=request.resume_run_id)
        case _:
            raise InvalidInput("the first message must be `configuration` or `resume_run_id`", field="message")


def decode_uploads(requests: Iterator[train_pb2.TrainRequest]) -> Iterator[Upload]:
    """The pictures that follow.

    Raises:
        InvalidInput: Something else than a picture.
    """
    for request in requests:
        if request.WhichOneof("message") != "picture":
            raise InvalidInput("after the first message only pictures may follow", field="message")
        field = f"picture.entry[{request.picture.entry}]"
        yield Upload(request.picture.entry, decode_picture(request.picture.picture, field))


def _encode_configuration(configuration: Configuration, run_id: str) -> train_pb2.Configuration:
    message = train_pb2.Configuration(
        name=configuration.name,
        run_id=run_id,
        recipes=[encode_recipe(recipe) for recipe in configuration.recipes],
        size=configuration.size,
        views=configuration.views,
        validation_fraction=configuration.validation_fraction,
        seed=configuration.seed,
        unreadable=UNREADABLE.encode(configuration.unreadable),
        keep_on_cancel=configuration.keep_on_cancel,
    )
    if configuration.dataset:
        message.dataset_uri = configuration.dataset
    else:
        message.entries.entries.extend(_encode_entry(entry) for entry in configuration.entries)
        message.entries.SetInParent()
    return message


def decode_configuration(message: train_pb2.Configuration, field: str = "configuration") -> Configuration:
    """A training run.

    Raises:
        InvalidInput: An unknown enumeration value, a hash of another length, or no data.
    """
    if message.WhichOneof("data") is None:
        raise InvalidInput("set `entries` or `dataset_uri`", field=f"{field}.data")
    recipes = tuple(decode_recipe(recipe, f"{field}.recipes[{i}]") for i, recipe in enumerate(message.recipes))
    return Configuration(
        name=message.name,
        recipes=recipes or (Recipe(),),
        entries=tuple(_decode_entry(entry, f"{field}.entries[{i}]") for i, entry in enumerate(message.entries.entries)),
        dataset=message.dataset_uri,
        views=message.views,
        seed=message.seed,
        unreadable=UNREADABLE.decode(message.unreadable, f"{field}.unreadable"),
        keep_on_cancel=message.keep_on_cancel,
        **_set_fields(message, _CONFIGURATION_OPTIONAL),
    )


def _encode_entry(entry: Entry) -> train_pb2.Entry:
    return train_pb2.Entry(name=entry.name, label=entry.label, set=entry.set, sha256=bytes.fromhex(entry.sha256))


def _decode_entry(message: train_pb2.Entry, field: str) -> Entry:
    if len(message.sha256) not in (0, 32):
        raise InvalidInput(f"a SHA-256 has 32 bytes, not {len(message.sha256)}", field=f"{field}.sha256")
    return Entry(message.name, message.label, message.set or TRAIN, message.sha256.hex())


def encode_recipe(recipe: Recipe) -> train_pb2.Recipe:
    """How one head is trained."""
    return train_pb2.Recipe(
        kind=KIND.encode(recipe.kind),
        strategy=STRATEGY.encode(recipe.strategy),
        stages=recipe.stages,
        stage_rates=recipe.stage_rates,
        optimizer=OPTIMIZER.encode(recipe.optimizer),
        schedule=SCHEDULE.encode(recipe.schedule),
        warmup_epochs=recipe.warmup_epochs,
        metric=METRIC.encode(recipe.metric),
        class_weights=CLASS_WEIGHTS.encode(recipe.class_weights),
        label_smoothing=recipe.label_smoothing,
        update_batch_norm=recipe.update_batch_norm,
        seed=recipe.seed,
        **{name: getattr(recipe, name) for name in _RECIPE_OPTIONAL},
    )


def decode_recipe(message: train_pb2.Recipe, field: str = "recipe") -> Recipe:
    """How one head is trained. What is unset has the dataclass's default.

    Raises:
        InvalidInput: An unknown enumeration value.
    """
    return Recipe(
        kind=KIND.decode(message.kind, f"{field}.kind"),
        strategy=STRATEGY.decode(message.strategy, f"{field}.strategy"),
        stages=tuple(message.stages),
        stage_rates=dict(message.stage_rates),
        optimizer=OPTIMIZER.decode(message.optimizer, f"{field}.optimizer"),
        schedule=SCHEDULE.decode(message.schedule, f"{field}.schedule"),
        warmup_epochs=message.warmup_epochs,
        metric=METRIC.decode(message.metric, f"{field}.metric"),
        class_weights=CLASS_WEIGHTS.decode(message.class_weights, f"{field}.class_weights"),
        label_smoothing=message.label_smoothing,
        update_batch_norm=message.update_batch_norm,
        seed=message.seed,
        **_set_fields(message, _RECIPE_OPTIONAL),
    )


def _set_fields(message: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names if message.HasField(name)}


# --- events of Train ---


def encode_event(event: Event, run_id: str) -> train_pb2.TrainResponse:
    """An event of that run."""
    message = train_pb2.TrainResponse(run_id=run_id)
    match event:
        case Queued():
            message.queued.position = event.position
            message.queued.SetInParent()
        case Accepted():
            message.accepted.CopyFrom(
                train_pb2.Accepted(pictures=event.pictures, wanted=event.wanted, names=event.names)
            )
        case Extracting():
            message.extracting.CopyFrom(train_pb2.Extracting(**vars(event)))
        case Skipped():
            message.skipped.CopyFrom(_encode_skipped(event))
        case Started():
            message.started.CopyFrom(train_pb2.Started(**vars(event)))
        case Step():
            message.step.CopyFrom(train_pb2.Step(**vars(event)))
        case Epoch():
            message.epoch.CopyFrom(_encode_epoch(event))
        case Result():
            message.result.CopyFrom(_encode_result(event))
        case _:
            raise TypeError(f"not an event of a training: {type(event).__name__}")
    return message


def decode_event(message: train_pb2.TrainResponse) -> Event | None:
    """An event; None for one that only a later release knows."""
    match message.WhichOneof("event"):
        case "queued":
            return Queued(message.queued.position)
        case "accepted":
            accepted = message.accepted
            return Accepted(message.run_id, accepted.pictures, tuple(accepted.wanted), tuple(accepted.names))
        case "extracting":
            extracting = message.extracting
            return Extracting(extracting.done, extracting.total, extracting.cached, extracting.seconds_left)
        case "skipped":
            return _decode_skipped(message.skipped)
        case "started":
            started = message.started
            return Started(started.recipe, started.epoch, started.title, tuple(started.classes), dict(started.sets))
        case "step":
            step = message.step
            return Step(step.recipe, step.epoch, step.batch, step.batches)
        case "epoch":
            return _decode_epoch(message.epoch)
        case "result":
            return _decode_result(message.result)
        case _:
            return None


def _encode_skipped(skipped: Skipped) -> train_pb2.Skipped:
    return train_pb2.Skipped(name=skipped.name, reason=skipped.reason)


def _decode_skipped(message: train_pb2.Skipped) -> Skipped:
    return Skipped(message.name, message.reason)


def _encode_epoch(epoch: Epoch) -> train_pb2.Epoch:
    return train_pb2.Epoch(**vars(epoch))


def _decode_epoch(message: train_pb2.Epoch) -> Epoch:
    return Epoch(
        recipe=message.recipe,
        phase=message.phase,
        epoch=message.epoch,
        epochs=message.epochs,
        loss=message.loss,
        validation_loss=message.validation_loss,
        accuracy=message.accuracy,
        macro_f1=message.macro_f1,
        rates=dict(message.rates),
        best=message.best,
        seconds=message.seconds,
        seconds_left=message.seconds_left,
    )


def _encode_result(result: Result) -> train_pb2.Result:
    return train_pb2.Result(
        head=encode_head(result.head),
        outcomes=[_encode_outcome(outcome) for outcome in result.outcomes],
        best=result.best,
        feature_seconds=result.feature_seconds,
        fit_seconds=result.fit_seconds,
        learning_curves=result.learning_curves,
        confusion_matrix=result.confusion_matrix,
    )


def _decode_result(message: train_pb2.Result) -> Result:
    return Result(
        head=decode_head(message.head),
        outcomes=tuple(map(_decode_outcome, message.outcomes)),
        best=message.best,
        feature_seconds=message.feature_seconds,
        fit_seconds=message.fit_seconds,
        learning_curves=message.learning_curves,
        confusion_matrix=message.confusion_matrix,
    )


def _encode_outcome(outcome: Outcome) -> train_pb2.Outcome:
    return train_pb2.Outcome(
        recipe=encode_recipe(outcome.recipe),
        reports=[_encode_report(report) for report in outcome.reports],
        history=[_encode_epoch(epoch) for epoch in outcome.history],
        best_epoch=outcome.best_epoch,
        temperature=outcome.temperature,
        seconds=outcome.seconds,
    )


def _decode_outcome(message: train_pb2.Outcome) -> Outcome:
    return Outcome(
        recipe=decode_recipe(message.recipe),
        reports=tuple(map(_decode_report, message.reports)),
        history=tuple(map(_decode_epoch, message.history)),
        best_epoch=message.best_epoch,
        temperature=message.temperature,
        seconds=message.seconds,
    )


def _encode_report(report: Report) -> train_pb2.Report:
    return train_pb2.Report(
        set=report.set,
        pictures=report.pictures,
        loss=report.loss,
        accuracy=report.accuracy,
        top=report.top,
        macro_f1=report.macro_f1,
        calibration_error=report.calibration_error,
        classes=[train_pb2.ClassReport(**vars(item)) for item in report.classes],
        confusion=[count for row in report.confusion for count in row],
    )


def _decode_report(message: train_pb2.Report) -> Report:
    counts, width = list(message.confusion), len(message.classes)
    return Report(
        set=message.set,
        pictures=message.pictures,
        loss=message.loss,
        accuracy=message.accuracy,
        top=dict(sorted(message.top.items())),
        macro_f1=message.macro_f1,
        calibration_error=message.calibration_error,
        classes=tuple(
            ClassReport(item.label, item.precision, item.recall, item.f1, item.support) for item in message.classes
        ),
        confusion=tuple(tuple(counts[i : i + width]) for i in range(0, len(counts), width or 1)),
    )


# --- heads ---


def encode_head(head: Head, *, summary: bool = False) -> train_pb2.Head:
    """A head; a summary leaves the history and the confusion matrices out."""
    message = train_pb2.Head(
        name=head.name,
        version=head.version,
        run_id=head.run_id,
        created=head.created,
        backbone=head.backbone,
        weights_digest=head.weights_digest,
        classes=head.classes,
        kind=KIND.encode(head.kind),
        stages=head.stages,
        feature_stage=head.feature_stage,
        size=head.size,
        complete=head.complete,
        bytes=head.bytes,
        outcome=_encode_outcome(head.outcome),
        findings=_encode_findings(head.findings),
    )
    if summary:
        message.outcome.ClearField("history")
        for report in message.outcome.reports:
            report.ClearField("confusion")
    return message


def decode_head(message: train_pb2.Head) -> Head:
    """A head."""
    return Head(
        name=message.name,
        version=message.version,
        run_id=message.run_id,
        created=message.created,
        backbone=message.backbone,
        weights_digest=message.weights_digest,
        classes=tuple(message.classes),
        kind=KIND.decode(message.kind, "head.kind"),
        stages=tuple(message.stages),
        feature_stage=message.feature_stage,
        size=message.size,
        complete=message.complete,
        bytes=message.bytes,
        outcome=_decode_outcome(message.outcome),
        findings=_decode_findings(message.findings),
    )


def _encode_findings(findings: Findings) -> train_pb2.Findings:
    return train_pb2.Findings(
        skipped=[_encode_skipped(item) for item in findings.skipped],
        duplicates=[train_pb2.Duplicate(**vars(item)) for item in findings.duplicates],
        suspects=[train_pb2.Suspect(**vars(item)) for item in findings.suspects],
    )


def _decode_findings(message: train_pb2.Findings) -> Findings:
    return Findings(
        skipped=tuple(map(_decode_skipped, message.skipped)),
        duplicates=tuple(Duplicate(item.name, item.first, item.conflicting) for item in message.duplicates),
        suspects=tuple(
            Suspect(item.name, item.set, item.label, item.suggestion, item.share) for item in message.suspects
        ),
    )


def encode_ref(ref: HeadRef) -> train_pb2.HeadRef:
    """A head by name and version."""
    return train_pb2.HeadRef(name=ref.name, version=ref.version)


def decode_ref(message: train_pb2.HeadRef) -> HeadRef:
    """A head by name and version."""
    return HeadRef(message.name, message.version)


def encode_export_request(ref: HeadRef, file_format: ExportFormat, with_backbone: bool) -> train_pb2.ExportHeadRequest:
    """Asks for a file."""
    return train_pb2.ExportHeadRequest(
        head=encode_ref(ref), format=EXPORT_FORMAT.encode(file_format), with_backbone=with_backbone
    )


def encode_details(details: HeadDetails) -> train_pb2.GetHeadResponse:
    """A head with its drawings."""
    return train_pb2.GetHeadResponse(
        head=encode_head(details.head),
        learning_curves=details.learning_curves,
        confusion_matrix=details.confusion_matrix,
    )


def decode_details(message: train_pb2.GetHeadResponse) -> HeadDetails:
    """A head with its drawings."""
    return HeadDetails(decode_head(message.head), message.learning_curves, message.confusion_matrix)


# --- Predict ---


def encode_predict_request(ref: HeadRef, pictures: Sequence[Picture], top_k: int) -> train_pb2.PredictRequest:
    """Pictures to classify."""
    return train_pb2.PredictRequest(
        head=encode_ref(ref), pictures=[encode_picture(picture) for picture in pictures], top_k=top_k
    )


def decode_predict_request(
    message: train_pb2.PredictRequest,
) -> tuple[HeadRef, list[Picture | GramletError], int]:
    """The head, the pictures (one that cannot be decoded is an error in its place), and how many classes to return."""
    pictures = [_picture_or_error(picture, f"pictures[{i}]") for i, picture in enumerate(message.pictures)]
    return decode_ref(message.head), pictures, message.top_k or DEFAULT_TOP_K


def _picture_or_error(message: picture_pb2.Picture, field: str) -> Picture | GramletError:
    """The picture, or why it is none."""
    try:
        return decode_picture(message, field)
    except InvalidInput as error:
        return error


def encode_predict_response(ref: HeadRef, outcomes: Sequence[Prediction | GramletError]) -> train_pb2.PredictResponse:
    """One outcome a picture."""
    return train_pb2.PredictResponse(head=encode_ref(ref), results=[_encode_predicted(outcome) for outcome in outcomes])


def decode_predict_response(message: train_pb2.PredictResponse) -> list[Prediction | GramletError]:
    """One outcome a picture."""
    return [_decode_predicted(result) for result in message.results]


def _encode_predicted(outcome: Prediction | GramletError) -> train_pb2.PredictResult:
    if isinstance(outcome, GramletError):
        return train_pb2.PredictResult(error=encode_picture_error(outcome))
    return train_pb2.PredictResult(
        prediction=train_pb2.Prediction(
            classes=[
                train_pb2.ClassProbability(label=item.label, probability=item.probability) for item in outcome.classes
            ],
            timing=encode_timing(outcome.timing),
        )
    )


def _decode_predicted(message: train_pb2.PredictResult) -> Prediction | GramletError:
    if message.WhichOneof("outcome") == "error":
        return decode_picture_error(message.error)
    prediction = message.prediction
    return Prediction(
        tuple(ClassProbability(item.label, item.probability) for item in prediction.classes),
        decode_timing(prediction.timing),
    )


# --- what the client calls, sends and reads ---

TRAIN_HEAD = Rpc(train_pb2_grpc.TrainServiceStub, "Train", Kind.STREAM)
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
