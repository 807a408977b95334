"""What a descent is handed and what it reports; see `gramlet_server.feature.descent`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from gramlet.feature.descent_types import DescentEvent, DescentSettings, DescentStart, LossTerms, Optimizer
from torch import Tensor

from gramlet_server.feature.canvas import resized
from gramlet_server.feature.lbfgs import LBFGS, Adam, GradientDescent
from gramlet_server.feature.lbfgs import Optimizer as Stepper
from gramlet_server.feature.memory import history_pairs
from gramlet_server.feature.snapshot import Snapshot
from gramlet_server.feature.steps import Steps

RESTART_RATE = 0.5
"""Each restart multiplies the learning rate by this."""

COPIED_AT_ONCE = 16 * 2**20
"""Numbers that are copied to the CPU before others have the device: some 20 ms."""

PREVIEW_SIDE = 512
"""The longest side of a preview in pixels, where the start names none."""

Terms = tuple[float, ...]
"""The loss, its style, content and total variation terms, and those of each stage; as `Losses.terms`."""


class Loss(Protocol):
    """An objective in place at the network."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of the style loss, as the terms are ordered."""
        ...

    def evaluate(self, picture: Tensor) -> Steps[tuple[Tensor, Tensor]]:
        """Loss terms (4 + stages,) and gradient (3, H, W) at a picture, as new tensors which nobody waits for."""
        ...


@dataclass
class Control:
    """What the caller asks for. The descent looks at it between two iterations.

    Attributes:
        weights: A new objective, and the number of its weights.
        state: A Snapshot is wanted.
        proceed: The last iteration may begin.
        stop: End with a Snapshot.
    """

    weights: tuple[Loss, int] | None = None
    state: bool = False
    proceed: bool = False
    stop: bool = False

    def holds(self, start: DescentStart, iteration: int) -> bool:
        """Whether the iteration after this one is the last, and has to wait for `proceed`."""
        return start.confirm_last and not self.proceed and iteration + 1 == start.iterations

    def needs(self, start: DescentStart, iteration: int) -> bool:
        """Whether something needs the descent as it is after this iteration."""
        wanted = self.stop or self.state or self.weights is not None
        return wanted or iteration >= start.iterations or self.holds(start, iteration)


@dataclass(frozen=True)
class PreviewPixels:
    """How the picture looks after `iteration`.

    Attributes:
        pixels: Waits for them: (3, h, w), uint8, on the CPU.
    """

    iteration: int
    pixels: Callable[[], Tensor]


Happening = DescentEvent | PreviewPixels | Snapshot
"""What a descent reports. A preview or snapshot is encoded only when it is taken."""


def make_optimizer(settings: DescentSettings, point: Tensor, restarts: int) -> Stepper:
    """An optimizer for points like this one (C, H, W), after so many restarts."""
    rate = settings.learning_rate * RESTART_RATE**restarts
    if settings.optimizer is Optimizer.ADAM:
        return Adam(point.numel(), rate, point.device)
    if settings.optimizer is Optimizer.GRADIENT_DESCENT:
        return GradientDescent(point.numel(), rate, settings.momentum, point.device)
    return LBFGS(point.numel(), rate, history_pairs(settings, point.numel()), point.device)


def describe(terms: Terms, stages: tuple[str, ...]) -> LossTerms:
    """Loss terms by name."""
    loss, style, content, variation, *of_stages = terms
    return LossTerms(
        loss=loss,
        style_loss=style,
        content_loss=content,
        total_variation_loss=variation,
        stage_losses=dict(zip(stages, of_stages, strict=True)),
    )


def copies_on_cpu(tensors: Sequence[Tensor]) -> Steps[tuple[list[Tensor], float]]:
    """Copies that share no memory with the tensors, and the seconds that they took.

    Made in parts, between which others have the device: a history has up to a gigabyte.
    """
    copies, seconds = [], 0.0
    for tensor in tensors:
        source = tensor.detach().reshape(-1)
        copy = torch.empty(source.shape, dtype=source.dtype)
        for part, into in zip(*(torch.split(each, COPIED_AT_ONCE) for each in (source, copy)), strict=True):
            began = time.monotonic()
            into.copy_(part)
            seconds += time.monotonic() - began
            yield None
        copies.append(copy.view(tensor.shape))
    return copies, seconds


def make_preview(picture: Tensor, side: int) -> Tensor:
    """A picture (3, H, W) as levels 0..255, whose longest side is at most `side` pixels."""
    _, height, width = picture.shape
    factor = min(1.0, side / max(height, width))
    small = resized(picture, max(1, round(height * factor)), max(1, round(width * factor)))
    return small.clamp(0, 1).mul(255).round().to(torch.uint8)
