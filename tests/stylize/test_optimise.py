"""A stylization goes down, goes on after every interruption, and tells what happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from gramlet.errors import FailedPrecondition, Unavailable
from gramlet.feature.types import Evaluation, Model, Objective, Style
from gramlet.stylize.types import (
    Checkpoint,
    Initial,
    Iteration,
    LineSearch,
    Optimizer,
    Recovered,
    RecoveryReason,
    Result,
    Started,
    StylizeEvent,
    StylizeSettings,
)
from gramlet.types import Array, Limits, Resize
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine
from gramlet_server.pictures.prepare import prepare
from gramlet_server.stylize import presets
from gramlet_server.stylize.optimise import Descent, Job, Look, Scale, stylize


@pytest.fixture
def job(engine: Engine, content: Array, style: Array) -> Job:
    return job_of(engine, content, style)


def job_of(engine: Engine, content: Array, style: Array, **changes: Any) -> Job:
    settings = presets.resolve(StylizeSettings(**{"iterations": 8, **changes}), engine.model())
    return Job(content, (Style(style),), content, settings)


def of(kind: type[StylizeEvent], events: list[StylizeEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_every_iteration_is_told_between_the_start_and_the_result(engine: Engine, job: Job) -> None:
    events = list(stylize(job, engine, preview_every=4, checkpoint_every=5))
    assert isinstance(events[0], Started)
    assert [event.iteration for event in of(Iteration, events)] == list(range(1, 9))
    assert [event.iteration for event in of(Look, events)] == [4, 8]
    assert [event.iteration for event in of(Checkpoint, events)] == [5]
    assert isinstance(events[-1], Result)
    assert events[-1].loss <= min(event.loss for event in of(Iteration, events))


def test_the_terms_add_up_to_the_loss(engine: Engine, content: Array, style: Array) -> None:
    job = job_of(engine, content, style, total_variation_weight=3.0)
    for event in of(Iteration, list(stylize(job, engine))):
        assert event.loss == pytest.approx(event.style_loss + event.content_loss + event.total_variation_loss)
        assert event.style_loss == pytest.approx(sum(event.stage_losses.values()) * job.settings.style_weight)


def test_balanced_stages_all_start_at_their_weight(engine: Engine, job: Job) -> None:
    first = of(Iteration, list(stylize(job, engine)))[0]
    assert dict(first.stage_losses) == pytest.approx(dict(job.settings.style_stages or {}), rel=1e-4)


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
    job = job_of(engine, content, style, **changes)
    whole = list(stylize(job, engine))
    saves: list[bytes] = []
    for event in stylize(job, engine, save=saves.append, checkpoint_every=3):
        if isinstance(event, Checkpoint) and event.iteration == 6:
            break
    again = Job.from_bytes(job.to_bytes())
    resumed = list(stylize(again, engine, descent=Descent.from_bytes(saves[-1])))
    assert resumed[0].iteration == 6
    assert [event.loss for event in of(Iteration, resumed)] == [e.loss for e in of(Iteration, whole)][6:]
    assert resumed[-1].png == whole[-1].png  # type: ignore[attr-defined]


def test_a_mixed_network_finishes_in_full_precision(engine: Engine, content: Array, style: Array) -> None:
    mixed = Engine(load_network("resnet50", "random:0", "cpu", "mixed"))
    try:
        job = job_of(engine, content, style, preset="classic", iterations=10)
        assert job.scales(mixed=True) == [Scale(1.0, 8, reduced_precision=True), Scale(1.0, 10)]
        exact, whole = (of(Iteration, list(stylize(job, each))) for each in (engine, mixed))
        assert whole[0].loss == pytest.approx(exact[0].loss, rel=1e-3)
        assert whole[0].loss != exact[0].loss
        # The last iterations are those of float32 from where the others led.
        descent = None
        for resumable in (mixed, engine):
            saves: list[bytes] = []
            events = stylize(job, resumable, descent=descent, save=saves.append, checkpoint_every=8)
            losses = [event.loss for event in events if isinstance(event, Iteration)]
            descent = Descent.from_bytes(saves[0])
        assert losses == [event.loss for event in whole[8:]]
    finally:
        mixed.close()


def test_coarse_scales_are_all_in_reduced_precision(engine: Engine, content: Array, style: Array) -> None:
    pictures = job_of(engine, content, style, size=256, scales=2, iterations=10)
    large = dataclasses.replace(pictures, content=np.zeros((3, 256, 128), np.float32))
    reduced, full = {"reduced_precision": True}, {"reduced_precision": False}
    assert large.scales(mixed=True) == [Scale(0.5, 7, **reduced), Scale(1.0, 9, **reduced), Scale(1.0, 10, **full)]
    assert large.scales() == [Scale(0.5, 7), Scale(1.0, 10)]


def test_a_job_survives_the_store_unchanged(job: Job) -> None:
    again = Job.from_bytes(job.to_bytes())
    assert again.settings == job.settings
    assert again.settings.initial is Initial.CONTENT
    np.testing.assert_array_equal(again.content, job.content)
    np.testing.assert_array_equal(again.styles[0].picture, job.styles[0].picture)


def test_a_line_search_evaluates_no_picture_twice(engine: Engine, content: Array, style: Array) -> None:
    job = job_of(engine, content, style, line_search=LineSearch.STRONG_WOLFE)
    seen: list[bytes] = []

    def evaluate(picture: Array) -> Evaluation:
        seen.append(picture.tobytes())
        return differentiation.evaluate(picture)

    descent = Descent(job.initial, job.settings)
    with engine.differentiate(job.objective()) as differentiation:
        for _ in range(4):
            descent.step(evaluate)
        descent.finish(evaluate)
        assert len(seen) == len(set(seen)) > 4


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        (512, [(0.125, 40), (0.25, 70), (0.5, 90), (1.0, 100)]),
        (200, [(0.5, 67), (1.0, 100)]),  # a scale of 50 pixels is left out
        (60, [(1.0, 100)]),
    ],
)
def test_the_coarser_the_scale_the_more_iterations(
    engine: Engine, style: Array, longest: int, expected: list[tuple[float, int]]
) -> None:
    job = job_of(engine, np.zeros((3, 48, longest), np.float32), style, iterations=100, scales=4)
    assert [(scale.factor, scale.end) for scale in job.scales()] == expected


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
def test_after_a_divergence_it_goes_on_from_the_best_picture(engine: Engine, job: Job, fault: float) -> None:
    events = list(stylize(job, Faulty(engine, 5, fault)))
    recovered = of(Recovered, events)
    assert [(event.reason, event.iteration) for event in recovered] == [(RecoveryReason.DIVERGED, 5)]
    losses = {event.iteration: event.loss for event in of(Iteration, events)}
    assert list(losses) == list(range(1, 9))
    assert losses[5] == min(losses[k] for k in range(1, 5))
    assert events[-1].loss <= losses[5]


@pytest.mark.parametrize("optimizer", Optimizer)
def test_a_style_that_is_the_content_leaves_the_content_and_no_alarm(
    engine: Engine, content: Array, optimizer: Optimizer
) -> None:
    job = job_of(engine, content, content, optimizer=optimizer)
    events = list(stylize(job, engine))
    assert of(Recovered, events) == []
    found = prepare(events[-1].png, Resize(), Limits())  # type: ignore[attr-defined]
    assert np.abs(found - content).max() < 1 / 255
    # What nothing of the content explains is told as ever.
    [told] = of(Recovered, list(stylize(job, Faulty(engine, 4, 1e30))))
    assert told.reason is RecoveryReason.DIVERGED


def test_after_a_divergence_it_searches_along_its_directions(engine: Engine, job: Job) -> None:
    last = of(Iteration, list(stylize(job, Faulty(engine, 5, 1e30))))[-1]
    assert last.evaluations > last.iteration + 2  # the fault, and what a line search tried
    assert last.evaluations < 3 * last.iteration


def test_a_loss_that_starts_as_no_number_is_refused(engine: Engine, job: Job) -> None:
    with pytest.raises(FailedPrecondition):
        list(stylize(job, Faulty(engine, 1, float("nan"))))


@pytest.mark.parametrize("line_search", LineSearch)
def test_a_lost_network_leaves_a_checkpoint_that_loses_nothing(
    engine: Engine, content: Array, style: Array, line_search: LineSearch
) -> None:
    job = job_of(engine, content, style, line_search=line_search)
    whole = list(stylize(job, engine))
    saves: list[bytes] = []
    with pytest.raises(Unavailable):
        # With a line search the fault comes in the middle of one.
        list(stylize(job, Faulty(engine, 5, Unavailable("gone")), save=saves.append))
    resumed = list(stylize(job, engine, descent=Descent.from_bytes(saves[-1])))
    assert resumed[-1].png == whole[-1].png  # type: ignore[attr-defined]


def test_an_interrupted_run_saves_and_says_where_to_go_on(engine: Engine, job: Job) -> None:
    saves: list[bytes] = []
    events: list[StylizeEvent] = []
    with pytest.raises(Unavailable, match="resume"):
        events.extend(stylize(job, engine, save=saves.append, interrupted=lambda: True))
    assert Descent.from_bytes(saves[-1]).iteration == 1


def test_closing_the_generator_stops_within_one_iteration(engine: Engine, job: Job) -> None:
    faulty = Faulty(engine, 0, 0.0)
    events = stylize(job, faulty)
    for event in events:
        if event.iteration == 3:
            events.close()
    assert faulty.count == 3
