"""What surrounds a pass on a device: failures, and which passes are recorded. What CUDA does with them: tests/gpu."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gramlet.errors import GramletError, InvalidInput, Unavailable
from gramlet.feature.types import Extraction, Form
from gramlet_server.backbone import load_network
from gramlet_server.feature import device as devices
from gramlet_server.feature.device import CudaDevice, Device, Repeats, _Graph, _Graphs
from gramlet_server.feature.engine import Engine
from torch import Tensor

PICTURE = np.full((3, 32, 32), 0.5, np.float32)
POOLED = Extraction(("conv1",), (Form.POOLED,))


class Broken(Device):
    """A device on which nothing works any more."""

    lost = True

    def upload(self, pictures: object) -> Tensor:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore for developers")

    def is_lost(self) -> bool:
        return self.lost


@pytest.fixture
def broken() -> Iterator[Engine]:
    engine = Engine(load_network("vgg16", "random:0", "cpu"))
    engine._device = Broken()
    yield engine
    engine.close()


def test_a_lost_device_is_told_once_and_answers_nobody_any_more(broken: Engine) -> None:
    told: list[GramletError] = []
    broken.tell_failure(told.append)
    extraction = Extraction(("relu1_1",), (Form.POOLED,))
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"cpu has failed, go on at another server: .* illegal memory access"):
            broken.extract_together([PICTURE], extraction)
        with pytest.raises(Unavailable):
            list(broken.extract([PICTURE], extraction))
    assert [str(error).count("\n") for error in told] == [0]


def test_an_error_of_a_device_that_lives_is_a_bug_and_no_more(broken: Engine) -> None:
    broken._device.lost = False  # type: ignore[attr-defined]
    told: list[GramletError] = []
    broken.tell_failure(told.append)
    with pytest.raises(torch.AcceleratorError):
        broken.extract_together([PICTURE], Extraction(("relu1_1",), (Form.POOLED,)))
    broken._device = Device()
    broken.extract_together([PICTURE], Extraction(("relu1_1",), (Form.POOLED,)))
    assert not told


def test_memory_that_does_not_suffice_is_the_pictures_fault(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine._device, "upload", full)
    (outcome,) = engine.extract_together([PICTURE], POOLED)
    assert isinstance(outcome, InvalidInput)
    assert "does not hold 1 such picture" in outcome.message


def test_recorded_passes_make_room_for_work_that_needs_the_memory() -> None:
    device = object.__new__(CudaDevice)  # without CUDA nothing else of it can be had
    kept = [True]
    device._graphs = SimpleNamespace(clear=lambda: bool(kept and kept.pop()))  # type: ignore[assignment]

    def work() -> str:
        if kept:
            raise torch.OutOfMemoryError("full")
        return "done"

    def too_much() -> str:
        raise torch.OutOfMemoryError("full")

    assert device.with_room(work) == "done"
    with pytest.raises(torch.OutOfMemoryError):
        device.with_room(too_much)


# --- which passes are recorded; recording itself is replaced: there is no CUDA device here ---


class Recorder:
    """Stands in for CUDA: a recorded pass adds one, and `fails` is what the next recording raises."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.recorded = 0
        self.reserved = 0

    def record(self, pictures: Tensor, compute: object, pool: object) -> _Graph:
        if self.fails:
            raise self.fails
        self.recorded += 1
        self.reserved += 100
        result = torch.empty(())
        return _Graph(pictures, [result], lambda: result.copy_(pictures.sum() + 1))  # type: ignore[arg-type, return-value]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(devices, "_record", recorder.record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: recorder.reserved)
    return recorder


class Owner:
    """Holds targets."""


def meet(graphs: _Graphs, repeats: Repeats, times: int = 1, side: int = 4) -> bool:
    """The same pass, several times; whether the last one was a replay."""
    for _ in range(times):
        pictures = torch.zeros(1, 3, side, side)
        known = graphs.known(pictures.shape, repeats)
        replayed = known.graph is not None
        if graphs.wants(known):
            graphs.record(known, pictures, lambda pictures: [pictures])
    return replayed


def test_a_pass_is_recorded_once_it_has_come_often_and_replayed_with_other_pictures(recorder: Recorder) -> None:
    graphs, owner = _Graphs(torch.device("cuda"), 10**6), Owner()
    stylization, extraction = Repeats("gradient", (owner,)), Repeats("extract")
    assert not meet(graphs, stylization, devices.RECORD_AFTER[True])
    assert meet(graphs, stylization)
    assert not meet(graphs, extraction, devices.RECORD_AFTER[False])
    assert meet(graphs, extraction)
    assert not meet(graphs, extraction, side=8)
    assert recorder.recorded == 2
    graph = graphs.known((1, 3, 4, 4), extraction).graph
    assert graph is not None
    assert [float(result) for result in graph.replay(torch.ones(1, 3, 4, 4))] == [49.0]


def test_a_recorded_pass_ends_with_the_targets_that_it_read(recorder: Recorder) -> None:
    graphs, owner = _Graphs(torch.device("cuda"), 10**6), Owner()
    assert meet(graphs, Repeats("gradient", (owner,)), 3)
    del owner
    gc.collect()
    # Perhaps at the same address: it must not be taken for the first one.
    assert not meet(graphs, Repeats("gradient", (Owner(),)))
    assert len(graphs._known) == 1


def test_recorded_passes_are_bounded_in_number_and_in_memory(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs, often = _Graphs(torch.device("cuda"), 250), devices.RECORD_AFTER[False]
    for side in (1, 2, 3):
        meet(graphs, Repeats("extract"), often, side)
    assert all(meet(graphs, Repeats("extract"), side=side) for side in (1, 2, 3))
    meet(graphs, Repeats("extract"), often, 4)  # beyond 250: all others are dropped
    assert [meet(graphs, Repeats("extract"), side=side) for side in (1, 2, 3, 4)] == [False, False, False, True]

    monkeypatch.setattr(devices, "KEPT_GRAPHS", 1)
    meet(graphs, Repeats("extract"), often, 5)
    meet(graphs, Repeats("extract"), 1, 5)
    assert not meet(graphs, Repeats("extract"), side=4)
    monkeypatch.setattr(devices, "KNOWN_PASSES", 3)
    meet(graphs, Repeats("extract"), side=6)
    assert len(graphs._known) == 3


def test_a_pass_that_cannot_be_recorded_goes_on_as_it_is(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    graphs, often = _Graphs(torch.device("cuda"), 10**6), 2 * devices.RECORD_AFTER[False]
    recorder.fails = torch.OutOfMemoryError("full")
    assert not meet(graphs, Repeats("extract"), often, 1)
    recorder.fails = None
    assert meet(graphs, Repeats("extract"), often, 2)
    assert not meet(graphs, Repeats("extract"), 1, 1)

    recorder.fails = torch.AcceleratorError("operation not permitted when stream is capturing")
    assert not meet(graphs, Repeats("extract"), often, 3)
    assert "CUDA graphs are off" in caplog.text
    recorder.fails = None
    assert not meet(graphs, Repeats("extract"), often, 4)
    assert not meet(graphs, Repeats("extract"), often, 2)
