"""Runs wait in the queue, report their events, are saved, resumed, cancelled and refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from gramlet.errors import AlreadyExists, Cancelled, FailedPrecondition, InvalidInput, NotFound, Overloaded, Unavailable
from gramlet.feature.types import PictureStyle
from gramlet.stylize.types import (
    Checkpoint,
    Initial,
    Iteration,
    Preview,
    Queued,
    Result,
    ScaleStarted,
    Started,
    Stylization,
    StylizeOrder,
    StylizeSettings,
)
from gramlet.types import Limits, Pixels
from gramlet_server.backbone import load_network
from gramlet_server.feature.descents import DescentLimits
from gramlet_server.feature.engine import Engine, EngineSettings
from gramlet_server.runs.store import Store
from gramlet_server.stylize.prepare import prepare_stylization
from gramlet_server.stylize.runs import Runs, RunSettings


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


@pytest.fixture
def runs(engine: Engine, store: Store) -> Runs:
    return Runs(engine, store, RunSettings(running_limit=1, queue_limit=1, state_seconds=1e-9))


def pixels(seed: int, height: int = 48, width: int = 64) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def order(run_id: str = "", iterations: int = 6, preview_every: int = 0) -> StylizeOrder:
    settings = StylizeSettings(size=64, iterations=iterations)
    stylization = Stylization(pixels(1), (PictureStyle(pixels(2)),), settings)
    return StylizeOrder(stylization, run_id=run_id, preview_every=preview_every)


def test_a_run_reports_all_of_its_events(runs: Runs) -> None:
    events = list(runs.start(order(preview_every=6)))
    kinds = [type(event) for event in events if not isinstance(event, Checkpoint)]
    assert kinds == [Started, ScaleStarted, *[Iteration] * 6, Preview, Result]
    assert any(isinstance(event, Checkpoint) for event in events)
    assert (runs.status().running, runs.status().queued) == (0, 0)


def test_the_next_waits_and_a_third_is_refused_before_any_work(runs: Runs) -> None:
    first = runs.start(order(iterations=5000))
    second = runs.start(order())
    waiting = iter(second)
    assert next(waiting) == Queued(position=0)
    with pytest.raises(Overloaded):
        runs.start(order())
    first.cancel()
    first.join()
    assert isinstance(next(waiting), Started)
    second.cancel()
    second.join()


def test_a_run_that_is_cancelled_while_it_waits_makes_room(runs: Runs) -> None:
    first, second = runs.start(order(iterations=5000)), runs.start(order())
    second.cancel()
    second.join()
    assert (runs.status().running, runs.status().queued) == (1, 0)
    with pytest.raises(Cancelled):
        next(iter(second))
    first.cancel()
    first.join()


def test_a_finished_run_gives_its_result_again(runs: Runs) -> None:
    whole = list(runs.start(order("again")))[-1]
    for again in (StylizeOrder(resume_run_id="again"), StylizeOrder(watch_run_id="again")):
        *before, result = list(runs.start(again))
        assert (result.iteration, result.loss, result.png) == (6, whole.loss, whole.png)  # type: ignore[attr-defined]
        # The last iterations may have been lost on their way to the caller who resumes it.
        assert [event.iteration for event in before] == ([*range(1, 7)] if again.resume_run_id else [])


def test_another_process_goes_on_with_the_runs_of_a_drained_one(runs: Runs, engine: Engine, store: Store) -> None:
    whole = list(runs.start(order("whole")))
    running = iter(runs.start(order("handed-on")))
    assert isinstance(next(running), Started)
    runs.lifecycle.drain()
    with pytest.raises(Unavailable):
        list(running)
    elsewhere = Runs(engine, store)
    resumed = list(elsewhere.start(StylizeOrder(resume_run_id="handed-on")))
    assert resumed[-1].png == whole[-1].png  # type: ignore[attr-defined]


def test_a_run_that_the_device_refuses_leaves_nothing_behind(engine: Engine, store: Store) -> None:
    busy = Engine(engine.network, EngineSettings(descents=DescentLimits(running=1, queued=0)))
    runs = Runs(busy, store)
    running = runs.start(order("running", iterations=5000))
    assert isinstance(next(iter(running)), Started)
    with pytest.raises(Overloaded):
        list(runs.start(order("refused")))
    assert {entry.key.split("/")[2] for entry in store.list("runs")} == {"running"}
    running.cancel()
    running.join()
    assert isinstance(list(runs.start(order("refused")))[-1], Result)
    busy.close()


def test_a_run_that_waits_for_the_device_ends_with_its_caller_and_with_its_server(engine: Engine, store: Store) -> None:
    busy = Engine(engine.network, EngineSettings(descents=DescentLimits(running=1, queued=4)))
    runs = Runs(busy, store)
    first, cancelled, drained = (runs.start(order(iterations=5000)) for _ in range(3))
    assert isinstance(next(iter(first)), Started)
    assert isinstance(next(iter(cancelled)), Queued)
    assert isinstance(next(iter(drained)), Queued)
    cancelled.cancel()
    cancelled.join()
    runs.lifecycle.drain()
    with pytest.raises(Unavailable):
        list(drained)
    with pytest.raises(Unavailable):
        list(first)
    assert (busy.descents.queue.running, busy.descents.queue.queued) == (0, 0)
    busy.close()


def test_names_are_taken_once_and_missing_runs_are_not_found(runs: Runs) -> None:
    list(runs.start(order("mine", iterations=1)))
    with pytest.raises(AlreadyExists):
        runs.start(order("mine"))
    with pytest.raises(NotFound):
        runs.start(StylizeOrder(resume_run_id="nobodys"))
    # None of these runs is left in the queue.
    assert (runs.status().running, runs.status().queued) == (0, 0)


def test_a_run_made_with_other_weights_is_refused(runs: Runs, store: Store) -> None:
    theirs = runs.start(order("theirs", iterations=5000))
    theirs.cancel()
    theirs.join()
    other = Engine(load_network("resnet50", "random:1", "cpu"))
    with pytest.raises(FailedPrecondition, match="other weights"):
        Runs(other, store).start(StylizeOrder(resume_run_id="theirs"))
    other.close()


def test_a_bad_picture_names_its_field_and_leaves_nothing_behind(runs: Runs, store: Store) -> None:
    bad = Stylization(pixels(1), (PictureStyle(pixels(2)), PictureStyle(b"no picture")))
    with pytest.raises(InvalidInput) as error:
        runs.start(StylizeOrder(bad, run_id="bad"))
    assert error.value.field == "stylization.styles[1].picture"
    assert store.list("runs") == []


@pytest.mark.parametrize("initial", Initial)
def test_a_run_starts_at_the_initial_picture_of_its_settings(engine: Engine, initial: Initial) -> None:
    given = pixels(3) if initial is Initial.GIVEN else None
    settings = StylizeSettings(size=64, initial=initial, seed=5)
    stylization = Stylization(pixels(1), (PictureStyle(pixels(2)),), settings, initial=given)
    pictures = prepare_stylization(stylization, engine, Limits()).pictures
    expected = {Initial.CONTENT: pixels(1), Initial.STYLE: pixels(2), Initial.GIVEN: pixels(3)}.get(initial)
    if expected is None:
        assert pictures.initial.std() > 0.1
        np.testing.assert_array_equal(
            pictures.initial, prepare_stylization(stylization, engine, Limits()).pictures.initial
        )
        other = dataclasses.replace(stylization, settings=dataclasses.replace(settings, seed=6))
        assert np.abs(pictures.initial - prepare_stylization(other, engine, Limits()).pictures.initial).mean() > 0.1
    else:
        np.testing.assert_allclose(pictures.initial, expected.transpose(2, 0, 1) / np.float32(255), atol=1e-6)


def test_the_content_bounds_the_pictures_that_are_stretched_to_it(engine: Engine) -> None:
    limits = Limits(network_pixels=64 * 48)
    large = pixels(2, 480, 640)
    settings = StylizeSettings(preset="classic", size=64, initial=Initial.GIVEN)
    stylization = Stylization(pixels(1), (PictureStyle(large),), settings, large, large)
    pictures = prepare_stylization(stylization, engine, limits).pictures
    assert {each.shape for each in (pictures.content, pictures.styles[0].picture, pictures.initial)} == {(3, 48, 64)}
    with pytest.raises(InvalidInput, match="longest side of at most 63") as error:
        prepare_stylization(
            dataclasses.replace(stylization, settings=dataclasses.replace(settings, size=65)), engine, limits
        )
    assert error.value.field == "stylization.content"
