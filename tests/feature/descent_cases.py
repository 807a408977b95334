"""A small descent and what came of it, for the tests of descents in one process and over the wire."""

from __future__ import annotations

from typing import Any

import numpy as np
from gramlet.feature.descent_types import (
    DescentEvent,
    DescentFinished,
    DescentIteration,
    DescentSettings,
    DescentStart,
    DescentWeights,
)
from gramlet.feature.types import GramNormalization, Objective, StageBalance, Style
from gramlet.types import Array
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine, EngineSettings

CONTENT, STYLE = (np.random.default_rng(seed).random((3, 48, 56), dtype=np.float32) for seed in (1, 2))
OBJECTIVE = Objective(
    content=CONTENT,
    content_stage="layer1",
    content_weight=1.0,
    styles=(Style(STYLE),),
    style_stages={"conv1": 1.0, "layer1": 0.5},
    style_weight=10.0,
    total_variation_weight=0.1,
    gram_normalization=GramNormalization.POSITIONS,
    stage_balance=StageBalance.CONTENT,
)
WEIGHTS = DescentWeights(
    number=1, content_weight=0.1, style_weight=20.0, total_variation_weight=0.0, style_stages={"conv1": 1.0}
)


def make_engine(**settings: Any) -> Engine:
    return Engine(load_network("resnet50", "random:1", "cpu", "float32"), EngineSettings(**settings))


def start(iterations: int = 6, **options: Any) -> DescentStart:
    return DescentStart(
        objective=options.pop("objective", OBJECTIVE),
        settings=DescentSettings(history_size=4),
        iterations=iterations,
        **options,
    )


def run(engine: Engine, order: DescentStart) -> list[DescentEvent]:
    with engine.descend(order) as descent:
        return list(descent)


def losses(events: list[DescentEvent]) -> list[tuple[int, float]]:
    return [(event.iteration, event.loss) for event in events if isinstance(event, DescentIteration)]


def picture(events: list[DescentEvent]) -> Array:
    assert isinstance(events[-1], DescentFinished)
    return events[-1].picture


def assert_same(found: list[DescentEvent], expected: list[DescentEvent]) -> None:
    """The same losses and the same picture, bit for bit."""
    assert losses(found) == losses(expected)
    np.testing.assert_array_equal(picture(found), picture(expected))
