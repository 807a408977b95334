"""Failures of a device, and which passes are recorded as graphs. tests/gpu runs them on CUDA."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gramlet.errors import GramletError, InvalidInput, Unavailable
from gramlet.feature.types import Extraction, Features, Form
from gramlet.types import Array
from gramlet_server.backbone import load_network
from gramlet_server.feature import graphs as graphs_module
from gramlet_server.feature.device import CUDA_BATCHING, CUDA_MARGIN, PASS_SHARE, CudaDevice, Device
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.graphs import (
    RECORD_AFTER,
    RECORD_AGAIN_AFTER,
    RECORD_GRADIENT_AFTER,
    Graph,
    GraphCache,
    Inputs,
    PassKey,
)
from gramlet_server.feature.work import Batching
from torch import Tensor

PICTURE = np.full((3, 32, 32), 0.5, np.float32)
POOLED = Extraction(("conv1",), (Form.POOLED,))


class Broken(Device):
    """A device whose uploads fail, for good (`lost`) or until it is repaired."""

    lost = True
    repaired = False

    def upload(self, pictures: Sequence[Array]) -> Tensor:
        if self.repaired:
            return super().upload(pictures)
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore for developers")

    def is_lost(self) -> bool:
        return self.lost


@pytest.fixture
def device() -> Broken:
    return Broken()


@pytest.fixture
def broken(device: Broken) -> Iterator[Engine]:
    engine = Engine(load_network("vgg16", "random:0", "cpu"), device=device)
    yield engine
    engine.close()


def test_a_lost_device_is_reported_once_and_every_pass_fails(broken: Engine) -> None:
    reported: list[GramletError] = []
    broken.on_failure(reported.append)
    extraction = Extraction(("relu1_1",), (Form.POOLED,))
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"cpu has failed, go on at another server: .* illegal memory access"):
            broken.extract_together([PICTURE], extraction)
        with pytest.raises(Unavailable):
            list(broken.extract([PICTURE], extraction))
    assert [str(error).count("\n") for error in reported] == [0]


def test_an_error_of_a_working_device_is_a_bug_and_the_next_pass_runs(broken: Engine, device: Broken) -> None:
    device.lost = False
    reported: list[GramletError] = []
    broken.on_failure(reported.append)
    with pytest.raises(torch.AcceleratorError):
        broken.extract_together([PICTURE], Extraction(("relu1_1",), (Form.POOLED,)))
    device.repaired = True
    broken.extract_together([PICTURE], Extraction(("relu1_1",), (Form.POOLED,)))
    assert not reported


def test_a_picture_that_does_not_fit_into_memory_is_invalid_input(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine.passes.device, "upload", full)
    (outcome,) = engine.extract_together([PICTURE], POOLED)
    assert isinstance(outcome, InvalidInput)
    assert "does not hold 1 such picture" in outcome.message


def test_graphs_are_dropped_when_other_work_needs_their_memory() -> None:
    device = object.__new__(CudaDevice)  # its constructor needs CUDA
    kept = [True]
    device.graphs = SimpleNamespace(clear=lambda: bool(kept and kept.pop()))  # type: ignore[assignment]

    def work() -> str:
        if kept:
            raise torch.OutOfMemoryError("full")
        return "done"

    def too_much() -> str:
        raise torch.OutOfMemoryError("full")

    assert device.with_room(work) == "done"
    with pytest.raises(torch.OutOfMemoryError):
        device.with_room(too_much)


def test_passes_suit_the_device_and_what_was_chosen_counts() -> None:
    assert Batching(0, 0, 0).completed(Device().batching(224.0)) == Batching(16, 2 * 2**20, 256)
    assert Batching(5, 0, 7).completed(CUDA_BATCHING) == Batching(5, CUDA_BATCHING.pixels, 7)


def test_passes_on_cuda_are_as_large_as_its_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    device = object.__new__(CudaDevice)
    device._device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=2**34))
    assert device.batching(100.0) == CUDA_BATCHING
    assert device.batching(1000.0).pixels == int(PASS_SHARE * 2**34 / (CUDA_MARGIN * 1000))


def test_passes_are_filled_up_to_a_few_sizes_where_they_are_recorded() -> None:
    device = object.__new__(CudaDevice)
    device.graphs = GraphCache(torch.device("cuda"), 10**6)
    sizes = [device.pass_size(pictures) for pictures in range(1, 129)]
    assert sorted(set(sizes)) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
    assert all(pictures <= size < 1.5 * pictures for pictures, size in enumerate(sizes, 1))
    device.graphs = GraphCache(torch.device("cuda"), 0)
    assert [device.pass_size(pictures) for pictures in (5, 33)] == [5, 33]


class FillingDevice(Device):
    """Fills its passes up, as where they are recorded."""

    def pass_size(self, pictures: int) -> int:
        return pictures + 3


def test_what_a_pass_is_filled_up_with_is_nowhere_in_its_results(engine: Engine) -> None:
    filling = Engine(engine.network, device=FillingDevice())
    pictures = [np.full((3, 32, 32), level, np.float32) for level in (0.2, 0.5, 0.9)]
    extraction = Extraction(("conv1", "layer1"), (Form.ACTIVATIONS, Form.GRAM, Form.POOLED))
    try:
        found, expected = (each.extract_together(pictures, extraction) for each in (filling, engine))
    finally:
        filling.close()
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Features)
        assert isinstance(other, Features)
        for form in ("activations", "grams", "pooled"):
            assert list(getattr(one, form)) == ["conv1", "layer1"]
            for stage, values in getattr(other, form).items():
                np.testing.assert_allclose(getattr(one, form)[stage], values, rtol=1e-4, atol=1e-5)


# --- which passes are recorded; without a CUDA device the recording itself is replaced ---


class Recorder:
    """Takes the place of CUDA: a recorded pass adds one, and `fails` is what the next recording raises."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.recorded = 0
        self.reserved = 0
        self.pools: list[object] = []

    def record(self, pictures: Tensor, inputs: tuple[Tensor, ...], compute: object, pool: object) -> Graph:
        if self.fails:
            raise self.fails
        self.recorded += 1
        self.reserved += 100
        self.pools.append(pool)
        result = torch.empty(())
        launch = lambda: result.copy_(sum(inputs, pictures.sum() + 1))  # noqa: E731
        return Graph(pictures, inputs, [result], launch)  # type: ignore[arg-type]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(graphs_module, "record_graph", recorder.record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, len(recorder.pools)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: recorder.reserved)
    return recorder


class Owner:
    """Holds targets."""


def run(graphs: GraphCache, key: PassKey, times: int = 1, side: int = 4) -> bool:
    """Runs the same pass several times; returns whether the last run was a replay."""
    for _ in range(times):
        pictures = torch.zeros(1, 3, side, side)
        known = graphs.count(pictures.shape, key)
        replayed = known.graph is not None
        graphs.record_if_due(known, pictures, (), lambda pictures, _: [pictures])
    return replayed


def test_a_pass_that_repeats_is_recorded_and_replayed_with_other_pictures(recorder: Recorder) -> None:
    graphs, owner = GraphCache(torch.device("cuda"), 10**6), Owner()
    stylization, extraction = PassKey("gradient", (owner,), is_gradient=True), PassKey("extract")
    assert not run(graphs, stylization, RECORD_GRADIENT_AFTER)
    assert run(graphs, stylization)
    assert not run(graphs, extraction, RECORD_AFTER)
    assert run(graphs, extraction)
    assert not run(graphs, extraction, side=8)
    assert recorder.recorded == 2
    graph = graphs.count((1, 3, 4, 4), extraction).graph
    assert graph is not None
    assert [float(result) for result in graph.replay(torch.ones(1, 3, 4, 4))] == [49.0]


def test_a_recorded_pass_is_dropped_with_the_targets_that_it_reads(recorder: Recorder) -> None:
    graphs, owner = GraphCache(torch.device("cuda"), 10**6), Owner()
    assert run(graphs, PassKey("gradient", (owner,), is_gradient=True), 3)
    del owner
    gc.collect()
    # The new owner may have the address of the old one. It must not be mistaken for it.
    assert not run(graphs, PassKey("gradient", (Owner(),), is_gradient=True))
    assert len(graphs) == 1


def test_a_pool_is_shared_by_the_graphs_that_live_and_not_used_after_them(recorder: Recorder) -> None:
    graphs, one, other = GraphCache(torch.device("cuda"), 250), Owner(), Owner()
    for owner in (one, other):
        run(graphs, PassKey("gradient", (owner,), is_gradient=True), RECORD_GRADIENT_AFTER)
    assert graphs.recorded == 2
    del one, owner, other
    later = [Owner() for _ in range(2)]
    for each in later:  # the memory of the graphs that are gone does not count
        run(graphs, PassKey("gradient", (each,), is_gradient=True), RECORD_GRADIENT_AFTER)
    assert graphs.recorded == 2
    assert recorder.pools == [(0, 0), (0, 0), (0, 2), (0, 2)]


def test_one_graph_serves_all_inputs(recorder: Recorder) -> None:
    graphs, pictures, key = GraphCache(torch.device("cuda"), 10**6), torch.ones(1, 3, 2, 2), PassKey("any")
    one, other = Inputs((torch.tensor(10.0),)), Inputs((torch.tensor(100.0),))
    for _ in range(RECORD_AFTER):
        known = graphs.count(pictures.shape, key)
        graphs.record_if_due(known, pictures, one.tensors, lambda pictures, _: [pictures])
    assert known.graph is not None
    found = [float(known.graph.replay(pictures, inputs)[0]) for inputs in (one, other, other, one)]
    assert found == [23.0, 113.0, 113.0, 23.0]
    assert float(one.tensors[0]) == 10.0


def test_a_dropped_graph_is_recorded_again_after_many_runs(recorder: Recorder) -> None:
    graphs, key = GraphCache(torch.device("cuda"), 10**6), PassKey("extract")
    run(graphs, key, RECORD_AFTER)
    graphs.clear()
    assert not run(graphs, key, RECORD_AGAIN_AFTER)
    assert run(graphs, key)


def test_recorded_passes_are_limited_in_number_and_in_memory(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs, often = GraphCache(torch.device("cuda"), 250), RECORD_AFTER
    for side in (1, 2, 3):
        run(graphs, PassKey("extract"), often, side)
    assert all(run(graphs, PassKey("extract"), side=side) for side in (1, 2, 3))
    run(graphs, PassKey("extract"), often, 4)  # exceeds 250: all others are dropped
    assert [run(graphs, PassKey("extract"), side=side) for side in (1, 2, 3, 4)] == [False, False, False, True]

    monkeypatch.setattr(graphs_module, "KEPT_GRAPHS", 1)
    run(graphs, PassKey("extract"), often, 5)
    run(graphs, PassKey("extract"), 1, 5)
    assert not run(graphs, PassKey("extract"), side=4)
    monkeypatch.setattr(graphs_module, "KNOWN_PASSES", 3)
    run(graphs, PassKey("extract"), side=6)
    assert len(graphs) == 3


def test_a_pass_that_cannot_be_recorded_runs_without_a_graph(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    graphs, often = GraphCache(torch.device("cuda"), 10**6), 2 * RECORD_AFTER
    recorder.fails = torch.OutOfMemoryError("full")
    assert not run(graphs, PassKey("extract"), often, 1)
    recorder.fails = None
    assert run(graphs, PassKey("extract"), often, 2)
    assert not run(graphs, PassKey("extract"), 1, 1)

    recorder.fails = torch.AcceleratorError("operation not permitted when stream is capturing")
    assert not run(graphs, PassKey("extract"), often, 3)
    assert "CUDA graphs are off" in caplog.text
    recorder.fails = None
    assert not run(graphs, PassKey("extract"), often, 4)
    assert not run(graphs, PassKey("extract"), often, 2)
