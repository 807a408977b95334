"""A sweep: its cells have the settings of their labels, it can be resumed, and its grid shows all pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramlet.errors import AlreadyExists, InvalidInput, NotFound, Unavailable
from gramlet.feature.types import PictureStyle
from gramlet.stylize.sweep_types import SweepCell, SweepEvent, SweepOrder, SweepResult, SweepStarted
from gramlet.stylize.types import Iteration, Result, Started, Stylization, StylizeOrder, StylizeSettings
from gramlet.types import Array, Pixels
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.store import Store
from gramlet_server.stylize.grid import GAP, draw
from gramlet_server.stylize.runs import Runs

PLAIN: Any = {"scales": 1, "antialiased": False}
RATIOS = (0.05, 1.0, 20.0)
STAGES = {"layer1": 2.0, "conv1": 1.0, "maxpool": 1.0}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def order(content: Array, style: Array, run_id: str = "", **changes: Any) -> SweepOrder:
    settings = StylizeSettings(**{"size": 64, "iterations": 5, "style_stages": STAGES, **PLAIN, **changes})
    stylization = Stylization(content, (PictureStyle(style),), settings)
    return SweepOrder(stylization, RATIOS, ("conv1", "layer1"), run_id=run_id)


def iterations(events: Sequence[SweepEvent]) -> list[tuple[int, int, int]]:
    """The iterations of each cell, in order."""
    found = (e for e in events if isinstance(e, SweepCell) and isinstance(e.event, Iteration))
    return [(cell.row, cell.column, cell.event.iteration) for cell in found]


def cells(events: Sequence[SweepEvent], kind: type) -> dict[tuple[str, float], Any]:
    """The last event of a kind in each cell."""
    found = (e for e in events if isinstance(e, SweepCell) and isinstance(e.event, kind))
    return {(cell.deepest_stage, cell.ratio): cell.event for cell in found}


@pytest.fixture(scope="module")
def swept(engine: Engine, content: Array, style: Array, tmp_path_factory: pytest.TempPathFactory) -> list[SweepEvent]:
    runs = Runs(engine, Store.open(str(tmp_path_factory.mktemp("sweep"))))
    return list(runs.sweep(order(content, style, "whole")))


def test_every_cell_has_its_stages_and_its_ratio(swept: list[SweepEvent]) -> None:
    started = cells(swept, Started)
    assert isinstance(swept[0], SweepStarted)
    assert list(started) == [(stage, ratio) for stage in ("conv1", "layer1") for ratio in RATIOS]
    for (stage, ratio), event in started.items():
        settings = event.settings
        assert settings.content_weight / settings.style_weight == pytest.approx(ratio)
        # In the network's order, up to the row's, with weights of the same sum.
        used = {"conv1": 4.0} if stage == "conv1" else {"conv1": 1.0, "maxpool": 1.0, "layer1": 2.0}
        assert dict(settings.style_stages) == used
    for (stage, _), event in cells(swept, Iteration).items():
        assert list(event.stage_losses) == (["conv1"] if stage == "conv1" else ["conv1", "maxpool", "layer1"])


def test_more_content_weight_is_less_content_distance(swept: list[SweepEvent]) -> None:
    results = cells(swept, Result)
    for stage in ("conv1", "layer1"):
        distances = [results[stage, ratio].content_loss / ratio for ratio in RATIOS]
        assert distances == sorted(distances, reverse=True)
        assert distances[-1] < 0.75 * distances[0]
    assert isinstance(swept[-1], SweepResult)


def test_a_sweep_goes_on_at_its_first_unfinished_cell(
    engine: Engine, content: Array, style: Array, store: Store, swept: list[SweepEvent]
) -> None:
    first = Runs(engine, store)
    running = first.sweep(order(content, style, "interrupted"))
    seen: list[SweepEvent] = []

    def watch(event: SweepEvent) -> None:
        seen.append(event)
        if isinstance(event, SweepCell) and (event.row, event.column, event.event.iteration) == (0, 2, 1):
            first.lifecycle.drain()

    with pytest.raises(Unavailable):
        all(watch(event) is None for event in running)
    finished = len(cells(seen, Result))
    resumed = list(Runs(engine, store).sweep(SweepOrder(resume_run_id="interrupted")))
    assert 2 <= finished < 6
    assert len(cells(resumed, Started)) == 6 - finished
    assert iterations(resumed) == iterations(swept)
    again = list(Runs(engine, store).sweep(SweepOrder(resume_run_id="interrupted")))
    assert iterations(again) == iterations(swept)
    assert list(cells(resumed, Result)) == list(cells(swept, Result))
    assert resumed[-1].png == swept[-1].png  # type: ignore[attr-defined]


def test_a_sweep_is_one_run_and_its_name_is_taken_once(
    engine: Engine, content: Array, style: Array, store: Store
) -> None:
    runs = Runs(engine, store)
    running = runs.sweep(order(content, style, "mine", iterations=1000))
    events = iter(running)
    next(events)
    assert runs.status().running == 1
    with pytest.raises(AlreadyExists):
        runs.sweep(order(content, style, "mine"))
    with pytest.raises(NotFound):  # it is no stylization
        runs.start(StylizeOrder(resume_run_id="mine"))
    running.cancel()
    running.join()
    assert runs.status().running == 0


def test_ratios_and_deepest_stages_have_defaults(engine: Engine, content: Array, style: Array, store: Store) -> None:
    stylization = Stylization(content, (PictureStyle(style),), StylizeSettings(size=64, preset="classic"))
    running = Runs(engine, store).sweep(SweepOrder(stylization))
    started = next(iter(running))
    running.cancel()
    running.join()
    assert isinstance(started, SweepStarted)
    assert started.ratios == pytest.approx((1e-4, 1e-3, 1e-2))
    assert started.deepest_stages == ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"deepest_stages": ("conv1", "layer4")}, "deepest_stages[1]"),
        ({"ratios": tuple(range(1, 100))}, "ratios"),
    ],
)
def test_a_wrong_sweep_names_its_field(
    engine: Engine, content: Array, style: Array, store: Store, change: dict[str, Any], field: str
) -> None:
    good = order(content, style)
    with pytest.raises(InvalidInput) as error:
        Runs(engine, store).sweep(SweepOrder(good.stylization, **{"ratios": RATIOS, **change}))
    assert error.value.field == field
    assert store.list("runs") == []


def test_the_grid_shows_every_picture_where_it_belongs() -> None:
    def plain(level: int) -> Pixels:
        return np.full((40, 60, 3), (level, 0, 255), np.uint8)  # no gray, as letters have

    levels = [[10, 20, 30], [40, 50, 60]]
    grid = draw(
        [[plain(level) for level in row] for row in levels],
        rows=["conv1", "layer1"],
        columns=["0.1", "1", "10"],
        content=plain(70),
        styles=[plain(80), plain(90)],
    )
    found = {
        level: np.argwhere((grid == (level, 0, 255)).all(axis=2)) for level in (*levels[0], *levels[1], 70, 80, 90)
    }
    assert [len(pixels) for pixels in found.values()] == [40 * 60] * 9
    corner = {level: pixels.min(axis=0) for level, pixels in found.items()}
    for row, across in enumerate(levels):
        assert [corner[level][0] for level in across] == [corner[levels[row][0]][0]] * 3
        assert np.diff([corner[level][1] for level in across]).tolist() == [60 + GAP] * 2
    assert corner[40][0] - corner[10][0] == 40 + GAP
    assert corner[70][0] < corner[10][0]
    # Something is written above the columns and beside the rows.
    left, top = corner[10][1], corner[10][0]
    assert (grid[top:, :left] == 0).all(axis=2).any()
    assert (grid[top - 16 : top, left:] == 0).all(axis=2).any()
