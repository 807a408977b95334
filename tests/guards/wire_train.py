"""The messages of TrainService."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from gramlet import InvalidInput
from gramlet.train.v1 import train_pb2 as pb

from tests.guards.product import shared_types
from tests.guards.product import train_types as types
from tests.guards.product import train_wire as wire
from tests.guards.wire_cases import DIGEST, FILE, PICTURE, PIXELS, Case, with_each
from tests.guards.wire_run import PROGRESS

RECIPE = types.Recipe(
    kind=types.HeadKind.LINEAR,
    strategy=types.Strategy.HEAD_THEN_STAGES,
    stages=("layer3", "layer4"),
    stage_rates={"layer3": 1e-5, "layer4": 1e-4},
    stage_learning_rate=2e-4,
    optimizer=types.Optimizer.SGD,
    learning_rate=0.5,
    head_rate_factor=0.25,
    epochs=7,
    stage_epochs=3,
    batch_size=8,
    weight_decay=0.125,
    schedule=types.Schedule.LINEAR,
    warmup_epochs=1,
    metric=types.Metric.MACRO_F1,
    patience=0,
    class_weights=types.ClassWeights.BALANCED,
    label_smoothing=0.1,
    update_batch_norm=True,
    calibrate=False,
    seed=5,
)
ENTRIES = (
    types.Entry("train/bee/1.jpg", "bee", "train", "ab" * 32),
    types.Entry("val/ant/1.jpg", "ant", "val"),
)
CONFIGURATION = types.Configuration(
    name="bees",
    recipes=(RECIPE, types.Recipe()),
    entries=ENTRIES,
    size=96,
    views=2,
    folds=4,
    seed=3,
    unreadable=types.Unreadable.FAIL,
    keep_on_cancel=True,
)
EPOCH = types.Epoch(1, "stages", 2, 7, 0.5, 0.25, 0.75, 0.625, {"head": 0.1, "layer4": 1e-4}, True, 1.5, 2.5)
REPORT = types.Report(
    set="val",
    pictures=3,
    loss=0.5,
    accuracy=0.75,
    top={1: 0.75, 5: 1.0},
    macro_f1=0.625,
    calibration_error=0.125,
    classes=(types.ClassReport("ant", 1.0, 0.5, 0.75, 2), types.ClassReport("bee", 0.5, 1.0, 0.25, 1)),
    confusion=((1, 1), (0, 1)),
    accuracy_low=0.5,
    accuracy_high=0.875,
)
OUTCOME = types.Outcome(RECIPE, (REPORT,), (EPOCH,), 2, 1.25, 3.5)
SKIPPED = types.Skipped("train/bee/2.jpg", "no picture")
HEAD = types.Head(
    name="bees",
    version=3,
    run_id="run",
    created="2024-01-01T00:00:00+00:00",
    backbone="resnet50",
    weights_digest=DIGEST,
    classes=("ant", "bee"),
    kind=types.HeadKind.LINEAR,
    stages=("layer4",),
    feature_stage="layer3",
    size=96,
    complete=True,
    bytes=1234,
    outcome=OUTCOME,
    findings=types.Findings(
        (SKIPPED,),
        (types.Duplicate("a", "b", True),),
        (types.Suspect("c", "val", "ant", "bee", 0.8),),
        (types.NearDuplicate("d", "val", "a", "train", 0.75, True),),
        ("few pictures",),
    ),
)
EVENTS = {
    "queued": types.Queued(2),
    "next": types.Queued(0),
    "accepted": types.Accepted("run", 4, (0, 2), ("a", "c"), DIGEST),
    "extracting": types.Extracting(2, 4, 1, 0.5),
    "skipped": SKIPPED,
    "started": types.Started(1, 2, "linear head", ("ant", "bee"), {"train": 3, "val": 1}),
    "step": types.Step(1, 2, 3, 4),
    "epoch": EPOCH,
    "progress": types.RemoteProgress(PROGRESS),
    "result": types.Result(HEAD, (OUTCOME,), 1, 0.5, 1.5, FILE, FILE + b"2"),
}


def cases() -> Iterator[Case]:
    """Every request and reply."""
    yield from _train()
    for name, event in EVENTS.items():
        yield Case(f"train event, {name}", wire.encode_event(event, "run"), wire.decode_event, event)
    yield from _predict()
    yield from _heads()


def _train() -> Iterator[Case]:
    def order(sent: Any) -> Any:
        return wire.decode_order(iter([sent]))

    orders: dict[str, Any] = {
        "new": types.TrainOrder(CONFIGURATION, run_id="run"),
        "dataset": types.TrainOrder(types.Configuration("bees", dataset="s3://bucket/bees")),
        "pinned": types.TrainOrder(types.Configuration("bees", dataset="d"), weights_digest=DIGEST),
        "resumed": types.TrainOrder(resume_run_id="run"),
        "detached": types.TrainOrder(types.Configuration("bees", dataset="d"), detached=True),
        "taken over": types.TrainOrder(resume_run_id="run", take_over=True),
        "watched": types.TrainOrder(watch_run_id="run"),
    }
    for field, members in (
        ("kind", types.HeadKind),
        ("strategy", types.Strategy),
        ("optimizer", types.Optimizer),
        ("schedule", types.Schedule),
        ("metric", types.Metric),
        ("class_weights", types.ClassWeights),
    ):
        for name, recipe in with_each(types.Recipe(), field, members):
            orders[name] = types.TrainOrder(types.Configuration("bees", (recipe,), dataset="d"))
    for name, configuration in with_each(types.Configuration("bees", dataset="d"), "unreadable", types.Unreadable):
        orders[name] = types.TrainOrder(configuration)
    for name, each in orders.items():
        yield Case(f"train, {name}", wire.encode_order(each), order, each)
    upload = types.Upload(3, PIXELS)
    unread = types.Upload(4, b"", "there is no file gone.jpg")
    for name, each in {"picture": upload, "unread picture": unread}.items():
        yield Case(f"train, {name}", wire.encode_upload(each), lambda m: list(wire.decode_uploads(iter([m]))), [each])


def _predict() -> Iterator[Case]:
    ref, pictures = types.HeadRef("bees", 3), [FILE, PICTURE]
    options = types.PredictOptions(2, 0.75, True, DIGEST)
    request = wire.encode_predict_request(ref, pictures, options)
    yield Case("predict", request, wire.decode_predict_request, (ref, pictures, options))
    classes = (types.ClassProbability("bee", 0.75), types.ClassProbability("ant", 0.25))
    outcomes = [
        types.Prediction(
            classes, shared_types.Timing(0.5, 0.25, 3), ("bee",), 0.25, np.ones((1, 2), np.float32), DIGEST
        ),
        InvalidInput("no picture", field="pictures[1]"),
    ]
    reply = wire.encode_predict_response(ref, outcomes)
    yield Case("predicted", reply, wire.decode_predict_response, outcomes)


def _heads() -> Iterator[Case]:
    ref = types.HeadRef("bees", 3)
    sent = wire.encode_ref(ref)
    yield Case("get head", pb.GetHeadRequest(head=sent), lambda m: wire.decode_ref(m.head), ref)
    details = types.HeadDetails(HEAD, FILE, FILE + b"2")
    yield Case("head", wire.encode_details(details), wire.decode_details, details)
    yield Case("list heads", pb.ListHeadsRequest(name="bees"))
    listed = pb.ListHeadsResponse(heads=[wire.encode_head(HEAD, summary=True)])
    short = dataclasses.replace(REPORT, confusion=())
    summary = dataclasses.replace(HEAD, outcome=dataclasses.replace(OUTCOME, reports=(short,), history=()))
    yield Case("heads", listed, lambda m: wire.decode_head(m.heads[0]), summary)
    yield Case("delete head", pb.DeleteHeadRequest(head=sent), lambda m: wire.decode_ref(m.head), ref)
    yield Case("deleted head", pb.DeleteHeadResponse())
    for file_format in types.ExportFormat:
        export = wire.encode_export_request(ref, file_format, file_format is types.ExportFormat.ONNX)
        yield Case(
            f"export head, {file_format.value}",
            export,
            lambda m: (wire.decode_ref(m.head), wire.EXPORT_FORMAT.decode(m.format, "format")),
            (ref, file_format),
        )
    yield Case("exported head", pb.ExportHeadResponse(chunk=FILE, total_bytes=len(FILE)))
