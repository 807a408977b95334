"""The messages of StylizeService."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import gramlet
from gramlet.stylize.v1 import stylize_pb2 as pb

from tests.guards.product import shared_types, sweep_wire
from tests.guards.product import stylize_sweep_types as sweeps
from tests.guards.product import stylize_types as types
from tests.guards.product import stylize_wire as wire
from tests.guards.wire_cases import DIGEST, FILE, MASK, PICTURE, PIXELS, Case, with_each
from tests.guards.wire_run import PROGRESS

TIMING = shared_types.Timing(0.5, 0.25, 3)
SETTINGS = types.StylizeSettings(
    preset="classic",
    size=64,
    iterations=7,
    content_stage="layer2",
    style_stages={"conv1": 0.5, "layer1": 2.0},
    content_weight=0.0,
    style_weight=1e6,
    total_variation_weight=0.1,
    gram_normalization=gramlet.GramNormalization.ELEMENTS,
    stage_balance=gramlet.StageBalance.CONTENT,
    initial=types.Initial.GIVEN,
    seed=0,
    optimizer=types.Optimizer.ADAM,
    learning_rate=0.02,
    history_size=9,
    line_search=types.LineSearch.STRONG_WOLFE,
    antialiased=True,
    scales=3,
    style_size=96,
    colors=types.Colors.CONTENT_LUMINANCE,
    momentum=0.25,
)
STYLIZATION = types.Stylization(
    content=PIXELS,
    styles=(gramlet.Style(FILE), gramlet.Style(PICTURE, 0.5, content_region=MASK, style_region=FILE)),
    settings=SETTINGS,
    initial=PICTURE,
    previous_content=FILE,
)
SMALL = types.Stylization(FILE, (gramlet.Style(FILE),))
STATUS = types.StylizeStatus(1, 2, 3, 4, ("default", "classic"), "in-process", "0.1", (SETTINGS,))

ITERATION = types.Iteration(
    run_id="run",
    iteration=3,
    loss=4.0,
    style_loss=2.5,
    content_loss=1.25,
    total_variation_loss=0.25,
    stage_losses={"conv1": 0.75, "layer1": 0.5},
    evaluations=5,
    timing=TIMING,
)
RESULT = types.Result(
    run_id="run",
    iteration=7,
    loss=1.5,
    png=FILE,
    style_loss=1.0,
    content_loss=0.5,
    timing=TIMING,
    weights_digest=DIGEST,
)
STARTED = types.Started(
    run_id="run", iteration=2, height=48, width=64, settings=SETTINGS, backbone="resnet50", weights_digest=DIGEST
)
EVENTS = {
    "queued": types.Queued(run_id="run", position=2),
    "next": types.Queued(run_id="run", position=0),
    "started": STARTED,
    "scale": types.ScaleStarted(run_id="run", iteration=2, height=24, width=32),
    "iteration": ITERATION,
    "preview": types.Preview(run_id="run", iteration=3, jpeg=FILE),
    "checkpoint": types.Checkpoint(run_id="run", iteration=3),
    "adjusted": types.Adjusted(run_id="run", iteration=3, settings=SETTINGS, number=1),
    "diverged": types.Recovered(run_id="run", iteration=3, reason=types.RecoveryReason.DIVERGED, message="again"),
    "reconnected": types.Recovered(run_id="run", iteration=3, reason=types.RecoveryReason.RECONNECTED),
    "progress": types.RemoteProgress(run_id="run", iteration=3, loss=0.5, total=50),
    "progress without a loss": types.RemoteProgress(run_id="run", total=50),
    "result": RESULT,
}


def cases() -> Iterator[Case]:
    """Every request and reply."""
    yield from _orders()
    for name, event in EVENTS.items():
        yield Case(f"stylize event, {name}", wire.encode_event(event), wire.decode_event, event)
    yield from _adjust()
    yield from _sweep()
    yield Case("get status", pb.GetStatusRequest())
    yield Case("status", wire.encode_status(STATUS), wire.decode_status, STATUS)


def _orders() -> Iterator[Case]:
    orders: dict[str, Any] = {
        "new": types.StylizeOrder(STYLIZATION, run_id="run", preview_every=10, preview_side=1024, state_seconds=0.0),
        "resumed": types.StylizeOrder(resume_run_id="run", state_seconds=2.5),
        "preset": types.StylizeOrder(SMALL),
        "detached": types.StylizeOrder(SMALL, detached=True, keep_inputs=True),
        "pinned": types.StylizeOrder(SMALL, weights_digest=DIGEST),
        "taken over": types.StylizeOrder(resume_run_id="run", take_over=True),
        "watched": types.StylizeOrder(watch_run_id="run"),
    }
    settings = types.StylizeSettings()
    for field, members in (
        ("initial", types.Initial),
        ("optimizer", types.Optimizer),
        ("line_search", types.LineSearch),
        ("colors", types.Colors),
        ("gram_normalization", gramlet.GramNormalization),
        ("stage_balance", gramlet.StageBalance),
    ):
        for name, each in with_each(settings, field, members):
            initial = FILE if each.initial is types.Initial.GIVEN else None
            orders[name] = types.StylizeOrder(dataclasses.replace(SMALL, settings=each, initial=initial))
    for name, order in orders.items():
        yield Case(f"stylize, {name}", wire.encode_order(order), wire.decode_order, order)


def _adjust() -> Iterator[Case]:
    adjustment = types.Adjustment(0.0, 2.0, 0.5, {"conv1": 0.0, "layer1": 2.0})
    yield Case("adjust", wire.encode_adjust("run", adjustment), wire.decode_adjust, ("run", adjustment))
    part = types.Adjustment(style_weight=2.0)
    yield Case("adjust, one weight", wire.encode_adjust("run", part), wire.decode_adjust, ("run", part))
    yield Case("adjusted", wire.encode_adjusted(SETTINGS), wire.decode_adjusted, SETTINGS)


def _sweep() -> Iterator[Case]:
    orders = {
        "new": sweeps.SweepOrder(SMALL, (0.0, 1e-3), ("conv1", "layer1"), run_id="sweep"),
        "resumed": sweeps.SweepOrder(resume_run_id="sweep"),
        "detached": sweeps.SweepOrder(SMALL, detached=True, keep_inputs=True),
        "pinned": sweeps.SweepOrder(SMALL, weights_digest=DIGEST),
        "taken over": sweeps.SweepOrder(resume_run_id="sweep", take_over=True),
        "watched": sweeps.SweepOrder(watch_run_id="sweep"),
    }
    for name, order in orders.items():
        yield Case(f"sweep, {name}", sweep_wire.encode_sweep_order(order), sweep_wire.decode_sweep_order, order)
    cell = sweeps.SweepCell(run_id="sweep", row=1, column=2, deepest_stage="conv1", ratio=0.5, event=ITERATION)
    events = {
        "queued": sweeps.SweepQueued(run_id="sweep", position=2),
        "started": sweeps.SweepStarted(
            run_id="sweep", ratios=(0.0, 0.5), deepest_stages=("conv1",), settings=SETTINGS, weights_digest=DIGEST
        ),
        "cell": cell,
        "cell result": dataclasses.replace(cell, event=RESULT),
        "progress": sweeps.SweepRemoteProgress(run_id="sweep", progress=PROGRESS),
        "result": sweeps.SweepResult(run_id="sweep", png=FILE, weights_digest=DIGEST),
    }
    for name, event in events.items():
        message = sweep_wire.encode_sweep_event(event)
        yield Case(f"sweep event, {name}", message, sweep_wire.decode_sweep_event, event)
