"""A descent that cannot be is refused before any work, with the field that is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from gramlet.errors import FailedPrecondition, InvalidInput, Overloaded
from gramlet.feature.descent_types import (
    DescentEnding,
    DescentFinished,
    DescentQueued,
    DescentReady,
    DescentStart,
    DescentState,
)
from gramlet.feature.types import Objective
from gramlet_server.feature.descents import DescentLimits
from gramlet_server.feature.engine import Engine
from gramlet_server.process.memory_budget import PROCESS

from tests.feature.descent_cases import OBJECTIVE, WEIGHTS, losses, make_engine, run, start


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = make_engine()
    yield engine
    engine.close()


def test_a_descent_too_large_for_the_memory_is_refused_before_any_work(engine: Engine) -> None:
    PROCESS.set_limit(1000)
    try:
        with pytest.raises(InvalidInput, match="bytes of memory") as caught:
            run(engine, start(4))
    finally:
        PROCESS.set_limit(math.inf)
    assert caught.value.field == "start.settings.history_size"
    assert losses(run(engine, start(2)))


def test_weights_that_cannot_be_are_an_error(engine: Engine) -> None:
    with engine.descend(start(2, confirm_last=True)) as descent:
        descent.reweight(replace(WEIGHTS, style_stages={"layer9": 1.0}))
        with pytest.raises(InvalidInput, match="layer9"):
            list(descent)


def test_a_full_queue_refuses_before_any_work() -> None:
    engine = make_engine(descents=DescentLimits(running=1, queued=1))
    try:
        with engine.descend(start(1, confirm_last=True)) as first, engine.descend(start(1)) as second:
            assert isinstance(next(first), DescentReady)
            assert next(second) == DescentQueued(position=0)
            with pytest.raises(Overloaded) as refused, engine.descend(start(1)):
                pass
            assert refused.value.retry_after is not None
            first.proceed()
            assert isinstance([*first][-1], DescentFinished)
            assert isinstance([*second][-1], DescentFinished)
    finally:
        engine.close()


def test_another_network_is_refused(engine: Engine) -> None:
    with pytest.raises(FailedPrecondition, match="weights"):
        engine.descend(start(weights_digest="0" * 64))


WRONG = {
    "no start": (start(objective=Objective(total_variation_weight=1.0)), "start.initial"),
    "no colors": (start(objective=Objective(total_variation_weight=1.0), luminance_only=True), "content"),
    "unknown stage": (start(objective=replace(OBJECTIVE, content_stage="layer9")), "content_stage"),
    "no state": (start(state=b"nothing"), "start.state"),
}


@pytest.mark.parametrize(("order", "field"), WRONG.values(), ids=WRONG)
def test_a_wrong_start_is_an_error_that_names_its_field(engine: Engine, order: DescentStart, field: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        run(engine, order)
    assert (wrong.value.field or "").endswith(field)
    assert engine.descents.queue.running == 0


def test_a_state_of_another_canvas_is_refused(engine: Engine) -> None:
    state = run(engine, start(2, ending=DescentEnding.STATE))[-1]
    assert isinstance(state, DescentState)
    with pytest.raises(InvalidInput, match="luminance_only"):
        run(engine, start(4, state=state.data, luminance_only=True))
