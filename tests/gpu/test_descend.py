"""Descents on a CUDA device: the same bits however they are cut, recorded and shared, and nothing that waits."""

from __future__ import annotations

import gc
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gramlet.errors import Cancelled
from gramlet.feature.descent_types import (
    DescentEvent,
    DescentFinished,
    DescentIteration,
    DescentPreview,
    DescentRecovered,
    DescentSettings,
    DescentStart,
    DescentState,
    LineSearch,
    Optimizer,
)
from gramlet.feature.types import Extraction
from gramlet_server.feature.canvas import AllColors
from gramlet_server.feature.descent import Descent
from gramlet_server.feature.descent_parts import Control
from gramlet_server.feature.descent_work import NetworkLoss
from gramlet_server.feature.device import CudaDevice
from gramlet_server.feature.engine import Engine
from PIL import Image

from tests.feature.descent_cases import CONTENT, OBJECTIVE, WEIGHTS, assert_same, losses, picture, run
from tests.gpu.conftest import DRY_RUN

Engines = Callable[..., Engine]

SETTINGS = {
    "L-BFGS": DescentSettings(history_size=5),
    "strong Wolfe": DescentSettings(history_size=5, line_search=LineSearch.STRONG_WOLFE),
    "Adam": DescentSettings(optimizer=Optimizer.ADAM, learning_rate=0.02),
}

LONG = 300
"""Iterations that take several turns and reports of the device."""


def start(iterations: int = 12, **options: Any) -> DescentStart:
    options = {"objective": OBJECTIVE, "settings": SETTINGS["L-BFGS"]} | options
    return DescentStart(iterations=iterations, **options)


def recorded(engine: Engine) -> int:
    device = engine.passes.device
    assert isinstance(device, CudaDevice)
    return device.graphs.recorded


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"] if DRY_RUN else ["float32", "tf32", "bfloat16"])
def test_recorded_or_not_it_takes_the_same_steps(engines: Engines, precision: str, settings: DescentSettings) -> None:
    with_graphs, without = engines(precision), engines(precision, cuda_graphs=False)
    order = start(settings=settings)
    found, expected = run(with_graphs, order), run(without, order)
    assert (recorded(with_graphs), recorded(without)) == (1, 0)
    assert losses(found)[-1][1] < losses(found)[0][1]
    assert_same(found, expected)


def test_one_graph_serves_all_pictures_of_a_size(engines: Engines) -> None:
    """At once and later, with other pictures and weights."""
    engine, eager = engines(), engines(cuda_graphs=False)
    other = replace(
        OBJECTIVE, content=CONTENT[:, ::-1].copy(), content_weight=3.0, style_stages={"conv1": 2.0, "layer1": 3.0}
    )
    orders = [start(40), start(40, objective=other)]
    expected = [run(eager, order) for order in orders]
    found: dict[int, list[DescentEvent]] = {}
    threads = [
        threading.Thread(target=lambda number=number: found.update({number: run(engine, orders[number % 2])}))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, events in found.items():
        assert_same(events, expected[number % 2])
    assert recorded(engine) == 1


def test_it_agrees_with_the_cpu(engines: Engines) -> None:
    found, expected = run(engines(), start(6)), run(engines(device="cpu"), start(6))
    assert dict(losses(found)) == pytest.approx(dict(losses(expected)), rel=0.02)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_in_pieces_it_is_what_it_is_in_one(engines: Engines, settings: DescentSettings) -> None:
    """Each piece on the other of two engines, as after a failure."""
    pair = engines(), engines()
    whole = run(pair[0], start(LONG, settings=settings))
    pieces: list[DescentEvent] = []
    state, number = b"", 0
    while not (pieces and isinstance(pieces[-1], DescentFinished)):
        number += 1
        with pair[number % 2].descend(start(LONG, settings=settings, state=state)) as descent:
            for event in descent:
                pieces.append(event)
                if isinstance(event, DescentIteration):
                    descent.stop()
                if isinstance(event, DescentState):
                    state = event.data
    assert number > 2
    assert_same(pieces, whole)


def test_previews_states_and_others_change_no_step(engines: Engines) -> None:
    engine = engines()
    alone = run(engine, start(30))
    together: dict[int, list[DescentEvent]] = {}

    def descend(number: int) -> None:
        order = start(30, preview_every=3, state_seconds=1e-9)
        together[number] = run(engine, order)

    threads = [threading.Thread(target=descend, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    list(engine.extract([CONTENT] * 20, Extraction(stages=("layer2",))))
    for thread in threads:
        thread.join()
    for events in together.values():
        assert_same(events, alone)
        assert any(isinstance(event, DescentState) for event in events)
        previews = [event for event in events if isinstance(event, DescentPreview)]
        assert previews[-1].iteration == 30
        shown = np.asarray(Image.open(io.BytesIO(previews[-1].jpeg)), np.float32) / 255  # (48, 56, 3)
        away = shown - picture(events).clip(0, 1).transpose(1, 2, 0)
        assert np.abs(away.reshape(6, 8, 7, 8, 3).mean((1, 3, 4))).max() < 0.05  # JPEG keeps the means of blocks


@contextmanager
def no_waiting() -> Iterator[None]:
    """Every operation that waits for the device is an error; waiting for a loss of an earlier iteration is none."""
    if DRY_RUN:
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("settings", [SETTINGS["L-BFGS"], SETTINGS["Adam"]], ids=["L-BFGS", "Adam"])
@pytest.mark.parametrize("graphs", [True, False])
def test_no_iteration_waits_for_the_device(engines: Engines, settings: DescentSettings, graphs: bool) -> None:
    engine = engines(cuda_graphs=graphs)
    with engine.passes.scheduler.caller() as caller:
        targets = engine.targets.build(caller, OBJECTIVE)

        def work() -> int:
            device = engine.passes.device
            loss = NetworkLoss(engine.differentiator, targets)
            point = device.place(torch.tensor(CONTENT))
            descent = Descent(start(60, settings=settings), loss, AllColors(), device, Control(), point)
            steps = descent.run()
            while descent.iteration < 10:
                next(steps)
            with no_waiting():
                while descent.iteration < 40:
                    next(steps)
            steps.close()
            return descent.iteration

        assert engine.passes.run_single(caller, "test", 1, work)[0] == 40


def test_after_a_divergence_it_recovers_the_same_way_every_time(engines: Engines) -> None:
    engine = engines()
    order = start(12, settings=DescentSettings(learning_rate=1e4))
    once, again = run(engine, order), run(engine, order)
    assert any(isinstance(event, DescentRecovered) for event in once)
    assert [number for number, _ in losses(once)] == [*range(1, 13)]
    assert losses(once)[-1][1] < losses(once)[0][1]
    assert_same(once, again)


def test_new_weights_take_effect_at_once(engines: Engines) -> None:
    engine, eager = engines(), engines(cuda_graphs=False)

    def reweighted(engine: Engine) -> list[DescentEvent]:
        events = []
        with engine.descend(start(40, confirm_last=True)) as descent:
            descent.reweight(WEIGHTS)
            for event in descent:
                events.append(event)
                descent.proceed()
        return events

    # When the weights arrive is not known, but what the last loss is made of.
    for events in (reweighted(engine), reweighted(eager)):
        last = events[-1]
        assert isinstance(last, DescentFinished)
        assert (last.total_variation_loss, set(last.stage_losses)) == (0.0, {"conv1"})


def test_the_contents_colors_and_tiles_work_there_too(engines: Engines) -> None:
    gray = start(6, luminance_only=True)
    assert_same(run(engines(), gray), run(engines(cuda_graphs=False), gray))
    tiled, whole = run(engines(tile_pixels=40 * 40), start(3)), run(engines(), start(3))
    assert dict(losses(tiled)) == pytest.approx(dict(losses(whole)), rel=1e-3)


def test_its_memory_is_free_when_it_has_ended(engines: Engines) -> None:
    """However it ends, and without the help of Python's garbage collector, which knows nothing of that memory."""
    engine = engines()
    order = start(10**5, settings=DescentSettings(history_size=200))

    def allocated() -> int:
        run(engine, start(1, objective=replace(OBJECTIVE, style_weight=1.0)))  # drops the graphs of the others
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()

    def cancel() -> None:
        with engine.descend(order) as descent:
            next(event for event in descent if isinstance(event, DescentIteration) and event.iteration > 5)
            descent.cancel()
            with pytest.raises(Cancelled):
                list(descent)

    cancel()
    run(engine, start())
    gc.collect()
    gc.disable()
    try:
        before = allocated()
        for _ in range(4):
            cancel()
            run(engine, start())
        assert allocated() <= before + 2**20
    finally:
        gc.enable()
