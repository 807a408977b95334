"""A descent on a formula: no network, and a loss that reads like one. For the tests of the descent itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from gramlet.feature.descent_types import (
    DescentFinished,
    DescentIteration,
    DescentSettings,
    DescentStart,
)
from gramlet.feature.types import Objective
from gramlet_server.feature.canvas import AllColors, Canvas, resized
from gramlet_server.feature.descent import Descent
from gramlet_server.feature.descent_parts import Control, Happening
from gramlet_server.feature.device import Device
from gramlet_server.feature.snapshot import Snapshot
from gramlet_server.feature.steps import Steps
from torch import Tensor

SIZE = (6, 5)


START = torch.linspace(0, 1, 3 * 6 * 5).view(3, 6, 5)


WANTED = torch.linspace(0.8, 0.1, 3 * 6 * 5).sin().view(3, 6, 5)


STEEPNESS = torch.linspace(0.2, 6, 3 * 6 * 5).view(3, 6, 5)


@dataclass
class Formula:
    """A loss in closed form, quartic and badly scaled.

    Attributes:
        pauses: How often an evaluation lets others have the device.
        spoiled: Whether the loss of an evaluation, counted from 1, is no number.
    """

    weight: float = 1.0
    pauses: int = 0
    spoiled: Callable[[int], bool] = lambda _: False
    evaluations: int = 0
    stages = ("only",)

    def evaluate(self, picture: Tensor) -> Steps[tuple[Tensor, Tensor]]:
        for _ in range(self.pauses):
            yield
        self.evaluations += 1
        point = picture.clone().requires_grad_()
        wanted, steepness = (resized(each, *picture.shape[1:]) for each in (WANTED, STEEPNESS))
        away = point - wanted
        loss = self.weight * (steepness * (away.square() + 0.3 * away.pow(4))).sum()
        if self.spoiled(self.evaluations):
            loss = loss * float("nan")
        (gradient,) = torch.autograd.grad(loss, point)
        terms = torch.stack([loss, loss, torch.zeros(()), torch.zeros(()), loss]).detach()
        return terms, gradient


class LateDevice(Device):
    """The CPU, whose results are read so many iterations late."""

    def __init__(self, late: int) -> None:
        self._late = late

    @property
    def reads_late(self) -> int:
        return self._late


def start(iterations: int = 12, **options: Any) -> DescentStart:
    settings = options.pop("settings", DescentSettings(history_size=5))
    return DescentStart(objective=Objective(), iterations=iterations, settings=settings, **options)


def descent(
    order: DescentStart,
    loss: Formula | None = None,
    control: Control | None = None,
    late: int = 0,
    snapshot: Snapshot | None = None,
    canvas: Canvas | None = None,
) -> Descent:
    canvas = canvas or AllColors()
    point = canvas.of(START) if snapshot is None else snapshot.picture
    return Descent(order, loss or Formula(), canvas, LateDevice(late), control or Control(), point, snapshot)


def run(made: Descent) -> list[Happening]:
    return [happening for happening in made.run() if happening is not None]


def iterations(happenings: list[Happening]) -> list[DescentIteration]:
    return [happening for happening in happenings if isinstance(happening, DescentIteration)]


def finished(happenings: list[Happening]) -> DescentFinished:
    last = happenings[-1]
    assert isinstance(last, DescentFinished)
    return last


def same(one: list[Happening], other: list[Happening]) -> bool:
    """Whether all iterations, and the pictures at the end, are the same, bit for bit."""
    pictures = finished(one).picture, finished(other).picture
    return iterations(one) == iterations(other) and bool((pictures[0] == pictures[1]).all())
