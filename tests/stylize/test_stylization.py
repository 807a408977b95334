"""A stylization minimizes its loss, reports its events, and goes on after every interruption at the same bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from gramlet.errors import FailedPrecondition, Unavailable
from gramlet.feature.types import Evaluation, Model, Objective
from gramlet.stylize.types import (
    Checkpoint,
    Iteration,
    LineSearch,
    Optimizer,
    Recovered,
    RecoveryReason,
    Result,
    Started,
    StylizeEvent,
)
from gramlet.types import Array, Limits, Resize
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine
from gramlet_server.pictures.prepare import prepare
from gramlet_server.stylize.descent import Descent
from gramlet_server.stylize.plan import PreparedStylization
from gramlet_server.stylize.stylization import Control, PreviewPicture, stylize

from .conftest import prepared_of


@pytest.fixture
def prepared(engine: Engine, content: Array, style: Array) -> PreparedStylization:
    return prepared_of(engine, content, style)


def of(kind: type[StylizeEvent], events: list[StylizeEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_every_iteration_is_reported_between_the_start_and_the_result(
    engine: Engine, prepared: PreparedStylization
) -> None:
    events = list(stylize(prepared, engine, Control(preview_every=4, checkpoint_every=5)))
    assert isinstance(events[0], Started)
    assert [event.iteration for event in of(Iteration, events)] == list(range(1, 9))
    assert [event.iteration for event in of(PreviewPicture, events)] == [4, 8]
    assert [event.iteration for event in of(Checkpoint, events)] == [5]
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
def test_a_resumed_run_ends_at_the_same_bits(engine: Engine, content: Array, style: Array, changes: Any) -> None:
    prepared = prepared_of(engine, content, style, **changes)
    whole = list(stylize(prepared, engine))
    saves: list[bytes] = []
    for event in stylize(prepared, engine, Control(save=saves.append, checkpoint_every=3)):
        if isinstance(event, Checkpoint) and event.iteration == 6:
            break
    resumed = list(stylize(prepared, engine, descent=Descent.from_bytes(saves[-1])))
    assert resumed[0].iteration == 6
    assert [event.loss for event in of(Iteration, resumed)] == [e.loss for e in of(Iteration, whole)][6:]
    assert resumed[-1].png == whole[-1].png  # type: ignore[attr-defined]


def test_a_mixed_network_finishes_in_full_precision(engine: Engine, content: Array, style: Array) -> None:
    mixed = Engine(load_network("resnet50", "random:0", "cpu", "mixed"))
    try:
        prepared = prepared_of(engine, content, style, preset="classic", iterations=10)
        assert [(scale.end, scale.reduced_precision) for scale in prepared.scales(mixed=True)] == [
            (8, True),
            (10, False),
        ]
        exact, whole = (of(Iteration, list(stylize(prepared, each))) for each in (engine, mixed))
        assert whole[0].loss == pytest.approx(exact[0].loss, rel=1e-3)
        assert whole[0].loss != exact[0].loss
        # The last iterations are those of float32, from the picture where the others ended.
        descent = None
        for resumable in (mixed, engine):
            saves: list[bytes] = []
            control = Control(save=saves.append, checkpoint_every=8)
            events = stylize(prepared, resumable, control, descent)
            losses = [event.loss for event in events if isinstance(event, Iteration)]
            descent = Descent.from_bytes(saves[0])
        assert losses == [event.loss for event in whole[8:]]
    finally:
        mixed.close()


class Faulty:
    """The engine, with a fault at one evaluation."""

    def __init__(self, engine: Engine, at: int, fault: Exception | float) -> None:
        self._engine, self._at, self._fault = engine, at, fault
        self.address = "faulty"
        self.reconnects = 0
        self.count = 0

    def model(self) -> Model:
        return self._engine.model()

    @contextmanager
    def differentiate(self, objective: Objective) -> Iterator[Faulty]:
        with self._engine.differentiate(objective) as self._real:
            yield self

    def evaluate(self, picture: Array) -> Evaluation:
        self.count += 1
        evaluation = self._real.evaluate(picture)
        if self.count != self._at:
            return evaluation
        if isinstance(self._fault, Exception):
            raise self._fault
        return dataclasses.replace(evaluation, loss=self._fault)

    def replace(self, objective: Objective) -> None: ...
    def extract(self, *_: Any) -> Any: ...
    def close(self) -> None: ...


@pytest.mark.parametrize("fault", [float("nan"), float("inf"), 1e30])
def test_after_a_divergence_it_goes_on_from_the_best_picture(
    engine: Engine, prepared: PreparedStylization, fault: float
) -> None:
    events = list(stylize(prepared, Faulty(engine, 5, fault)))
    recovered = of(Recovered, events)
    assert [(event.reason, event.iteration) for event in recovered] == [(RecoveryReason.DIVERGED, 5)]
    losses = {event.iteration: event.loss for event in of(Iteration, events)}
    assert list(losses) == list(range(1, 9))
    assert losses[5] == min(losses[k] for k in range(1, 5))
    assert events[-1].loss <= losses[5]


@pytest.mark.parametrize("optimizer", Optimizer)
def test_a_style_that_is_the_content_leaves_the_content_and_is_no_divergence(
    engine: Engine, content: Array, optimizer: Optimizer
) -> None:
    prepared = prepared_of(engine, content, content, optimizer=optimizer)
    events = list(stylize(prepared, engine))
    assert of(Recovered, events) == []
    found = prepare(events[-1].png, Resize(), Limits())  # type: ignore[attr-defined]
    assert np.abs(found - content).max() < 1 / 255
    # A loss that is larger than the inverted picture's is reported as ever.
    [reported] = of(Recovered, list(stylize(prepared, Faulty(engine, 4, 1e30))))
    assert reported.reason is RecoveryReason.DIVERGED


def test_after_a_divergence_there_is_a_line_search(engine: Engine, prepared: PreparedStylization) -> None:
    last = of(Iteration, list(stylize(prepared, Faulty(engine, 5, 1e30))))[-1]
    assert last.evaluations > last.iteration + 2  # the fault, and the points that a line search tried
    assert last.evaluations < 3 * last.iteration


def test_a_loss_that_starts_as_no_number_is_refused(engine: Engine, prepared: PreparedStylization) -> None:
    with pytest.raises(FailedPrecondition):
        list(stylize(prepared, Faulty(engine, 1, float("nan"))))


@pytest.mark.parametrize("line_search", LineSearch)
def test_a_lost_network_leaves_a_checkpoint_that_loses_nothing(
    engine: Engine, content: Array, style: Array, line_search: LineSearch
) -> None:
    prepared = prepared_of(engine, content, style, line_search=line_search)
    whole = list(stylize(prepared, engine))
    saves: list[bytes] = []
    with pytest.raises(Unavailable):
        # With a line search the fault comes in the middle of one.
        list(stylize(prepared, Faulty(engine, 5, Unavailable("gone")), Control(save=saves.append)))
    resumed = list(stylize(prepared, engine, descent=Descent.from_bytes(saves[-1])))
    assert resumed[-1].png == whole[-1].png  # type: ignore[attr-defined]


def test_an_interrupted_run_is_saved_after_its_iteration(engine: Engine, prepared: PreparedStylization) -> None:
    saves: list[bytes] = []

    def interrupt() -> None:
        raise Unavailable("shutting down")

    with pytest.raises(Unavailable, match="shutting down"):
        list(stylize(prepared, engine, Control(save=saves.append, check_interrupted=interrupt)))
    assert Descent.from_bytes(saves[-1]).iteration == 1


def test_closing_the_generator_stops_within_one_iteration(engine: Engine, prepared: PreparedStylization) -> None:
    faulty = Faulty(engine, 0, 0.0)
    events = stylize(prepared, faulty)
    for event in events:
        if event.iteration == 3:
            events.close()
    assert faulty.count == 3
