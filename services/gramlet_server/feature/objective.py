"""The loss of neural style transfer at one picture, given the network's activations there.

`Targets` is an objective whose target activations and Gram matrices have been computed; it is what the engine keeps for
the length of a stylization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from gramlet.errors import InvalidInput
from gramlet.types import Array, GramNormalization, Model, Objective, StageBalance
from torch import Tensor
from torch.nn import functional

from gramlet_server.feature.gram import energy, style_loss

Activations = Mapping[str, Tensor]
"""Stage name to activations (C, H, W) of one picture."""


class Reader(Protocol):
    """The network, for pictures that no gradient is wanted of."""

    def activations(self, picture: Array, stage: str, antialiased: bool) -> Tensor:
        """(C, H, W), float32."""
        ...

    def grams(
        self, picture: Array, stages: Sequence[str], normalization: GramNormalization, antialiased: bool
    ) -> Mapping[str, Tensor]:
        """(C, C), float32, by stage."""
        ...


@dataclass(frozen=True)
class StyleTarget:
    """What the style loss of one stage compares with.

    Attributes:
        gram: (C, C): the mean of the styles' Gram matrices, weighted by their shares.
        spread: The styles' own weighted variance around that mean: mean((G - Gᵢ)²) averaged over several styles is
            mean((G - gram)²) + spread, so that one comparison does for all of them.
        weight: The stage's weight, divided by its balance.
        energy: The sum of the squares of `gram`.
    """

    gram: Tensor
    spread: float
    weight: float
    energy: float

    def loss(self, activations: Tensor, normalization: GramNormalization) -> Tensor:
        """The style loss of activations (C, H, W), without the weight."""
        return style_loss(activations, self.gram, normalization, self.energy) + self.spread


@dataclass(frozen=True)
class Losses:
    """Scalar tensors: the total, and its terms each times its weight."""

    total: Tensor
    style: Tensor
    content: Tensor
    total_variation: Tensor
    stages: Mapping[str, Tensor]

    @property
    def terms(self) -> list[Tensor]:
        """All of them, the total first."""
        return [self.total, self.style, self.content, self.total_variation, *self.stages.values()]


@dataclass(frozen=True)
class Targets:
    """An objective in place. All tensors are on the network's device; shapes are (height, width)."""

    style: Mapping[str, StyleTarget]
    content: Tensor | None
    content_picture_shape: tuple[int, ...] | None
    content_stage: str
    content_weight: float
    style_weight: float
    total_variation_weight: float
    gram_normalization: GramNormalization
    antialiased: bool

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that the loss needs."""
        return tuple(dict.fromkeys([*self.style, *([self.content_stage] if self.content is not None else [])]))

    @property
    def term_count(self) -> int:
        """How many scalars `losses` gives."""
        return 4 + len(self.style)

    def losses(self, picture: Tensor, activations: Activations) -> Losses:
        """The loss at a picture (3, H, W) whose activations are given."""
        zero = picture.new_zeros(())
        stages = {
            stage: target.weight * target.loss(activations[stage], self.gram_normalization)
            for stage, target in self.style.items()
        }
        style = self.style_weight * sum(stages.values(), start=zero)
        content = zero
        if self.content is not None:
            content = self.content_weight * functional.mse_loss(activations[self.content_stage].float(), self.content)
        variation = zero
        if self.total_variation_weight:
            variation = self.total_variation_weight * total_variation(picture)
        return Losses(style + content + variation, style, content, variation, stages)


def total_variation(picture: Tensor) -> Tensor:
    """Mean squared difference of vertical neighbours plus that of horizontal ones, of a picture (C, H, W)."""
    down, right = picture.diff(dim=-2), picture.diff(dim=-1)
    zero = picture.new_zeros(())
    return (down.square().mean() if down.numel() else zero) + (right.square().mean() if right.numel() else zero)


def place(objective: Objective, reader: Reader) -> Targets:
    """Computes the targets of a checked objective."""
    content, shape, content_weight = None, None, objective.content_weight
    if objective.content is not None and content_weight:
        content = reader.activations(objective.content, objective.content_stage, objective.antialiased)
        shape = objective.content.shape[1:]
        if objective.stage_balance is StageBalance.CONTENT:
            content_weight /= max(float(content.square().mean()), 1e-12)
    return Targets(
        style=_style_targets(objective, reader) if objective.style_weight else {},
        content=content,
        content_picture_shape=shape,
        content_stage=objective.content_stage,
        content_weight=content_weight,
        style_weight=objective.style_weight,
        total_variation_weight=objective.total_variation_weight,
        gram_normalization=objective.gram_normalization,
        antialiased=objective.antialiased,
    )


def _style_targets(objective: Objective, reader: Reader) -> dict[str, StyleTarget]:
    stages = [stage for stage, weight in objective.style_stages.items() if weight]
    normalization = objective.gram_normalization
    whole = sum(style.weight for style in objective.styles)
    shares = [style.weight / whole for style in objective.styles]
    antialiased = objective.antialiased
    grams = [reader.grams(style.picture, stages, normalization, antialiased) for style in objective.styles]
    content: Mapping[str, Tensor] = {}
    if objective.stage_balance is StageBalance.CONTENT and objective.content is not None:
        content = reader.grams(objective.content, stages, normalization, antialiased)

    targets = {}
    for stage in stages:
        stacked = torch.stack([gram[stage] for gram in grams])  # (styles, C, C)
        weights = stacked.new_tensor(shares)[:, None, None]
        mean = (weights * stacked).sum(0)
        spread = float((weights * (stacked - mean).square()).sum(0).mean()) if len(grams) > 1 else 0.0
        weight = objective.style_stages[stage]
        if stage in content:
            start = float((content[stage] - mean).square().mean()) + spread
            # A picture that already has the style of a stage leaves nothing to balance there.
            weight = weight / start if start > 0 else weight
        targets[stage] = StyleTarget(mean, spread, weight, energy(mean))
    return targets


def check(objective: Objective, model: Model) -> None:
    """Refuses an objective that the network cannot compute.

    Raises:
        InvalidInput: Naming the field of the objective.
    """
    names = [stage.name for stage in model.stages]

    def known(stage: str, field: str) -> None:
        if stage not in names:
            raise InvalidInput(f"{model.backbone} has no stage {stage!r}; it has {', '.join(names)}", field=field)

    def weight(value: float, field: str) -> None:
        if not 0 <= value < float("inf"):
            raise InvalidInput(f"{value} is not a weight: give a finite number, 0 or more", field=field)

    weight(objective.content_weight, "content_weight")
    weight(objective.style_weight, "style_weight")
    weight(objective.total_variation_weight, "total_variation_weight")
    if not (objective.content_weight or objective.style_weight or objective.total_variation_weight):
        raise InvalidInput("all weights are 0: there is nothing to minimise", field="style_weight")
    if objective.content_weight:
        if objective.content is None:
            raise InvalidInput("a content weight needs a content picture", field="content")
        known(objective.content_stage, "content_stage")
    if objective.style_weight:
        if not objective.styles:
            raise InvalidInput("a style weight needs a style picture", field="styles")
        if not objective.style_stages:
            raise InvalidInput("a style weight needs at least one stage", field="style_stages")
        for index, style in enumerate(objective.styles):
            weight(style.weight, f"styles[{index}].weight")
        if not sum(style.weight for style in objective.styles) > 0:
            raise InvalidInput("the styles' weights are all 0", field="styles")
        for index, (stage, value) in enumerate(objective.style_stages.items()):
            known(stage, f"style_stages[{index}].stage")
            weight(value, f"style_stages[{index}].weight")
    if objective.stage_balance is StageBalance.CONTENT and objective.content is None:
        raise InvalidInput("balancing the losses needs the content picture", field="content")
