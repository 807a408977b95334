"""The weights of a run under way can be changed, by any process that shares the store, and survive with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramlet.errors import FailedPrecondition, InvalidInput, NotFound
from gramlet.feature.types import Evaluation, Objective, PictureStyle, Style
from gramlet.stylize.types import (
    Adjusted,
    Adjustment,
    Iteration,
    Started,
    Stylization,
    StylizeEvent,
    StylizeOrder,
    StylizeSettings,
)
from gramlet.types import Array, Pixels
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.stylize import presets
from gramlet_server.stylize.adjustments import Inbox, record
from gramlet_server.stylize.optimise import Descent, Job, stylize
from gramlet_server.stylize.runs import Runs, RunSettings

HEAVIER = Adjustment(content_weight=20.0, style_stages={"layer1": 3.0, "layer2": 0.0})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


@pytest.fixture
def runs(engine: Engine, store: Store) -> Runs:
    return Runs(engine, store, RunSettings(checkpoint_every=3))


def order(run_id: str, iterations: int) -> StylizeOrder:
    def pixels(seed: int) -> Pixels:
        return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)

    settings = StylizeSettings(size=64, iterations=iterations, scales=1, antialiased=False)
    return StylizeOrder(Stylization(pixels(1), (PictureStyle(pixels(2)),), settings), run_id=run_id)


@pytest.fixture
def job(engine: Engine, content: Array, style: Array) -> Job:
    settings = StylizeSettings(size=128, iterations=10, scales=2, antialiased=False)
    large = np.tile(content, (1, 2, 2))
    made = Job(large, (Style(style),), large, presets.resolve(settings, engine.model()))
    assert len(made.scales()) == 2
    return made


def at(iteration: int, descent: Descent, adjustment: Adjustment) -> Any:
    """What `stylize` asks: one adjustment, from that iteration on."""
    return lambda heeded, last: (adjustment,) if descent.iteration == iteration and not heeded else ()


@pytest.mark.parametrize("changed_at", [2, 7], ids=["at the coarse scale", "at the full scale"])
def test_the_new_weights_count_from_the_next_iteration_on(engine: Engine, job: Job, changed_at: int) -> None:
    descent = Descent(job.start(), job.settings)
    events = list(stylize(job, engine, descent=descent, adjustments=at(changed_at, descent, HEAVIER)))
    before = list(stylize(job, engine))
    told = next(event for event in events if isinstance(event, Adjusted))
    assert (told.iteration, told.number) == (changed_at, 1)
    assert told.settings.content_weight == 20.0
    assert told.settings.style_stages == {**(job.settings.style_stages or {}), "layer1": 3.0, "layer2": 0.0}
    assert losses(events)[:changed_at] == losses(before)[:changed_at]
    first = next(e for e in events if isinstance(e, Iteration) and e.iteration == changed_at + 1)
    old = next(e for e in before if isinstance(e, Iteration) and e.iteration == changed_at + 1)
    # The step before it was the same, so that the picture is the same.
    assert first.content_loss == pytest.approx(20 * old.content_loss / (job.settings.content_weight or 0), rel=1e-4)
    assert "layer2" not in first.stage_losses
    assert first.stage_losses["layer1"] == pytest.approx(3 * old.stage_losses["layer1"], rel=1e-4)


def losses(events: Sequence[StylizeEvent]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Iteration)]


def test_a_changed_run_resumes_at_the_same_bits(engine: Engine, job: Job) -> None:
    descent = Descent(job.start(), job.settings)
    saves: list[bytes] = []
    whole = list(
        stylize(
            job,
            engine,
            descent=descent,
            adjustments=at(4, descent, HEAVIER),
            save=saves.append,
            checkpoint_every=7,
        )
    )
    for save in saves[:2]:  # at the change itself, and at iteration 7
        again = Job.from_bytes(job.to_bytes())
        resumed = list(stylize(again, engine, descent=Descent.from_bytes(save)))
        assert isinstance(resumed[0], Started)
        assert resumed[0].settings.content_weight == 20.0
        assert losses(resumed) == losses(whole)[resumed[0].iteration :]
        assert resumed[-1].png == whole[-1].png  # type: ignore[attr-defined]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["by its own process", "by another process"])
def test_a_run_under_way_is_changed(engine: Engine, store: Store, runs: Runs, elsewhere: bool) -> None:
    asked = Runs(engine, store) if elsewhere else runs
    running = runs.start(order("under-way", iterations=5000))
    for event in running:
        if isinstance(event, Iteration) and event.iteration == 3:
            assert asked.adjust("under-way", Adjustment(style_weight=7.0)).style_weight == 7.0
        if isinstance(event, Adjusted):
            assert event.iteration >= 3
            assert event.settings.style_weight == 7.0
            break
    running.cancel()
    running.join()


def test_adjustments_add_up_and_wait_for_a_run_that_was_interrupted(engine: Engine, store: Store, runs: Runs) -> None:
    running = runs.start(order("interrupted", iterations=8))
    next(iter(running))
    running.cancel()
    running.join()
    Runs(engine, store).adjust("interrupted", Adjustment(content_weight=2.0))
    settings = runs.adjust("interrupted", Adjustment(total_variation_weight=0.5))
    assert (settings.content_weight, settings.total_variation_weight) == (2.0, 0.5)
    events = list(runs.start(StylizeOrder(resume_run_id="interrupted")))
    [told] = [event for event in events if isinstance(event, Adjusted)]
    assert told.settings == settings
    with pytest.raises(FailedPrecondition, match="done"):
        runs.adjust("interrupted", Adjustment(content_weight=1.0))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["by its own process", "by another process"])
def test_a_change_before_the_last_iteration_is_heeded_and_one_after_it_has_begun_is_refused(
    engine: Engine, store: Store, elsewhere: bool
) -> None:
    class Late:
        """The engine; asks for a change while an iteration is being computed."""

        address, model = "late", engine.model

        @contextmanager
        def differentiate(self, objective: Objective) -> Iterator[Late]:
            with engine.differentiate(objective) as self._real:
                self.replace, self.reconnects = self._real.replace, 0
                yield self

        def evaluate(self, picture: Array) -> Evaluation:
            change = Adjustment(content_weight=2.0 + len(outcomes))
            try:
                outcomes.append(asked.adjust("late", change))
            except FailedPrecondition as error:
                outcomes.append(error)
            return self._real.evaluate(picture)

    outcomes: list[StylizeSettings | FailedPrecondition] = []
    source: Any = Late()
    runs = Runs(source, store)
    asked = Runs(engine, store) if elsewhere else runs
    events = list(runs.start(order("late", iterations=3)))
    told = [event.settings for event in events if isinstance(event, Adjusted)]
    # At the evaluations of iterations 1, 2 and 3, and of the result. Changes from elsewhere may be heeded together.
    assert told in ([outcomes[1]], outcomes[:2])
    assert [type(outcome) for outcome in outcomes[2:]] == [FailedPrecondition] * 2
    assert "done or in its last iteration" in str(outcomes[2])


def test_a_run_resumed_from_before_its_end_has_its_changes_and_takes_no_more(engine: Engine, store: Store) -> None:
    model = engine.model()
    ordered = presets.resolve(StylizeSettings(), model)
    run = Run.create(store, "stylize", "resumed")
    record(run, HEAVIER, ordered, model)
    assert list(Inbox(run).after(0, True)) == [HEAVIER]
    assert list(Inbox(run).after(1, True)) == []
    for _ in range(2):  # the run goes on from a checkpoint before the change, as often as may be
        inbox = Inbox(Run.take_over(store, "stylize", "resumed"))
        assert list(inbox.after(0, False)) == [HEAVIER]
        assert list(inbox.after(1, True)) == []
        with pytest.raises(FailedPrecondition):
            record(run, HEAVIER, ordered, model)


@pytest.mark.parametrize(
    ("adjustment", "field"),
    [
        (Adjustment(style_stages={"layer9": 1.0}), "adjustment.style_stages[0].stage"),
        (Adjustment(content_weight=0.0, style_weight=0.0), "adjustment"),
    ],
)
def test_a_wrong_adjustment_is_refused_and_changes_nothing(runs: Runs, adjustment: Adjustment, field: str) -> None:
    running = runs.start(order("wrong", iterations=5000))
    next(iter(running))
    with pytest.raises(InvalidInput) as error:
        runs.adjust("wrong", adjustment)
    assert error.value.field == field
    assert runs.adjust("wrong", Adjustment(style_weight=2.0)).content_weight != 0
    running.cancel()
    running.join()


def test_a_run_that_nobody_knows_is_not_found(runs: Runs) -> None:
    with pytest.raises(NotFound):
        runs.adjust("nobodys", Adjustment(content_weight=1.0))
