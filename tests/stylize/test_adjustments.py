"""Any process that shares the store can change the weights of a run under way; the change survives a resumption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from gramlet.errors import FailedPrecondition, InvalidInput, NotFound
from gramlet.feature.types import PictureStyle, Style
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
from gramlet_server.stylize import adjustments, presets
from gramlet_server.stylize.adjustments import Inbox, adjusted, record
from gramlet_server.stylize.plan import Pictures, Position, PreparedStylization
from gramlet_server.stylize.runs import Runs, RunSettings
from gramlet_server.stylize.stylization import Control, stylize

HEAVIER = Adjustment(content_weight=20.0, style_stages={"layer1": 3.0, "layer2": 0.0})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


@pytest.fixture
def runs(engine: Engine, store: Store) -> Runs:
    return Runs(engine, store, RunSettings(state_seconds=1e-9))


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


def losses(events: Sequence[StylizeEvent]) -> list[tuple[int, float]]:
    return [(event.iteration, event.loss) for event in events if isinstance(event, Iteration)]


def heavier(applied: int, last: bool) -> Sequence[Adjustment]:
    """HEAVIER comes at once."""
    return () if applied else (HEAVIER,)


def positions(prepared: PreparedStylization, engine: Engine) -> dict[int, Position]:
    """Where an undisturbed run is, by iteration."""
    saves: list[Position] = []
    list(stylize(prepared, engine, Control(saves.append, state_seconds=1e-9)))
    return {position.iteration: position for position in saves}


def test_the_new_weights_count_from_the_next_iteration_on(engine: Engine, prepared: PreparedStylization) -> None:
    settings = prepared.settings
    before = list(stylize(prepared, engine))
    for begin, position in positions(prepared, engine).items():
        events = list(stylize(prepared, engine, Control(adjustments=heavier), position))
        reported = next(event for event in events if isinstance(event, Adjusted))
        assert (reported.iteration, reported.number) == (begin, 1)
        assert reported.settings.content_weight == 20.0
        assert reported.settings.style_stages == {**(settings.style_stages or {}), "layer1": 3.0, "layer2": 0.0}
        if begin == 10:
            continue
        first = next(event for event in events if isinstance(event, Iteration) and event.iteration > begin)
        old = next(event for event in before if isinstance(event, Iteration) and event.iteration == begin + 1)
        assert first.iteration == begin + 1
        # The step before it was the same, so that the picture is the same.
        assert first.content_loss == pytest.approx(20 * old.content_loss / (settings.content_weight or 0), rel=1e-4)
        assert "layer2" not in first.stage_losses
        assert first.stage_losses["layer1"] == pytest.approx(3 * old.stage_losses["layer1"], rel=1e-4)


def test_a_changed_run_resumes_at_the_same_bits(engine: Engine, prepared: PreparedStylization) -> None:
    saves: list[Position] = []
    middle = positions(prepared, engine)
    control = Control(saves.append, state_seconds=1e-9, adjustments=heavier)
    whole = list(stylize(prepared, engine, control, middle[min(middle)]))
    assert saves[0].iteration == min(middle)  # saved at the change itself
    for save in saves:
        resumed = list(stylize(prepared, engine, position=Position.from_bytes(save.to_bytes())))
        assert isinstance(resumed[0], Started)
        assert resumed[0].settings.content_weight == 20.0
        assert losses(resumed) == losses(whole)
        assert resumed[-1].png == whole[-1].png  # type: ignore[attr-defined]


def test_a_change_at_the_end_of_a_scale_is_applied_in_the_next_one(
    engine: Engine, prepared: PreparedStylization
) -> None:
    """The descent has ended when the event of its last iteration is read: it does not see the change."""
    last = prepared.scales()[0].end

    def late(applied: int, last_one: bool) -> Sequence[Adjustment]:
        return (HEAVIER,) if seen and seen[-1] >= last and not applied else ()

    seen: list[int] = []
    events = []
    for event in stylize(prepared, engine, Control(adjustments=late)):
        events.append(event)
        if isinstance(event, Iteration):
            seen.append(event.iteration)
    reported = [event for event in events if isinstance(event, Adjusted)]
    assert [event.number for event in reported] == [1]
    assert reported[0].iteration >= last
    assert [iteration for iteration, _ in losses(events)] == list(range(1, 11))


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
    runs = Runs(engine, store)
    receiver = Runs(engine, store) if elsewhere else runs
    running = runs.start(order("late", iterations=6))
    outcomes: list[StylizeSettings | FailedPrecondition] = []
    events = []
    for event in running:
        events.append(event)
        if not isinstance(event, Iteration):
            continue
        try:
            outcomes.append(receiver.adjust("late", Adjustment(content_weight=2.0 + event.iteration)))
        except FailedPrecondition as error:
            outcomes.append(error)
    accepted = [outcome for outcome in outcomes if isinstance(outcome, StylizeSettings)]
    applied = [event for event in events if isinstance(event, Adjusted)]
    # Changes may be applied together. None is lost.
    assert applied[-1].settings == accepted[-1]
    assert applied[-1].number == len(accepted)
    assert outcomes == [*accepted, *outcomes[len(accepted) :]]
    assert isinstance(outcomes[-1], FailedPrecondition)
    assert "done or in its last iteration" in str(outcomes[-1])
    assert [event.iteration for event in events if isinstance(event, Iteration)] == list(range(1, 7))


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


def test_an_adjustment_reads_as_much_however_many_came_before(
    engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = engine.model()
    ordered = presets.resolve(StylizeSettings(), model)
    run = Run.create(store, "stylize", "often")
    read: list[str] = []
    get = Store.get
    monkeypatch.setattr(type(store), "get", lambda self, key: read.append(key) or get(self, key))
    counts = []
    for number in range(1, 20):
        read.clear()
        stages = {("conv1", "layer1")[number % 2]: float(number)}
        settings = record(run, Adjustment(style_stages=stages, style_weight=float(number)), ordered, model)
        counts.append(len(read))
    assert counts[1:] == [counts[1]] * (len(counts) - 1)
    assert settings.style_stages == {**(ordered.style_stages or {}), "conv1": 18.0, "layer1": 19.0}
    assert settings.style_weight == 19.0
    assert adjusted(ordered, Inbox(run).after(0, False)) == settings


def test_a_run_is_adjusted_a_bounded_number_of_times(
    engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adjustments, "MOST", 2)
    model = engine.model()
    run = Run.create(store, "stylize", "often")
    ordered = presets.resolve(StylizeSettings(), model)
    for _ in range(2):
        record(run, HEAVIER, ordered, model)
    with pytest.raises(FailedPrecondition, match="adjusted 2 times"):
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
