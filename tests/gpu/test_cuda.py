"""The engine on a CUDA device computes the same as on the CPU, with and without recorded graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gramlet.feature.types import Extraction, Features, Form, GramNormalization, Objective, PictureStyle, Style
from gramlet.stylize.types import Checkpoint, Result, Stylization, StylizeOrder, StylizeSettings
from gramlet.types import Array
from gramlet_server.feature.device import CudaDevice
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.graphs import RECORD_AFTER, RECORD_GRADIENT_AFTER
from gramlet_server.feature.work import Batching
from gramlet_server.runs.store import Store
from gramlet_server.stylize.runs import Runs, RunSettings

from tests.gpu.conftest import DRY_RUN

Engines = Callable[..., Engine]

STAGES = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")
ALL = Extraction(STAGES, (Form.ACTIVATIONS, Form.GRAM, Form.POOLED))
# Relative errors in the Euclidean norm. Those of gradients grow with depth, as a ReLU that flips opens another path.
# `python -m tests.bench precision` measures them.
TOLERANCES = {"float32": (1e-4, 0.05), "tf32": (2e-2, 0.4), "bfloat16": (1e-1, 0.8), "float16": (2e-2, 0.4)}
PRECISIONS = ("float32", "bfloat16") if DRY_RUN else tuple(TOLERANCES)
SIZES = 4 if DRY_RUN else 40
OBJECTIVE = Objective(
    content=np.random.default_rng(1).random((3, 64, 96), dtype=np.float32),
    content_stage="layer2",
    content_weight=1.0,
    styles=(Style(np.random.default_rng(2).random((3, 80, 64), dtype=np.float32), 1.0),),
    style_stages={"conv1": 1.0, "layer1": 1.0, "layer3": 1.0},
    style_weight=10.0,
    total_variation_weight=0.1,
    gram_normalization=GramNormalization.POSITIONS,
)


def picture(seed: int = 0, height: int = 64, width: int = 96) -> Array:
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32)


def relative(found: Array, expected: Array) -> float:
    return float(np.linalg.norm((found - expected).ravel()) / np.linalg.norm(expected.ravel()))


def features(engine: Engine, *pictures: Array) -> list[Features]:
    outcomes = list(engine.extract(list(pictures), ALL))
    assert all(isinstance(outcome, Features) for outcome in outcomes)
    return outcomes  # type: ignore[return-value]


def graphs(engine: Engine) -> int:
    device = engine.passes.device
    assert isinstance(device, CudaDevice)
    return device.graphs.recorded


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_agrees_with_the_cpu(engines: Engines, precision: str) -> None:
    tolerance, of_gradient = TOLERANCES[precision]
    cpu, cuda = engines(device="cpu"), engines(precision)
    (expected,), (found,) = features(cpu, picture()), features(cuda, picture())
    for form in ("activations", "grams", "pooled"):
        for stage, values in getattr(expected, form).items():
            assert relative(getattr(found, form)[stage], values) < tolerance, (form, stage)
    with cpu.differentiate(OBJECTIVE) as exact, cuda.differentiate(OBJECTIVE) as differentiation:
        at, wanted = differentiation.evaluate(picture(5)), exact.evaluate(picture(5))
    assert at.loss == pytest.approx(wanted.loss, rel=2 * tolerance)
    assert relative(at.gradient, wanted.gradient) < of_gradient


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("antialiased", [False, True])
def test_gradients_are_the_same_bits_recorded_or_not(engines: Engines, precision: str, antialiased: bool) -> None:
    objective = replace(OBJECTIVE, antialiased=antialiased)
    recorded, written = engines(precision), engines(precision, cuda_graphs=False)
    with recorded.differentiate(objective) as one, written.differentiate(objective) as other:
        for seed in range(RECORD_GRADIENT_AFTER + 4):
            found, expected = one.evaluate(picture(seed)), other.evaluate(picture(seed))
            assert (found.loss, found.stage_losses) == (expected.loss, expected.stage_losses)
            np.testing.assert_array_equal(found.gradient, expected.gradient)
        assert (graphs(recorded), graphs(written)) == (1, 0)


def test_features_are_the_same_bits_recorded_or_not(engines: Engines) -> None:
    # One picture a pass, so that all passes are alike; and none is answered from what was kept.
    batching = Batching(pictures=1)
    recorded, written = engines(batching=batching), engines(batching=batching, cuda_graphs=False)
    pictures = [picture(seed) for seed in range(RECORD_AFTER + 4)]
    for found, expected in zip(features(recorded, *pictures), features(written, *pictures), strict=True):
        for stage in STAGES:
            np.testing.assert_array_equal(found.activations[stage], expected.activations[stage])
            np.testing.assert_array_equal(found.grams[stage], expected.grams[stage])
    assert graphs(recorded) == 1


def test_stylizations_of_many_sizes_take_turns_without_mixing(engines: Engines) -> None:
    engine = engines()
    sizes = [(64, 96), (96, 64), (80, 80), (64, 64)]
    objectives = [replace(OBJECTIVE, content=picture(i, *size)) for i, size in enumerate(sizes)]
    differentiations = [engine.differentiate(objective) for objective in objectives]
    opened = [context.__enter__() for context in differentiations]
    rounds = [[d.evaluate(picture(9, *size)) for d, size in zip(opened, sizes, strict=True)] for _ in range(6)]
    for at in rounds[1:]:
        for found, expected in zip(at, rounds[0], strict=True):
            assert found.loss == expected.loss
            np.testing.assert_array_equal(found.gradient, expected.gradient)
    assert graphs(engine) == len(sizes)
    for context in differentiations:
        context.__exit__(None, None, None)


def test_replaced_targets_are_felt_at_once(engines: Engines) -> None:
    engine, written = engines(), engines(cuda_graphs=False)
    heavier = replace(OBJECTIVE, style_weight=20.0)
    with engine.differentiate(OBJECTIVE) as differentiation, written.differentiate(heavier) as expected:
        for _ in range(5):
            differentiation.evaluate(picture())
        differentiation.replace(heavier)
        for _ in range(5):
            assert differentiation.evaluate(picture()).loss == expected.evaluate(picture()).loss
        assert DRY_RUN or graphs(engine) == 1  # the fake holds on to the first targets


def test_memory_is_flat_over_many_sizes(engines: Engines) -> None:
    engine = engines()

    def many(first: int) -> int:
        for side in range(first, first + SIZES):
            with engine.differentiate(replace(OBJECTIVE, content=picture(1, 64, side))) as differentiation:
                for _ in range(4):
                    differentiation.evaluate(picture(2, 64, side))
            features(engine, picture(2, 64, side))
        features(engine, picture())  # what no longer lives is forgotten with the next pass
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    many(64)
    before, after = many(64), many(64)
    assert after <= before + 64 * 2**20
    assert DRY_RUN or graphs(engine) == 0  # all targets are gone
    with engine.differentiate(OBJECTIVE) as differentiation:
        for _ in range(4):
            differentiation.evaluate(picture())
        assert DRY_RUN or graphs(engine) == 1  # recording goes on after the pool was given up


def test_callers_share_passes(engines: Engines) -> None:
    engine = engines(batch_gradients=True, batching=Batching(pictures=4))
    sizes: list[int] = []

    def evaluate() -> None:
        with engine.differentiate(OBJECTIVE) as differentiation:
            for seed in range(20):
                sizes.append(differentiation.evaluate(picture(seed)).timing.batch_size)

    threads = [threading.Thread(target=evaluate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 80
    assert max(sizes) > 1


def test_a_stylization_ends_at_the_same_bits_when_it_is_resumed(engines: Engines, tmp_path: Path) -> None:
    def order(run_id: str) -> StylizeOrder:
        content, style = (np.random.default_rng(seed).integers(0, 256, (96, 96, 3), np.uint8) for seed in (1, 2))
        settings = StylizeSettings(size=96, iterations=12)
        return StylizeOrder(Stylization(content, (PictureStyle(style),), settings), run_id=run_id)

    settings = RunSettings(state_seconds=1e-9)
    store = Store.open(str(tmp_path))
    whole = list(Runs(engines(), store, settings).start(order("whole")))
    cut = Runs(engines(), store, settings).start(order("cut"))
    for event in cut:
        if isinstance(event, Checkpoint):
            break
    cut.cancel()
    cut.join()
    resumed = list(Runs(engines(), store, settings).start(StylizeOrder(resume_run_id="cut")))
    assert isinstance(whole[-1], Result)
    assert isinstance(resumed[-1], Result)
    assert resumed[-1].png == whole[-1].png
