"""Any process that shares the store can change the weights of a run under way; the change survives a resumption."""

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
from gramlet_server.stylize.descent import Descent
from gramlet_server.stylize.plan import Pictures, PreparedStylization
from gramlet_server.stylize.runs import Runs, RunSettings
from gramlet_server.stylize.stylization import Control, stylize

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
def prepared(engine: Engine, content: Array, style: Array) -> PreparedStylization:
    settings = StylizeSettings(size=128, iterations=10, scales=2, antialiased=False)
    large = np.tile(content, (1, 2, 2))
    prepared = PreparedStylization(Pictures(large, (Style(style),), large), presets.resolve(settings, engine.model()))
    assert len(prepared.scales()) == 2
    return prepared


def adjusted_at(iteration: int, descent: Descent, **control: Any) -> Control:
    """HEAVIER arrives when the descent has done so many iterations."""

    def adjustments(applied: int, last: bool) -> Sequence[Adjustment]:
        return (HEAVIER,) if descent.iteration == iteration and not applied else ()

    return Control(adjustments=adjustments, **control)


def first_descent(prepared: PreparedStylization) -> Descent:
    return Descent(prepared.scales()[0].pictures.initial, prepared.settings)


@pytest.mark.parametrize("changed_at", [2, 7], ids=["at the coarse scale", "at the full scale"])
def test_the_new_weights_count_from_the_next_iteration_on(
    engine: Engine, prepared: PreparedStylization, changed_at: int
) -> None:
    descent, settings = first_descent(prepared), prepared.settings
    events = list(stylize(prepared, engine, adjusted_at(changed_at, descent), descent))
    before = list(stylize(prepared, engine))
    reported = next(event for event in events if isinstance(event, Adjusted))
    assert (reported.iteration, reported.number) == (changed_at, 1)
    assert reported.settings.content_weight == 20.0
    assert reported.settings.style_stages == {**(settings.style_stages or {}), "layer1": 3.0, "layer2": 0.0}
    assert losses(events)[:changed_at] == losses(before)[:changed_at]
    first = next(e for e in events if isinstance(e, Iteration) and e.iteration == changed_at + 1)
    old = next(e for e in before if isinstance(e, Iteration) and e.iteration == changed_at + 1)
    # The step before it was the same, so that the picture is the same.
    assert first.content_loss == pytest.approx(20 * old.content_loss / (settings.content_weight or 0), rel=1e-4)
    assert "layer2" not in first.stage_losses
    assert first.stage_losses["layer1"] == pytest.approx(3 * old.stage_losses["layer1"], rel=1e-4)


def losses(events: Sequence[StylizeEvent]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Iteration)]


def test_a_changed_run_resumes_at_the_same_bits(engine: Engine, prepared: PreparedStylization) -> None:
    descent = first_descent(prepared)
    saves: list[bytes] = []
    control = adjusted_at(4, descent, save=saves.append, checkpoint_every=7)
    whole = list(stylize(prepared, engine, control, descent))
    for save in saves[:2]:  # at the change itself, and at iteration 7
        resumed = list(stylize(prepared, engine, descent=Descent.from_bytes(save)))
        assert isinstance(resumed[0], Started)
        assert resumed[0].settings.content_weight == 20.0
        assert losses(resumed) == losses(whole)[resumed[0].iteration :]
        assert resumed[-1].png == whole[-1].png  # type: ignore[attr-defined]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["by its own process", "by another process"])
def test_a_run_under_way_is_changed(engine: Engine, store: Store, runs: Runs, elsewhere: bool) -> None:
    receiver = Runs(engine, store) if elsewhere else runs
    running = runs.start(order("under-way", iterations=5000))
    for event in running:
        if isinstance(event, Iteration) and event.iteration == 3:
            assert receiver.adjust("under-way", Adjustment(style_weight=7.0)).style_weight == 7.0
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
    [reported] = [event for event in events if isinstance(event, Adjusted)]
    assert reported.settings == settings
    with pytest.raises(FailedPrecondition, match="done"):
        runs.adjust("interrupted", Adjustment(content_weight=1.0))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["by its own process", "by another process"])
def test_a_change_before_the_last_iteration_is_applied_and_a_later_one_is_rejected(
    engine: Engine, store: Store, elsewhere: bool
) -> None:
    class Late:
        """The engine; orders a change while an iteration is computed."""

        address, model = "late", engine.model

        @contextmanager
        def differentiate(self, objective: Objective) -> Iterator[Late]:
            with engine.differentiate(objective) as self._real:
                self.replace, self.reconnects = self._real.replace, 0
                yield self

        def evaluate(self, picture: Array) -> Evaluation:
            change = Adjustment(content_weight=2.0 + len(outcomes))
            try:
                outcomes.append(receiver.adjust("late", change))
            except FailedPrecondition as error:
                outcomes.append(error)
            return self._real.evaluate(picture)

    outcomes: list[StylizeSettings | FailedPrecondition] = []
    source: Any = Late()
    runs = Runs(source, store)
    receiver = Runs(engine, store) if elsewhere else runs
    events = list(runs.start(order("late", iterations=3)))
    applied = [event.settings for event in events if isinstance(event, Adjusted)]
    # One change was ordered in each of iterations 1, 2 and 3, and at the result. Changes from another process may be
    # applied together.
    assert applied in ([outcomes[1]], outcomes[:2])
    assert [type(outcome) for outcome in outcomes[2:]] == [FailedPrecondition] * 2
    assert "done or in its last iteration" in str(outcomes[2])


def test_a_run_resumed_from_before_its_end_has_its_changes_and_takes_no_more(engine: Engine, store: Store) -> None:
    model = engine.model()
    ordered = presets.resolve(StylizeSettings(), model)
    run = Run.create(store, "stylize", "resumed")
    record(run, HEAVIER, ordered, model)
    assert list(Inbox(run).after(0, True)) == [HEAVIER]
    assert list(Inbox(run).after(1, True)) == []
    for _ in range(2):  # the run goes on from a checkpoint before the change
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
def test_a_wrong_adjustment_is_rejected_and_changes_nothing(runs: Runs, adjustment: Adjustment, field: str) -> None:
    running = runs.start(order("wrong", iterations=5000))
    next(iter(running))
    with pytest.raises(InvalidInput) as error:
        runs.adjust("wrong", adjustment)
    assert error.value.field == field
    assert runs.adjust("wrong", Adjustment(style_weight=2.0)).content_weight != 0
    running.cancel()
    running.join()


def test_an_unknown_run_is_not_found(runs: Runs) -> None:
    with pytest.raises(NotFound):
        runs.adjust("unknown", Adjustment(content_weight=1.0))
