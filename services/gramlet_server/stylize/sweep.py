"""A sweep: one stylization for every ratio of content to style and every deepest style stage, drawn as one picture.

The figure of Gatys et al. (arXiv:1508.06576, figure 3): styles of ever deeper stages down the rows, ever more content
along the columns. Cells come one after another, so that all share the targets in the network's cache.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gramlet.errors import InvalidInput
from gramlet.feature.types import Model
from gramlet.stylize.types import Result, SweepCell, SweepEvent, SweepResult, SweepStarted
from gramlet.types import Limits, Pixels

from gramlet_server.feature_source import FeatureSource
from gramlet_server.pictures.decode import decode
from gramlet_server.pictures.encode import encode_png, to_uint8
from gramlet_server.stylize.grid import draw
from gramlet_server.stylize.optimise import Job, stylize

FACTORS = (0.1, 1.0, 10.0)
"""What the settings' own ratio is multiplied by where the request names no ratios."""

MOST_CELLS = 64

Place = tuple[int, int]
"""Row and column, from 0."""


@dataclass(frozen=True)
class Plan:
    """A sweep ready to run.

    Attributes:
        job: What every cell stylizes.
        ratios: Content weight / style weight, by column.
        deepest_stages: The deepest style stage, by row.
    """

    job: Job
    ratios: tuple[float, ...]
    deepest_stages: tuple[str, ...]

    @property
    def places(self) -> list[Place]:
        """Every cell, in the order of the work."""
        return [(row, column) for row in range(len(self.deepest_stages)) for column in range(len(self.ratios))]

    def job_at(self, place: Place) -> Job:
        """The job of a cell: the stages up to the row's, and the column's ratio.

        Their weights are scaled to the sum of all stages', so that a ratio means the same in every row.
        """
        row, column = place
        settings = self.job.settings
        stages = settings.style_stages or {}
        names = list(stages)
        used = {name: stages[name] for name in names[: names.index(self.deepest_stages[row]) + 1]}
        scale = sum(stages.values()) / sum(used.values())
        cell = dataclasses.replace(
            settings,
            style_stages={name: weight * scale for name, weight in used.items()},
            content_weight=self.ratios[column] * (settings.style_weight or 0.0),
        )
        return dataclasses.replace(self.job, settings=cell)

    def to_bytes(self) -> bytes:
        """For the store, without the job."""
        return json.dumps([self.ratios, self.deepest_stages]).encode()

    @classmethod
    def from_bytes(cls, data: bytes, job: Job) -> Plan:
        """What `to_bytes` wrote."""
        ratios, deepest_stages = json.loads(data)
        return cls(job, tuple(ratios), tuple(deepest_stages))


def plan(job: Job, ratios: tuple[float, ...], deepest_stages: tuple[str, ...], model: Model, limits: Limits) -> Plan:
    """Completes what was asked for. The job's style stages are put in the network's order.

    Raises:
        InvalidInput: A deepest stage that is none of the style stages, no style weight, or a picture too large to send.
    """
    settings = job.settings
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
    job = dataclasses.replace(job, settings=dataclasses.replace(settings, style_stages=used))
    made = Plan(job, ratios or tuple(own * factor for factor in FACTORS), deepest_stages or tuple(used))
    _check_size(made, limits)
    return made


def _check_size(made: Plan, limits: Limits) -> None:
    cells = len(made.places)
    if cells > MOST_CELLS:
        raise InvalidInput(f"{cells} cells; at most {MOST_CELLS}: name fewer ratios or stages", field="ratios")
    _, height, width = made.job.content.shape
    size = 3 * height * width * (len(made.deepest_stages) + 1) * len(made.ratios)
    if size > limits.message_bytes:
        raise InvalidInput(
            f"the grid has about {size:,} bytes and a message {limits.message_bytes:,}: choose a smaller size, or "
            "fewer ratios or stages",
            field="settings.size",
        )


def sweep(
    made: Plan,
    features: FeatureSource,
    *,
    finished: Mapping[Place, Result] | None = None,
    save: Callable[[Place, Result], None] = lambda *_: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[SweepEvent]:
    """Runs a sweep and yields what happens. Closing the generator stops the work within one iteration.

    Args:
        made: What to do.
        features: Where the network is.
        finished: Cells of an earlier attempt; of these only the result is told again.
        save: Keeps a finished cell.
        interrupted: Asked after every iteration: True raises Unavailable.

    Yields:
        SweepStarted, a SweepCell for every event of a cell's stylization, and last the SweepResult.
    """
    yield SweepStarted(ratios=made.ratios, deepest_stages=made.deepest_stages, settings=made.job.settings)
    results = dict(finished or {})
    for place in made.places:
        row, column = place
        known = place in results
        events = (
            iter([results[place]])
            if known
            else stylize(made.job_at(place), features, checkpoint_every=0, interrupted=interrupted)
        )
        for event in events:
            if isinstance(event, Result) and not known:
                results[place] = event
                save(place, event)
            yield SweepCell(
                row=row,
                column=column,
                deepest_stage=made.deepest_stages[row],
                ratio=made.ratios[column],
                event=event,
            )
    yield SweepResult(png=encode_png(_drawn(made, results)))


def _drawn(made: Plan, results: Mapping[Place, Result]) -> Pixels:
    cells = [
        [decode(results[row, column].png, Limits()) for column in range(len(made.ratios))]
        for row in range(len(made.deepest_stages))
    ]
    return draw(
        cells,
        rows=made.deepest_stages,
        columns=[f"{ratio:g}" for ratio in made.ratios],
        content=to_uint8(made.job.content),
        styles=[to_uint8(style.picture) for style in made.job.styles],
    )
