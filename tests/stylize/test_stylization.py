"""A stylization relays what its descents do, scale by scale, and goes on after every interruption at the same bits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from gramlet.errors import Cancelled, Overloaded, Unavailable
from gramlet.feature.descent_types import DescentSettings, DescentStart
from gramlet.stylize.types import (
    Checkpoint,
    Iteration,
    LineSearch,
    Optimizer,
    Preview,
    Queued,
    Recovered,
    RecoveryReason,
    Result,
    ScaleStarted,
    Started,
    StylizeEvent,
)
from gramlet.types import Array, Limits, Resize
from gramlet_server.backbone import load_network
from gramlet_server.feature.descents import DescentLimits, LocalDescent
from gramlet_server.feature.engine import Engine, EngineSettings
from gramlet_server.pictures.prepare import prepare
from gramlet_server.runs.queue import shutting_down
from gramlet_server.stylize.interruption import Interruption
from gramlet_server.stylize.plan import Position, PreparedStylization
from gramlet_server.stylize.stylization import Control, stylize

from .conftest import prepared_of

ALWAYS = 1e-9


def no_adjustments(applied: int, last: bool) -> tuple[()]:
    """A run that asks for adjustments waits for the answer before its last iteration, however fast the device is."""
    return ()


"""Seconds between states, so that each state is followed by the next one as soon as it is taken."""


@pytest.fixture
def prepared(engine: Engine, content: Array, style: Array) -> PreparedStylization:
    return prepared_of(engine, content, style)


@pytest.fixture
def other(engine: Engine) -> Iterator[Engine]:
    """The same network, with one descent at a time and one that may wait."""
    other = Engine(engine.network, EngineSettings(descents=DescentLimits(running=1, queued=1)))
    yield other
    other.close()


def of(kind: type[StylizeEvent], events: list[StylizeEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def losses(events: list[StylizeEvent]) -> list[tuple[int, float]]:
    return [(event.iteration, event.loss) for event in of(Iteration, events)]


def png(events: list[StylizeEvent]) -> bytes:
    assert isinstance(events[-1], Result)
    return events[-1].png


def test_every_iteration_is_reported_between_the_start_and_the_result(
    engine: Engine, prepared: PreparedStylization
) -> None:
    events = list(stylize(prepared, engine, Control(preview_every=4)))
    assert [type(event) for event in events[:2]] == [Started, ScaleStarted]
    assert [event.iteration for event in of(Iteration, events)] == list(range(1, 9))
    assert [event.iteration for event in of(Preview, events)][-1] == 8
    assert isinstance(events[-1], Result)
    assert events[-1].loss <= min(event.loss for event in of(Iteration, events))


def test_the_terms_add_up_to_the_loss(engine: Engine, content: Array, style: Array) -> None:
    prepared = prepared_of(engine, content, style, total_variation_weight=3.0)
    for event in of(Iteration, list(stylize(prepared, engine))):
        assert event.loss == pytest.approx(event.style_loss + event.content_loss + event.total_variation_loss)
        assert event.style_loss == pytest.approx(sum(event.stage_losses.values()) * prepared.settings.style_weight)


def test_balanced_stages_all_start_at_their_weight(engine: Engine, prepared: PreparedStylization) -> None:
    first = of(Iteration, list(stylize(prepared, engine)))[0]
    assert dict(first.stage_losses) == pytest.approx(dict(prepared.settings.style_stages or {}), rel=1e-4)


# --- scales ---


def large(engine: Engine, style: Array, **settings: Any) -> PreparedStylization:
    """A stylization in two scales of 5 and 3 iterations, of 64 and 128 pixels."""
    content = np.random.default_rng(3).random((3, 96, 128), dtype=np.float32)
    return prepared_of(engine, content, style, **{"scales": 2, "antialiased": False, **settings})


def test_each_scale_says_where_it_begins(engine: Engine, style: Array) -> None:
    saves: list[Position] = []
    prepared = large(engine, style)
    events = list(stylize(prepared, engine, Control(saves.append, state_seconds=ALWAYS)))
    scales = [(event.iteration, event.height, event.width) for event in of(ScaleStarted, events)]
    assert scales == [(0, 48, 64), (5, 96, 128)]
    kinds = [type(event) for event in events if not isinstance(event, Checkpoint)]
    assert kinds == [Started, ScaleStarted, *[Iteration] * 5, ScaleStarted, *[Iteration] * 3, Result]
    # A resumed run reports the scale that it is in.
    inside = next(position for position in saves if position.scale == 1)
    resumed = list(stylize(prepared, engine, position=inside))
    assert of(ScaleStarted, resumed) == of(ScaleStarted, events)[1:]


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_scales_without_iterations_are_left_out(engine: Engine, style: Array, iterations: int) -> None:
    events = list(stylize(large(engine, style, iterations=iterations), engine))
    assert [event.iteration for event in of(Iteration, events)] == list(range(1, iterations + 1))
    assert prepare(png(events), Resize(), Limits()).shape == (3, 96, 128)


def test_a_mixed_network_finishes_in_full_precision(engine: Engine, content: Array, style: Array) -> None:
    mixed = Engine(load_network("resnet50", "random:0", "cpu", "mixed"))
    try:
        prepared = prepared_of(engine, content, style, preset="classic", iterations=10)
        scales = [(scale.end, scale.reduced_precision) for scale in prepared.scales(mixed=True)]
        assert scales == [(8, True), (10, False)]
        saves: list[Position] = []
        exact = losses(list(stylize(prepared, engine)))
        events = list(stylize(prepared, mixed, Control(saves.append, state_seconds=ALWAYS)))
        whole = losses(events)
        assert whole[0][1] == pytest.approx(exact[0][1], rel=1e-3)
        assert whole[0] != exact[0]
        assert len(of(ScaleStarted, events)) == 1
        # The last iterations are those of float32, from the picture where the others ended.
        before = next(position for position in saves if position.iteration == 8)
        assert losses(list(stylize(prepared, engine, position=before))) == whole
    finally:
        mixed.close()


# --- going on ---


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"line_search": LineSearch.STRONG_WOLFE},
        {"optimizer": Optimizer.ADAM, "learning_rate": 0.02},
        {"history_size": 2},
    ],
    ids=["L-BFGS", "strong Wolfe", "Adam", "short history"],
)
def test_a_resumed_run_ends_at_the_same_bits(engine: Engine, style: Array, changes: Any) -> None:
    prepared = large(engine, style, **changes)
    whole = list(stylize(prepared, engine))
    saves: list[Position] = []
    events = list(stylize(prepared, engine, Control(saves.append, state_seconds=ALWAYS, preview_every=1)))
    assert losses(events) == losses(whole)
    assert [event.iteration for event in of(Checkpoint, events)] == [position.iteration for position in saves]
    assert {position.scale for position in saves} >= {0}
    for position in saves:
        resumed = list(stylize(prepared, engine, position=Position.from_bytes(position.to_bytes())))
        assert resumed[0].iteration == position.iteration
        assert losses(resumed) == losses(whole)  # those before the position are reported again
        assert png(resumed) == png(whole)


def test_a_position_remembers_the_last_iterations_and_their_scales(engine: Engine, style: Array) -> None:
    prepared = large(engine, style)
    saves: list[Position] = []
    whole = list(stylize(prepared, engine, Control(saves.append, state_seconds=ALWAYS)))
    inside = next(position for position in saves if position.scale == 1)
    assert inside.reported == tuple(of(Iteration, whole)[: inside.iteration])
    resumed = list(stylize(prepared, engine, position=replace(inside, reported=inside.reported[2:])))
    told, all_told = (
        [(type(event), event.iteration) for event in events if isinstance(event, Iteration | ScaleStarted)]
        for events in (resumed, whole)
    )
    assert told == all_told[3:]


@pytest.mark.parametrize("line_search", LineSearch)
def test_a_lost_network_leaves_a_position_that_loses_nothing(
    engine: Engine, other: Engine, style: Array, line_search: LineSearch
) -> None:
    prepared = large(engine, style, line_search=line_search)
    whole = list(stylize(prepared, engine))
    saves: list[Position] = []
    seen: list[StylizeEvent] = []

    def see(event: StylizeEvent) -> None:
        seen.append(event)
        if isinstance(event, Iteration) and event.iteration == 6:
            other.drain()

    with pytest.raises(Unavailable):
        all(see(event) is None for event in stylize(prepared, other, Control(saves.append, adjustments=no_adjustments)))
    resumed = list(stylize(prepared, engine, position=saves[-1]))
    # The descent may have been ahead of the events that were read, never behind.
    assert losses(seen) == losses(whole)[: saves[-1].iteration]
    assert losses(resumed) == losses(whole)
    assert png(resumed) == png(whole)


def test_a_server_that_shuts_down_saves_its_runs(engine: Engine, style: Array) -> None:
    prepared = large(engine, style)
    whole = list(stylize(prepared, engine))
    for last in (0, 3, 5, 7):
        saves: list[Position] = []
        seen = interrupted_after(last, prepared, engine, saves)
        resumed = list(stylize(prepared, engine, position=saves[-1] if saves else None))
        assert losses(seen) == losses(whole)[: saves[-1].iteration if saves else 0]
        assert losses(resumed) == losses(whole)
        assert png(resumed) == png(whole)


def interrupted_after(
    last: int, prepared: PreparedStylization, engine: Engine, saves: list[Position]
) -> list[StylizeEvent]:
    """The events of a run whose server is shut down when it has done so many iterations."""
    draining = threading.Event()
    seen: list[StylizeEvent] = []

    def check() -> None:
        if draining.is_set():
            raise shutting_down("mine")

    interruption = Interruption(check, draining.is_set)

    def see(event: StylizeEvent) -> None:
        seen.append(event)
        if event.iteration == last and not draining.is_set():
            draining.set()
            interruption.wake()

    control = Control(saves.append, interruption=interruption, adjustments=no_adjustments)
    with pytest.raises(Unavailable, match="resume run mine") as error:
        all(see(event) is None for event in stylize(prepared, engine, control))
    assert error.value.retry_after == 0
    return seen


def test_closing_the_generator_stops_the_descent(other: Engine, prepared: PreparedStylization) -> None:
    events = stylize(prepared, other)
    for event in events:
        if event.iteration == 3:
            events.close()  # type: ignore[attr-defined]  # it is a generator
    assert other.descents.queue.running == 0


# --- the device's queue ---


def busy(engine: Engine, content: Array) -> LocalDescent:
    """A descent that the device works on until it is closed."""
    objective = prepared_of(engine, content, content).objective()
    return engine.descend(DescentStart(objective=objective, settings=DescentSettings(), iterations=10**6))


def test_a_run_that_waits_for_the_device_can_be_cancelled(other: Engine, prepared: PreparedStylization) -> None:
    with busy(other, prepared.pictures.content):
        interruption = Interruption()
        events = stylize(prepared, other, Control(interruption=interruption))
        assert next(events) == Queued(position=0)
        interruption.wake()
        with pytest.raises(Cancelled):
            next(events)
        assert other.descents.queue.queued == 0


def test_a_full_queue_refuses_a_new_run_and_delays_a_patient_one(other: Engine, prepared: PreparedStylization) -> None:
    running, waiting = busy(other, prepared.pictures.content), busy(other, prepared.pictures.content)
    with pytest.raises(Overloaded):
        next(stylize(prepared, other))
    interruption = Interruption()
    found: SimpleQueue[StylizeEvent | BaseException] = SimpleQueue()

    def first_event() -> None:
        try:
            found.put(next(stylize(prepared, other, Control(interruption=interruption, is_patient=True))))
        except Cancelled as error:
            found.put(error)

    thread = threading.Thread(target=first_event)
    thread.start()
    interruption.wake()
    assert isinstance(found.get(timeout=60), Cancelled)
    thread.join()
    for descent in (waiting, running):
        descent.close()
    assert isinstance(next(stylize(prepared, other)), Started)


# --- what goes wrong on the way ---


def test_a_divergence_is_reported_and_costs_no_iteration(engine: Engine, content: Array, style: Array) -> None:
    prepared = prepared_of(engine, content, style, optimizer=Optimizer.ADAM, learning_rate=100.0)
    events = list(stylize(prepared, engine))
    assert {event.reason for event in of(Recovered, events)} == {RecoveryReason.DIVERGED}
    assert [event.iteration for event in of(Iteration, events)] == list(range(1, 9))
    assert events[-1].loss <= of(Iteration, events)[0].loss


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    # The step of plain gradient descent is as large as the gradient: at its usual rate rounding alone grows here.
    [(Optimizer.LBFGS, None), (Optimizer.ADAM, None), (Optimizer.GRADIENT_DESCENT, 1e-8)],
)
def test_a_style_that_is_the_content_leaves_the_content_and_is_no_divergence(
    engine: Engine, content: Array, optimizer: Optimizer, rate: float | None
) -> None:
    prepared = prepared_of(engine, content, content, optimizer=optimizer, learning_rate=rate)
    events = list(stylize(prepared, engine))
    assert of(Recovered, events) == []
    found = prepare(png(events), Resize(), Limits())
    assert np.abs(found - content).max() < 1 / 255
