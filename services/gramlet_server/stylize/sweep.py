"""A sweep: one stylization for every ratio of content to style and every deepest style stage, drawn as one picture.

This is the figure of Gatys et al. (arXiv:1508.06576, figure 3): from row to row the style has deeper stages, from
column to column there is more content. The cells run one after another, so that all of them share the targets in the
network's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from gramlet.errors import InvalidInput
from gramlet.feature.types import Model
from gramlet.stylize.sweep_types import SweepCell, SweepEvent, SweepQueued, SweepResult, SweepStarted
from gramlet.stylize.types import Queued, StylizeEvent, StylizeSettings
from gramlet.types import Limits, Pixels

from gramlet_server.feature_source import FeatureSource
from gramlet_server.pictures.decode import decode
from gramlet_server.pictures.encode import encode_png, to_uint8
from gramlet_server.stylize.grid import draw
from gramlet_server.stylize.interruption import Interruption
from gramlet_server.stylize.plan import PreparedStylization
from gramlet_server.stylize.results import Finished, saving
from gramlet_server.stylize.stylization import Control, stylize

FACTORS = (0.1, 1.0, 10.0)
"""If the request names no ratios, they are the settings' own ratio times each of these."""

MOST_CELLS = 64

Cell = tuple[int, int]
"""Row and column, from 0."""


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep that is ready to run.

    Attributes:
        stylization: The stylization that the cells vary.
        ratios: Content weight / style weight, by column.
        deepest_stages: The deepest style stage, by row.
    """

    stylization: PreparedStylization
    ratios: tuple[float, ...]
    deepest_stages: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        """All cells, in the order in which they run."""
        return [(row, column) for row in range(len(self.deepest_stages)) for column in range(len(self.ratios))]

    def stylization_of(self, cell: Cell) -> PreparedStylization:
        """The stylization of a cell: the style stages up to the row's, and the column's ratio.

        Stage weights are scaled to the sum of all stages', so that a ratio means the same in every row.
        """
        row, column = cell
        settings = self.stylization.settings
        stages = settings.style_stages or {}
        names = list(stages)
        used = {name: stages[name] for name in names[: names.index(self.deepest_stages[row]) + 1]}
        scale = sum(stages.values()) / sum(used.values())
        of_cell = replace(
            settings,
            style_stages={name: weight * scale for name, weight in used.items()},
            content_weight=self.ratios[column] * (settings.style_weight or 0.0),
        )
        # The pictures are shared by all cells, and so are their smaller scales.
        return replace(self.stylization, settings=of_cell)


@dataclass(frozen=True)
class SweepPlan:
    """A sweep without its pictures: the settings that all cells share, and the fields of `PreparedSweep`."""

    settings: StylizeSettings
    ratios: tuple[float, ...]
    deepest_stages: tuple[str, ...]

    def prepared(self, stylization: PreparedStylization, limits: Limits) -> PreparedSweep:
        """The sweep with its pictures.

        Raises:
            InvalidInput: The grid would be too large for a message.
        """
        made = PreparedSweep(replace(stylization, settings=self.settings), self.ratios, self.deepest_stages)
        _check_size(made, limits)
        return made


def plan_sweep(
    settings: StylizeSettings, ratios: tuple[float, ...], deepest_stages: tuple[str, ...], model: Model
) -> SweepPlan:
    """Completes the ratios and stages of an order, and sorts the style stages in the network's order.

    Args:
        settings: Complete.
        ratios: Of the order.
        deepest_stages: Of the order.
        model: The network.

    Raises:
        InvalidInput: A deepest stage is none of the style stages, the style weight is 0, or there are too many cells.
    """
    stages = settings.style_stages or {}
    used = {stage.name: stages[stage.name] for stage in model.stages if stages.get(stage.name)}
    if not (settings.style_weight and used):
        raise InvalidInput("a sweep varies the ratio to the style weight: give one", field="settings.style_weight")
    for index, stage in enumerate(deepest_stages):
        if stage not in used:
            raise InvalidInput(
                f"{stage!r} is none of the style stages {', '.join(used)}", field=f"deepest_stages[{index}]"
            )
    own = (settings.content_weight or settings.style_weight) / settings.style_weight
    plan = SweepPlan(
        replace(settings, style_stages=used),
        ratios or tuple(own * factor for factor in FACTORS),
        deepest_stages or tuple(used),
    )
    cells = len(plan.ratios) * len(plan.deepest_stages)
    if cells > MOST_CELLS:
        raise InvalidInput(f"{cells} cells; at most {MOST_CELLS}: name fewer ratios or stages", field="ratios")
    return plan


def _check_size(prepared: PreparedSweep, limits: Limits) -> None:
    _, height, width = prepared.stylization.pictures.content.shape
    size = 3 * height * width * (len(prepared.deepest_stages) + 1) * len(prepared.ratios)
    if size > limits.message_bytes:
        raise InvalidInput(
            f"the grid has about {size:,} bytes and a message {limits.message_bytes:,}: choose a smaller size, or "
            "fewer ratios or stages",
            field="settings.size",
        )


def sweep(
    prepared: PreparedSweep,
    features: FeatureSource,
    *,
    finished: Mapping[Cell, Finished] | None = None,
    save: Callable[[Cell, Finished], None] = lambda *_: None,
    interruption: Interruption | None = None,
) -> Iterator[SweepEvent]:
    """Runs a sweep. Closing the generator stops the work within one iteration.

    Args:
        prepared: What to do.
        features: The network.
        finished: Cells that an earlier attempt finished. Of them only what these remember is reported.
        save: Stores the result of a cell.
        interruption: Ends the sweep from another thread.

    Yields:
        SweepQueued while the first cell waits for the device, SweepStarted, a SweepCell for every event of a cell's
        stylization, and last the SweepResult.
    """
    cells = dict(finished or {})

    def keep(cell: Cell, result: Finished) -> None:
        cells[cell] = result
        save(cell, result)

    control = Control(interruption=interruption or Interruption(), is_patient=bool(cells))
    has_started = bool(cells)
    digest = features.model().weights_digest
    if has_started:
        yield _started(prepared, digest)
    for cell in prepared.cells:
        if cell in cells:
            yield from (_cell_event(prepared, cell, event) for event in cells[cell].events)
            continue
        for event in saving(stylize(prepared.stylization_of(cell), features, control), partial(keep, cell)):
            if not has_started and not isinstance(event, Queued):
                has_started, control = True, replace(control, is_patient=True)
                yield _started(prepared, digest)
            if not isinstance(event, Queued):
                yield _cell_event(prepared, cell, event)
            elif not has_started:
                yield SweepQueued(position=event.position)
    yield SweepResult(png=encode_png(_drawn(prepared, cells)), weights_digest=digest)


def _started(prepared: PreparedSweep, weights_digest: str) -> SweepStarted:
    return SweepStarted(
        ratios=prepared.ratios,
        deepest_stages=prepared.deepest_stages,
        settings=prepared.stylization.settings,
        weights_digest=weights_digest,
    )


def _cell_event(prepared: PreparedSweep, cell: Cell, event: StylizeEvent) -> SweepCell:
    row, column = cell
    return SweepCell(
        row=row,
        column=column,
        deepest_stage=prepared.deepest_stages[row],
        ratio=prepared.ratios[column],
        event=event,
    )


def _drawn(prepared: PreparedSweep, finished: Mapping[Cell, Finished]) -> Pixels:
    cells = [
        [decode(finished[row, column].result.png, Limits()) for column in range(len(prepared.ratios))]
        for row in range(len(prepared.deepest_stages))
    ]
    pictures = prepared.stylization.pictures
    return draw(
        cells,
        rows=prepared.deepest_stages,
        columns=[f"{ratio:g}" for ratio in prepared.ratios],
        content=to_uint8(pictures.content),
        styles=[to_uint8(style.picture) for style in pictures.styles],
    )
