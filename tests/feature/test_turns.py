"""A long pass is computed in turns: others are served in between, and its results are those of a whole pass."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gramlet.errors import Cancelled, InvalidInput, Unavailable
from gramlet.feature.descent_types import DescentIteration
from gramlet.feature.types import Extraction, Features, Form
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.weights import load
from gramlet_server.feature import passes as passes_module
from gramlet_server.feature.engine import Engine, EngineSettings
from gramlet_server.feature.scheduler import Scheduler
from gramlet_server.feature.steps import Steps, to_end
from gramlet_server.feature.work import Batching, Work, outcome
from gramlet_server.process.memory_budget import PROCESS

from tests.e2e.cluster import wait_until
from tests.feature.descent_cases import CONTENT, OBJECTIVE, losses, make_engine, picture, run, start

STAGES = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")


class Turns:
    """A pass whose turns a test lets go one by one, and a record of everything that the device does."""

    def __init__(self, turns: int = 4) -> None:
        self._turns = turns
        self._allowed = threading.Semaphore(0)
        self.record: list[str] = []
        self.ended_early = False

    def allow(self, turns: int) -> None:
        """Lets so many turns go on."""
        self._allowed.release(turns)

    def long(self, name: str = "long", key: Any = None) -> Work:
        return Work("extract", key or name, 100, self._steps, name, is_long=True)

    def short(self, name: str) -> Work:
        return Work("extract", name, 100, self._run, name)

    def _run(self, names: Sequence[str]) -> list[str]:
        self.record += names
        return [f"{name}!" for name in names]

    def _steps(self, names: Sequence[str]) -> Steps[list[str]]:
        try:
            for _ in range(self._turns):
                assert self._allowed.acquire(timeout=30)
                self.record += names
                if "bad" in names:
                    raise InvalidInput("a bad one")
                yield None
        except GeneratorExit:
            self.ended_early = True
            raise
        return [f"{name}!" for name in names]


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gramlet_server.feature.steps.TURN_SECONDS", 0.0)  # one step a turn


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(Batching(pictures=2, linger=0.0))
    yield scheduler
    scheduler.close()


def test_others_are_served_between_two_turns(scheduler: Scheduler) -> None:
    turns = Turns()
    with scheduler.caller() as large, scheduler.caller() as small:
        long = large.submit(turns.long())
        turns.allow(1)
        wait_until(lambda: turns.record == ["long"])
        short = small.submit(turns.short("short"))
        turns.allow(1)  # the turn that had begun
        assert outcome(short)[0] == "short!"
        assert not long.done()
        turns.allow(2)
        assert outcome(long)[0] == "long!"
        assert turns.record == ["long", "long", "short", "long", "long"]
        assert outcome(long)[1].compute_seconds > 0


def test_a_second_long_pass_begins_after_the_first(scheduler: Scheduler) -> None:
    turns = Turns(turns=3)
    turns.allow(6)
    with scheduler.caller() as one, scheduler.caller() as other:
        futures = [one.submit(turns.long("first")), other.submit(turns.long("second"))]
        assert [outcome(future)[0] for future in futures] == ["first!", "second!"]
    assert turns.record == ["first"] * 3 + ["second"] * 3


def test_an_endless_series_of_small_calls_does_not_stop_a_long_pass(scheduler: Scheduler) -> None:
    turns = Turns(turns=20)
    turns.allow(20)
    with scheduler.caller() as large:
        long = large.submit(turns.long())
        for number in range(2000):
            with scheduler.caller() as small:
                outcome(small.submit(turns.short(f"{number}")))
            if long.done():
                break
        assert outcome(long)[0] == "long!"


def test_callers_that_share_a_long_pass_each_get_their_result(scheduler: Scheduler) -> None:
    turns = Turns(turns=2)
    with scheduler.caller() as one, scheduler.caller() as other:
        first = one.submit(turns.long("first"))  # holds the device until both others wait
        futures = [one.submit(turns.long("a", key="same")), other.submit(turns.long("b", key="same"))]
        turns.allow(4)
        assert outcome(first)[0] == "first!"
        assert [outcome(future)[0] for future in futures] == ["a!", "b!"]
        assert outcome(futures[0])[1].batch_size == 2


def test_a_failure_in_a_long_pass_is_that_of_its_picture_alone(scheduler: Scheduler) -> None:
    turns = Turns(turns=2)
    turns.allow(20)
    with scheduler.caller() as caller:
        good, bad = caller.submit_together([turns.long("good", key="same"), turns.long("bad", key="same")])
        assert outcome(good)[0] == "good!"
        with pytest.raises(InvalidInput):
            outcome(bad)


def test_a_long_pass_ends_early_when_its_caller_leaves(scheduler: Scheduler) -> None:
    turns = Turns()
    caller = scheduler.caller()
    long = caller.submit(turns.long())
    turns.allow(1)
    wait_until(lambda: turns.record == ["long"])
    caller.close()
    turns.allow(1)
    with pytest.raises(Cancelled):
        outcome(long)
    assert turns.ended_early
    assert len(turns.record) <= 2


def test_closing_the_scheduler_ends_the_long_pass_under_way() -> None:
    turns, scheduler = Turns(), Scheduler(Batching())
    caller = scheduler.caller()
    long, waiting = caller.submit(turns.long()), caller.submit(turns.long("waiting"))
    turns.allow(1)
    wait_until(lambda: turns.record == ["long"])
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    turns.allow(8)
    closing.join()
    assert outcome(long)[0] == "long!"
    with pytest.raises(Unavailable):
        outcome(waiting)


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_a_forward_pass_in_parts_has_the_bits_of_a_whole_one(backbone: str) -> None:
    network = Network(load(backbone, "random:0"))
    pictures = torch.from_numpy(np.random.default_rng(0).random((2, 3, 97, 64), dtype=np.float32))
    stages = [stage.name for stage in network.stages]
    with torch.inference_mode():
        parts = list(network.by_part(pictures, stages))
        for wanted in (stages, stages[1:]):  # without the first stage, ResNet-50 has another stem
            whole = network.activations(pictures, wanted)
            found = {name: tensor for name, tensor in network.by_part(pictures, wanted) if name}
            assert all(torch.equal(found[stage], whole[stage]) for stage in wanted)
    assert sum(not name for name, _ in parts) >= len(stages)


@pytest.fixture
def _long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass is long, so that it is suspended wherever it can be."""
    monkeypatch.setattr(passes_module, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(passes_module, "LONG_PIXELS", 0)


@pytest.fixture
def unpaused() -> Iterator[Engine]:
    engine = make_engine()
    yield engine
    engine.close()


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_a_gradient_in_parts_has_the_bits_of_a_whole_one(backbone: str) -> None:
    network = Network(load(backbone, "random:0"))
    random = np.random.default_rng(0)
    pictures = torch.from_numpy(random.random((2, 3, 97, 64), dtype=np.float32))
    stages = [stage.name for stage in network.stages][:-1]
    found = {}
    for in_parts in (False, True):
        tape = to_end(network.tape(pictures, stages, in_parts=in_parts))
        upstream = {stage: torch.cos(activations.detach()) for stage, activations in tape.activations().items()}
        found[in_parts] = to_end(tape.gradient(upstream))
    whole = pictures.clone().requires_grad_()
    computed = network.activations(whole, stages, smooth=True)
    given = [torch.cos(each.detach()) for each in computed.values()]
    (expected,) = torch.autograd.grad(list(computed.values()), whole, given)
    assert torch.equal(found[False], expected)
    assert torch.equal(found[True], expected)


@pytest.mark.parametrize("settings", [{}, {"tile_pixels": 32 * 32}], ids=["whole", "tiles"])
@pytest.mark.usefixtures("_long")
def test_a_descent_of_suspended_passes_is_the_same_beside_others(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(passes_module, "LONG_PIXELS", 2**40)
        undisturbed = make_engine(**settings)
        whole = run(undisturbed, start(4))
        undisturbed.close()
    engine = make_engine(**settings)
    over = threading.Event()

    def keep_calling() -> None:
        while not over.is_set():
            with engine.differentiate(OBJECTIVE) as differentiation:
                differentiation.evaluate(CONTENT)
            engine.extract_together([CONTENT], Extraction(("conv1",), (Form.POOLED,)))

    others = threading.Thread(target=keep_calling)
    others.start()
    beside = run(engine, start(4))
    over.set()
    others.join()
    engine.close()
    assert losses(beside) == losses(whole)
    assert np.array_equal(picture(beside), picture(whole))


@pytest.mark.usefixtures("_long")
def test_small_work_passes_a_gradient_that_is_suspended(unpaused: Engine) -> None:
    """The small call comes while the first part of a long gradient computes, and is answered before its last."""
    parts = threading.Semaphore(0)
    by_part, began = unpaused.network.by_part, threading.Event()

    def counted(*arguments: Any, **options: Any) -> Iterator[tuple[str, torch.Tensor]]:
        for part in by_part(*arguments, **options):
            if options.get("smooth"):
                began.set()
                assert parts.acquire(timeout=30)
            yield part

    with unpaused.differentiate(OBJECTIVE) as differentiation:
        unpaused.network.by_part = counted  # type: ignore[method-assign]
        evaluated: list[Any] = []
        long = threading.Thread(target=lambda: evaluated.append(differentiation.evaluate(CONTENT)))
        long.start()
        assert began.wait(30)
        with unpaused.passes.scheduler.caller() as small:
            short = small.submit(Work("extract", None, 1, lambda payloads: ["small"], None))
            parts.release(1)
            assert outcome(short)[0] == "small"
            assert not evaluated
            parts.release(1000)
        long.join()
    assert len(evaluated) == 1


@pytest.mark.usefixtures("_long")
def test_a_descent_that_is_cancelled_while_it_is_suspended_gives_back_its_memory(unpaused: Engine) -> None:
    run(unpaused, start(1))
    gc.collect()
    before = PROCESS.reserved
    with unpaused.descend(start(10**6)) as descent:
        while not isinstance(next(descent), DescentIteration):
            pass
    assert unpaused.descents.queue.running == 0
    assert unpaused.passes.scheduler.queued == 0
    gc.collect()
    assert PROCESS.reserved <= before


def features(engine: Engine, size: tuple[int, int]) -> Features:
    picture = np.random.default_rng(1).random((3, *size), dtype=np.float32)
    [found] = engine.extract_together([picture], Extraction(STAGES, (Form.GRAM, Form.POOLED)))
    assert isinstance(found, Features)
    return found


def test_features_of_a_large_picture_are_the_same_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(Network(load("resnet50", "random:0")), EngineSettings(feature_cache_bytes=0))
    whole = features(engine, (128, 96))
    monkeypatch.setattr(passes_module, "LONG_SECONDS", 0.0)
    assert not engine.passes.is_long("extract", 224 * 224)  # on a busy machine a small picture takes long as well
    monkeypatch.setattr(passes_module, "LONG_PIXELS", 0)
    assert engine.passes.is_long("extract", 1)
    in_turns = features(engine, (128, 96))
    engine.close()
    assert in_turns.timing.compute_seconds > 0
    for form in ("grams", "pooled"):
        for stage in STAGES:
            assert np.array_equal(getattr(in_turns, form)[stage], getattr(whole, form)[stage])
