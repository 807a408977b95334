"""Descents share the device with everything else, and what their callers send takes effect."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gramlet.errors import Cancelled, GramletError, InvalidInput, Overloaded, Unavailable
from gramlet.feature.descent_types import (
    DescentEnding,
    DescentEvent,
    DescentFinished,
    DescentIteration,
    DescentPreview,
    DescentReady,
    DescentReweighted,
    DescentState,
    DescentWaiting,
)
from gramlet.feature.types import Extraction
from gramlet.types import Array
from gramlet_server.feature.descents import DescentLimits, LocalDescent
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.lbfgs import LBFGS

from tests.feature.descent_cases import CONTENT, OBJECTIVE, WEIGHTS, losses, make_engine, picture, run, start


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = make_engine()
    yield engine
    engine.close()


def test_a_descent_from_its_start_to_its_end(engine: Engine) -> None:
    events = run(engine, start(preview_every=3))
    ready, *rest = events
    assert ready == DescentReady(iteration=0, height=48, width=56, weights_digest=engine.network.digest)
    assert [event.iteration for event in rest if isinstance(event, DescentIteration)] == [1, 2, 3, 4, 5, 6]
    last = events[-1]
    assert isinstance(last, DescentFinished)
    assert last.picture.shape == CONTENT.shape
    first = next(event for event in events if isinstance(event, DescentIteration))
    assert last.loss < first.loss
    assert set(first.stage_losses) == {"conv1", "layer1"}
    assert first.timing.compute_seconds > 0
    previews = [event for event in events if isinstance(event, DescentPreview)]
    assert previews[-1].iteration == 6
    assert previews[-1].jpeg[:2] == b"\xff\xd8"


def test_its_losses_are_those_of_a_differentiation(engine: Engine) -> None:
    events = run(engine, start(1))
    with engine.differentiate(OBJECTIVE) as differentiation:
        evaluation = differentiation.evaluate(CONTENT)
    first = next(event for event in events if isinstance(event, DescentIteration))
    assert (first.loss, first.style_loss, first.content_loss, first.total_variation_loss) == (
        evaluation.loss, evaluation.style_loss, evaluation.content_loss, evaluation.total_variation_loss
    )  # fmt: skip
    assert first.stage_losses == evaluation.stage_losses


def test_in_pieces_it_is_what_it_is_in_one(engine: Engine) -> None:
    whole = run(engine, start())
    pieces: list[DescentEvent] = []
    state = b""
    while not (pieces and isinstance(pieces[-1], DescentFinished)):
        with engine.descend(start(state=state)) as descent:
            for event in descent:
                pieces.append(event)
                if isinstance(event, DescentIteration) and event.iteration % 2 == 0:
                    descent.stop()
                if isinstance(event, DescentState):
                    state = event.data
    assert losses(pieces) == losses(whole)
    assert np.array_equal(picture(pieces), picture(whole))


def test_other_callers_and_the_length_of_turns_change_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gramlet_server.feature.descent_requests.STATES_SHARE", math.inf)
    alone = run(engine, start())
    monkeypatch.setattr("gramlet_server.feature.steps.TURN_SECONDS", 0.0)
    together: dict[int, list[DescentEvent]] = {}
    others = [
        threading.Thread(target=lambda i=i: together.update({i: run(engine, start(state_seconds=1e-9))}))
        for i in range(3)
    ]
    for other in others:
        other.start()
    list(engine.extract([CONTENT] * 5, Extraction(stages=("layer2",))))
    for other in others:
        other.join()
    for events in together.values():
        assert losses(events) == losses(alone)
        assert np.array_equal(picture(events), picture(alone))
        assert any(isinstance(event, DescentState) for event in events)


def test_large_pictures_are_evaluated_in_tiles() -> None:
    engine = make_engine(tile_pixels=40 * 40)
    try:
        events = run(engine, start(2))
        whole = make_engine()
        assert dict(losses(events)) == pytest.approx(dict(losses(run(whole, start(2)))), rel=1e-4)
        whole.close()
    finally:
        engine.close()


def test_new_weights_take_effect_and_come_with_a_state(engine: Engine) -> None:
    events: list[DescentEvent] = []
    with engine.descend(start(8, confirm_last=True)) as descent:
        for event in descent:
            events.append(event)
            if isinstance(event, DescentWaiting):
                if any(isinstance(earlier, DescentReweighted) for earlier in events):
                    descent.proceed()
                else:
                    descent.reweight(WEIGHTS)
    reweighted = next(i for i, event in enumerate(events) if isinstance(event, DescentReweighted))
    assert events[reweighted] == DescentReweighted(iteration=7, number=1)
    state = events[reweighted - 1]
    assert isinstance(state, DescentState)
    assert (state.iteration, state.number) == (7, 1)
    new = {name: value for name, value in vars(WEIGHTS).items() if name != "number"}
    on_its_own = run(engine, start(8, objective=replace(OBJECTIVE, **new), state=state.data))
    assert losses(on_its_own) == losses(events)[-1:]
    assert np.array_equal(picture(on_its_own), picture(events))


def test_a_start_of_any_size_is_brought_to_the_contents(engine: Engine) -> None:
    initial = np.random.default_rng(3).random((3, 20, 30), dtype=np.float32)
    assert picture(run(engine, start(2, initial=initial))).shape == CONTENT.shape


def test_coarse_to_fine(engine: Engine) -> None:
    coarse = run(
        engine, start(3, ending=DescentEnding.PICTURE, objective=replace(OBJECTIVE, content=CONTENT[:, ::2, ::2]))
    )
    state = coarse[-1]
    assert isinstance(state, DescentState)
    assert len(state.data) < 2 * CONTENT.nbytes
    fine = run(engine, start(5, state=state.data))
    assert [iteration for iteration, _ in losses(fine)] == [4, 5]
    assert picture(fine).shape == CONTENT.shape


def test_the_contents_colors_are_kept(engine: Engine) -> None:
    found = picture(run(engine, start(3, luminance_only=True)))
    luma = np.array([0.299, 0.587, 0.114], np.float32)

    def chroma(rgb: Array) -> Array:
        return rgb - np.tensordot(luma, rgb, 1)

    np.testing.assert_allclose(chroma(found), chroma(CONTENT), atol=1e-5)
    assert not np.allclose(found, CONTENT, atol=1e-3)


def test_cancelling_ends_a_descent_that_waits_and_one_that_runs() -> None:
    engine = make_engine(descents=DescentLimits(running=1, queued=1))
    try:
        with engine.descend(start(10**6)) as first, engine.descend(start(1)) as second:
            assert isinstance(next(first), DescentReady)
            next(second)
            second.cancel()
            with pytest.raises(Cancelled):
                next(second)
            first.cancel()
            with pytest.raises(Cancelled):
                list(first)
        assert engine.descents.queue.running == 0
        assert engine.passes.scheduler.callers == 0
    finally:
        engine.close()


def ends(descent: LocalDescent) -> None:
    list(descent)


def is_cancelled(descent: LocalDescent) -> None:
    next(event for event in descent if isinstance(event, DescentIteration))
    descent.cancel()
    list(descent)


def fails(descent: LocalDescent) -> None:
    for event in descent:
        if isinstance(event, DescentWaiting):
            descent.reweight(replace(WEIGHTS, style_weight=math.nan))


@pytest.mark.parametrize(("end", "error"), [(ends, None), (is_cancelled, Cancelled), (fails, InvalidInput)])
def test_its_memory_is_free_when_it_has_ended(
    end: Callable[[LocalDescent], None], error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A history has up to a gigabyte, of a memory that Python's garbage collector knows nothing of."""
    histories: list[weakref.ref[LBFGS]] = []

    class Watched(LBFGS):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            histories.append(weakref.ref(self))

    monkeypatch.setattr("gramlet_server.feature.descent_parts.LBFGS", Watched)
    engine = make_engine()
    gc.disable()
    try:
        raised: list[Exception] = []
        with engine.descend(start(10**4 if end is is_cancelled else 3, confirm_last=end is fails)) as descent:
            try:
                end(descent)
            except GramletError as caught:
                raised.append(caught)  # as a call does until it has answered
        engine.passes.run_single(engine.passes.scheduler.caller(), "any", 1, lambda: None)
        assert [type(each) for each in raised] == ([] if error is None else [error])
        assert [history() for history in histories] == [None]
    finally:
        gc.enable()
        engine.close()


def test_a_memory_that_is_full_of_other_descents_is_no_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    try:
        with engine.descend(start(10**4)) as other:
            next(event for event in other if isinstance(event, DescentIteration))
            with monkeypatch.context() as full:

                def allocate(*_: object) -> LBFGS:
                    raise torch.OutOfMemoryError("CUDA out of memory")

                full.setattr("gramlet_server.feature.descent.make_optimizer", allocate)
                with pytest.raises(Overloaded, match="1 other descent") as refused:
                    run(engine, start())
                assert refused.value.retry_after
                other.cancel()
                other.close()
                with pytest.raises(InvalidInput, match="does not hold"):
                    run(engine, start())
    finally:
        engine.close()


def test_a_server_that_shuts_down_hands_out_the_state() -> None:
    engine = make_engine()
    events: list[DescentEvent] = []

    def read(descent: LocalDescent) -> None:
        for event in descent:
            events.append(event)
            if isinstance(event, DescentWaiting):
                engine.drain()

    try:
        whole = run(engine, start(8))
        with engine.descend(start(8, confirm_last=True)) as descent, pytest.raises(Unavailable) as ended:
            read(descent)
        assert ended.value.retry_after == 0
        state = events[-1]
        assert isinstance(state, DescentState)
        with pytest.raises(Unavailable):
            engine.descend(start())
    finally:
        engine.close()
    elsewhere = make_engine()
    try:
        rest = run(elsewhere, start(8, state=state.data))
    finally:
        elsewhere.close()
    assert losses(events) + losses(rest) == losses(whole)
    assert np.array_equal(picture(rest), picture(whole))


def test_the_load_says_how_much_is_left() -> None:
    engine = make_engine(descents=DescentLimits(running=1, queued=5))
    try:
        run(engine, start(2))
        assert engine.backlog_seconds == 0
        with engine.descend(start(1000, confirm_last=True)) as first, engine.descend(start(500)) as second:
            next(first)
            next(second)
            load = engine.model().load
            assert (load.descents_running, load.descents_limit) == (1, 1)
            assert (load.descents_queued, load.descent_queue_limit) == (1, 5)
            assert load.backlog_seconds > 0
        assert engine.model().load.backlog_seconds == 0
    finally:
        engine.close()
