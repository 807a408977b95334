"""The messages of FeatureService, and those of gramlet.tensor.v1 that they carry."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import gramlet
import numpy as np
from gramlet import InvalidInput, NotFound
from gramlet.feature.v1 import feature_pb2 as pb

from tests.guards.product import feature_types as types
from tests.guards.product import feature_wire as wire
from tests.guards.product import parts_wire, shared_types
from tests.guards.wire_cases import DIGEST, FILE, MASK, PICTURE, PIXELS, Case, plain, with_each

GRAM = np.array([[1.0, -0.5], [-0.5, 2.0]], np.float32)
TIMING = shared_types.Timing(0.5, 0.25, 3)
EXTRACTION = types.Extraction(
    ("conv1", "layer3"), tuple(types.Form), resize=gramlet.Resize(gramlet.ResizeMode.LONGEST_SIDE, 96)
)
FEATURES = types.Features({"conv1": PICTURE}, {"conv1": GRAM}, {"conv1": PICTURE[:, 0, 0]}, 8, 9, TIMING, DIGEST)
OBJECTIVE = types.Objective(
    content=PICTURE,
    content_stage="layer2",
    content_weight=1.5,
    styles=(
        gramlet.Style(PICTURE, 2.0, content_region=MASK),
        gramlet.Style(PICTURE * 0.5, 0.0, style_region=MASK * 0.5),
    ),
    style_stages={"conv1": 0.25, "layer1": 4.0},
    style_weight=1e3,
    total_variation_weight=0.5,
    gram_normalization=gramlet.GramNormalization.POSITIONS,
    stage_balance=gramlet.StageBalance.CONTENT,
    antialiased=True,
    reduced_precision=True,
)
MODEL = types.Model(
    backbone="resnet50",
    weights_digest=DIGEST,
    weights_source="random:0",
    device="cpu",
    precision="float32",
    stages=(types.Stage("conv1", 64, 2), types.Stage("avgpool", 2048, 0)),
    limits=types.Limits(1, 2, 3, 4, 5),
    load=types.Load(6, 7, 8, 9.5, 10, 11, 12, 13, 14.5),
    server_version="0.1",
)
EVALUATION = types.Evaluation(4.0, 2.5, 1.25, 0.25, {"conv1": 0.75, "layer1": 0.5}, PICTURE - 0.5, TIMING)


def cases() -> Iterator[Case]:
    """Every request and reply."""
    yield Case("get model", wire.encode_get_model())
    yield Case("get model, pinned", wire.encode_get_model(DIGEST))
    yield Case("model", wire.encode_model(MODEL), wire.decode_model, MODEL)
    yield from _extract()
    yield from _extract_stream()
    yield from _differentiate()
    yield from _descend()
    yield from _descended()
    yield from _see()


def _extract() -> Iterator[Case]:
    pictures = [FILE, PIXELS, PICTURE]
    request = wire.encode_extract_request(EXTRACTION, pictures)
    yield Case("extract", request, wire.decode_extract_request, (EXTRACTION, pictures))
    for name, extraction in _extractions():
        message = wire.encode_extract_request(extraction, [FILE])
        yield Case(f"extract, {name}", message, wire.decode_extract_request, (extraction, [FILE]))
    for element_type in (kind for kind in gramlet.ElementType if kind.value != "uint8"):
        yield _extracted(f"features, {element_type.value}", FEATURES, element_type=element_type)
    yield _extracted("features, triangle", FEATURES, triangle=True)
    yield _extracted("error", NotFound("no picture", field="pictures[0]"))


def _extractions() -> Iterator[tuple[str, Any]]:
    yield from with_each(EXTRACTION, "gram_normalization", gramlet.GramNormalization)
    for mode in gramlet.ResizeMode:
        size = 0 if mode is gramlet.ResizeMode.KEEP else 96
        yield f"resize {mode.value}", dataclasses.replace(EXTRACTION, resize=gramlet.Resize(mode, size))
    for name in ("float16", "bfloat16"):
        yield name, dataclasses.replace(EXTRACTION, element_type=gramlet.ElementType(name))
    yield "triangle", dataclasses.replace(EXTRACTION, triangle=True)
    yield "pinned", dataclasses.replace(EXTRACTION, weights_digest=DIGEST)


def _extracted(name: str, outcome: Any, **how: Any) -> Case:
    extraction = types.Extraction(("conv1",), tuple(types.Form), **how)
    message = pb.ExtractResponse(results=[wire.encode_outcome(outcome, extraction)])
    return Case(f"extracted, {name}", message, lambda reply: wire.decode_outcome(reply.results[0]), outcome)


def _extract_stream() -> Iterator[Case]:
    start = wire.encode_extract_start(EXTRACTION)
    yield Case("stream, extraction", start, lambda sent: wire.decode_extract_stream(iter([sent]))[0], EXTRACTION)
    items = [("a", FILE), ("b", PIXELS)]

    def sent_items(sent: Any) -> Any:
        return next(wire.decode_extract_stream(iter([start, sent]))[1])

    yield Case("stream, items", wire.encode_extract_items(items), sent_items, items)
    outcomes = [FEATURES, InvalidInput("too dark", field="items[1].picture"), FEATURES]
    extraction = types.Extraction(("conv1",), tuple(types.Form))
    (reply,) = wire.encode_extract_replies(["a", "b", "c"], outcomes, extraction)
    yield Case("stream, outcomes", reply, wire.decode_extract_reply, list(zip("abc", outcomes, strict=True)))


def _differentiate() -> Iterator[Case]:
    def objective(sent: Any) -> Any:
        return wire.decode_setup(sent.setup, _as_it_is, _as_it_is)

    float16 = gramlet.ElementType.FLOAT16
    setup = wire.encode_setup(OBJECTIVE, float16, DIGEST)
    yield Case("differentiate, setup", setup, objective, (OBJECTIVE, float16))
    balanced = dataclasses.replace(OBJECTIVE, styles=(), content=None)
    for name, each in with_each(balanced, "stage_balance", gramlet.StageBalance):
        whole = (each, gramlet.ElementType.FLOAT32)
        yield Case(f"differentiate, {name}", wire.encode_setup(each), objective, whole)
    evaluate = wire.encode_evaluate(PICTURE, 7)
    yield Case("differentiate, evaluate", evaluate, lambda sent: wire.decode_evaluate(sent.evaluate), (PICTURE, 7))
    yield Case("differentiated, ready", wire.encode_ready(DIGEST), lambda sent: sent.ready.weights_digest, DIGEST)
    evaluation = wire.encode_evaluation(EVALUATION, 7)
    yield Case(
        "differentiated, evaluation", evaluation, lambda sent: wire.decode_evaluation(sent.evaluation), EVALUATION
    )
    yield _part("differentiate, part", evaluate)
    yield _part("differentiated, part", evaluation)


def _descend() -> Iterator[Case]:
    def start(sent: Any) -> Any:
        return wire.decode_descent_start(iter([sent]), _as_it_is, _as_it_is)

    def encoded(value: Any) -> Any:
        (message,) = wire.encode_descent_start(value)
        return message

    whole = types.DescentStart(
        objective=OBJECTIVE,
        settings=types.DescentSettings(learning_rate=0.5, history_size=7, momentum=0.25),
        iterations=12,
        initial=PICTURE * 0.25,
        luminance_only=True,
        preview_every=3,
        preview_side=1024,
        state_seconds=2.5,
        confirm_last=True,
        weights_digest=DIGEST,
    )
    yield Case("descend, start", encoded(whole), start, whole)
    plainest = types.DescentStart(objective=dataclasses.replace(OBJECTIVE, styles=()), iterations=1)
    for name, ending in with_each(plainest, "ending", types.DescentEnding):
        yield Case(f"descend, {name}", encoded(ending), start, ending)
    for field, members in (("optimizer", types.Optimizer), ("line_search", types.LineSearch)):
        for name, settings in with_each(types.DescentSettings(), field, members):
            value = dataclasses.replace(plainest, settings=settings)
            yield Case(f"descend, {name}", encoded(value), start, value)
    with_state = dataclasses.replace(plainest, state=b"a state")
    state, rest = wire.encode_descent_start(with_state)
    yield Case(
        "descend, state",
        state,
        lambda sent: wire.decode_descent_start(iter([sent, rest]), _as_it_is, _as_it_is),
        with_state,
    )
    weights = types.DescentWeights(
        number=2, content_weight=0.5, style_weight=3.0, total_variation_weight=0.125, style_stages={"conv1": 2.0}
    )
    reweight = wire.encode_reweight(weights)
    yield Case("descend, reweight", reweight, lambda sent: wire.decode_reweight(sent.reweight), weights)
    yield Case("descend, proceed", wire.encode_proceed())
    yield Case("descend, stop", wire.encode_stop())
    yield _part("descend, part", encoded(plainest))


def _descended() -> Iterator[Case]:
    losses = {
        "loss": 4.0,
        "style_loss": 2.5,
        "content_loss": 1.25,
        "total_variation_loss": 0.25,
        "stage_losses": {"conv1": 0.75},
    }
    iterations = [types.DescentIteration(iteration=i, evaluations=i + 1, timing=TIMING, **losses) for i in (8, 9)]
    bursts: dict[str, list[Any]] = {
        "queued": [types.DescentQueued(position=3)],
        "ready": [types.DescentReady(iteration=7, height=8, width=9, weights_digest=DIGEST)],
        "iterations": iterations,
        "preview": [types.DescentPreview(iteration=9, jpeg=FILE)],
        "state": [types.DescentState(iteration=9, data=b"a state", number=2)],
        "reweighted": [
            types.DescentState(iteration=9, data=b"a state", number=3, reweighted=True),
            types.DescentReweighted(iteration=9, number=3),
        ],
        "diverged": [
            types.DescentRecovered(iteration=10, reason=types.RecoveryReason.DIVERGED, message="up", restarts=2)
        ],
        "waiting": [types.DescentWaiting(iteration=11)],
        "finished": [types.DescentFinished(iteration=12, picture=PICTURE - 0.5, timing=TIMING, **losses)],
    }
    for name, events in bursts.items():
        (message,) = wire.encode_descent_events(events)
        yield Case(f"descended, {name}", message, lambda sent: wire.DescentReader().events(sent), events)
    (whole,) = wire.encode_descent_events(iterations)
    yield _part("descended, part", whole)


def _see() -> Iterator[Case]:
    def start(sent: Any) -> Any:
        return wire.decode_see(iter([sent]))[0]

    whole = types.SeeStart(
        stage="layer3",
        channels=(712, 5),
        patches=4,
        patch_size=96,
        maximization=types.Maximization(steps=12, size=64, seed=3, preview_every=2),
        resize=gramlet.Resize(gramlet.ResizeMode.LONGEST_SIDE, 96),
        weights_digest=DIGEST,
    )
    for name, each in with_each(whole, "projection", types.Projection):
        yield Case(f"see, {name}", wire.encode_see_start(each), start, each)
    for name, each in with_each(whole, "patch_field", types.PatchField):
        yield Case(f"see, {name}", wire.encode_see_start(each), start, each)
    plainest = types.SeeStart(stage="layer3", patches=0)
    sent = wire.encode_see_start(plainest)
    yield Case("see, plainest", sent, start, plainest)
    items = [("a", FILE), ("b", PIXELS)]

    def sent_items(message: Any) -> Any:
        return list(wire.decode_see(iter([sent, message]))[1])[1]

    yield Case("see, items", wire.encode_see_items(items), sent_items, items)
    patch = types.Patch(
        index=3,
        id="a",
        activation=2.5,
        row=4,
        column=5,
        box=types.Box(6, 7, 8, 9),
        height=32,
        width=48,
        jpeg=FILE,
        projection=FILE[:2],
    )
    events: dict[str, Any] = {
        "queued": types.SeeQueued(position=3),
        "started": types.SeeStarted(
            channels=1024, stride=16, receptive_field=267, effective_field=95, weights_digest=DIGEST
        ),
        "progress": types.SeeProgress(pictures=7),
        "refused": types.SeeRefused(index=2, id="b", error=InvalidInput("too dark", field="picture")),
        "patches": types.SeePatches(channel=712, patches=(patch,)),
        "preview": types.SeePreview(channel=712, step=2, steps=12, activation=0.5, jpeg=FILE),
        "optimized": types.SeeOptimized(channel=712, activation=1.5, png=FILE, timing=TIMING),
        "finished": types.SeeFinished(pictures=8, refused=1, timing=TIMING, weights_digest=DIGEST),
    }
    for name, event in events.items():
        yield Case(f"seen, {name}", wire.encode_see_event(event), wire.decode_see_event, event)


def _part(name: str, whole: Any) -> Case:
    carrier = type(whole)()
    carrier.part.data, carrier.part.last = whole.SerializeToString(deterministic=True), True
    return Case(name, carrier, lambda sent: parts_wire.Joiner().add(sent), whole)


def _as_it_is(picture: Any, field: str) -> Any:
    assert plain(picture), field
    return picture
