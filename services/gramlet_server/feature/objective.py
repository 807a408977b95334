"""The loss of neural style transfer at one picture, given the network's activations there.

`Targets` is an objective whose target activations and Gram matrices have been computed; it is what the engine keeps for
the length of a stylization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from gramlet.errors import InvalidInput
from gramlet.feature.types import GramNormalization, Model, Objective, StageBalance, Style, find_stage
from gramlet.types import Array
from torch import Tensor
from torch.nn import functional

from gramlet_server.feature.gram import Region, energy, style_loss
from gramlet_server.pictures.masks import fit_region

Activations = Mapping[str, Tensor]
"""Stage name to activations (C, H, W) of one picture."""


class Reader(Protocol):
    """The network, for pictures that no gradient is wanted of."""

    def activations(self, picture: Array, stage: str, antialiased: bool) -> Tensor:
        """(C, H, W), float32."""
        ...

    def grams(
        self,
        picture: Array,
        region: Array | None,
        stages: Sequence[str],
        normalization: GramNormalization,
        antialiased: bool,
    ) -> Mapping[str, Tensor]:
        """(C, C), float32, by stage; of a region (H, W) of the picture, if there is one."""
        ...

    def region(self, mask: Array, stage: str, antialiased: bool) -> tuple[Region, bool]:
        """A mask of its picture's size at a stage; and whether any position lies in it."""
        ...

    def finest(self, stages: Sequence[str]) -> str:
        """The stage of the most positions."""
        ...


@dataclass(frozen=True)
class StyleTarget:
    """What the style loss of one stage compares with, in one region or everywhere.

    Attributes:
        gram: (C, C): the mean of the styles' Gram matrices, weighted by their shares.
        spread: The styles' own weighted variance around that mean: mean((G - Gᵢ)²) averaged over several styles is
            mean((G - gram)²) + spread, so that one comparison does for all of them.
        weight: The stage's weight, times the share of the picture that these styles rule, divided by its balance.
        energy: The sum of the squares of `gram`.
        region: Where the styles rule; None is everywhere.
    """

    gram: Tensor
    spread: float
    weight: float
    energy: float
    region: Region | None = None

    def loss(self, activations: Tensor, normalization: GramNormalization) -> Tensor:
        """The style loss of activations (C, H, W), times the weight."""
        return self.weight * (style_loss(activations, self.gram, normalization, self.energy, self.region) + self.spread)


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
    """An objective in place. All tensors are on the network's device.

    Attributes:
        style: The targets of each stage.
        content: (C, H, W).
        picture_shape: (height, width) of the only pictures it fits; None if it fits all.
    """

    style: Mapping[str, Sequence[StyleTarget]]
    content: Tensor | None
    picture_shape: tuple[int, int] | None
    content_stage: str
    content_weight: float
    style_weight: float
    total_variation_weight: float
    gram_normalization: GramNormalization
    antialiased: bool
    reduced_precision: bool

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
            stage: torch.stack([each.loss(activations[stage], self.gram_normalization) for each in targets]).sum()
            for stage, targets in self.style.items()
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
    """Computes the targets of a checked objective.

    Raises:
        InvalidInput: A region does not fit its picture.
    """
    content, content_weight = None, objective.content_weight
    objective, shape = fitted(objective)
    if objective.content is not None and content_weight:
        content = reader.activations(objective.content, objective.content_stage, objective.antialiased)
        _, height, width = objective.content.shape
        shape = (height, width)
        if objective.stage_balance is StageBalance.CONTENT:
            content_weight /= max(float(content.square().mean()), 1e-12)
    return Targets(
        style=_style_targets(objective, reader) if objective.style_weight else {},
        content=content,
        picture_shape=shape,
        content_stage=objective.content_stage,
        content_weight=content_weight,
        style_weight=objective.style_weight,
        total_variation_weight=objective.total_variation_weight,
        gram_normalization=objective.gram_normalization,
        antialiased=objective.antialiased,
        reduced_precision=objective.reduced_precision,
    )


@dataclass(frozen=True)
class Reading:
    """What is read of a picture: activations at some stages, Gram matrices of a region (None: everywhere) at others."""

    picture: Array
    activations: tuple[str, ...] = ()
    grams: tuple[str, ...] = ()
    region: Array | None = None


def readings(objective: Objective) -> list[Reading]:
    """What `place` reads of an objective whose regions are fitted."""
    found = []
    content, balanced = objective.content, objective.stage_balance is StageBalance.CONTENT
    if content is not None and objective.content_weight:
        found.append(Reading(content, activations=(objective.content_stage,)))
    stages = tuple(stage for stage, weight in objective.style_stages.items() if weight)
    for ruling in _ruling(objective.styles) if objective.style_weight else ():
        found += [Reading(style.picture, grams=stages, region=style.style_region) for style in ruling.styles]
        if content is not None and balanced:
            found.append(Reading(content, grams=stages, region=ruling.region))
    return found


def fitted(objective: Objective) -> tuple[Objective, tuple[int, int] | None]:
    """The objective with its regions brought to their pictures' sizes; and the picture's size, if there are regions."""
    regions = [style.content_region for style in objective.styles if style.content_region is not None]
    shape = None
    if regions:
        height, width = regions[0].shape if objective.content is None else objective.content.shape[1:]
        shape = (height, width)

    def fit(style: Style[Array], field: str) -> Style[Array]:
        content_region, style_region = style.content_region, style.style_region
        if content_region is not None and shape is not None:
            content_region = fit_region(content_region, *shape, f"{field}.content_region")
        if style_region is not None:
            _, height, width = style.picture.shape
            style_region = fit_region(style_region, height, width, f"{field}.style_region")
        return replace(style, content_region=content_region, style_region=style_region)

    styles = tuple(fit(style, f"styles[{i}]") for i, style in enumerate(objective.styles))
    return replace(objective, styles=styles), shape


@dataclass(frozen=True)
class _Ruling:
    """Styles that rule together: all those without a region, or one with a region.

    Attributes:
        styles: The styles.
        region: Where they rule, (H, W); None is everywhere.
        share: The share of the picture that they rule.
    """

    styles: tuple[Style[Array], ...]
    region: Array | None
    share: float


def _ruling(styles: Sequence[Style[Array]]) -> list[_Ruling]:
    """Who rules where. Where styles overlap, they divide the picture by their weights, pixel by pixel.

    A region's Gram matrices weigh like a whole picture's. Multiplied by the share of the picture that the style rules,
    its loss pulls at every pixel as hard as it would if the style ruled everywhere.
    """
    whole = tuple(style for style in styles if style.content_region is None)
    own = [style for style in styles if style.content_region is not None and style.weight]
    if not own:
        return [_Ruling(whole, None, 1.0)]
    masks = [np.asarray(style.content_region, np.float64) for style in own]
    everywhere = sum(style.weight for style in whole)
    weighed = everywhere + sum(style.weight * mask for style, mask in zip(own, masks, strict=True))  # (H, W)
    covered = np.minimum(1.0, (1.0 if everywhere else 0.0) + sum(masks))
    per_weight = np.divide(covered, weighed, out=np.zeros_like(covered), where=weighed > 0)
    ruling = [_Ruling(whole, None, float(everywhere * per_weight.mean()))] if everywhere else []
    return ruling + [
        _Ruling((style,), style.content_region, float((style.weight * mask * per_weight).mean()))
        for style, mask in zip(own, masks, strict=True)
    ]


def _style_targets(objective: Objective, reader: Reader) -> dict[str, list[StyleTarget]]:
    stages = [stage for stage, weight in objective.style_stages.items() if weight]
    targets: dict[str, list[StyleTarget]] = {stage: [] for stage in stages}
    for ruling in _ruling(objective.styles):
        for stage, target in _targets_of(ruling, stages, objective, reader).items():
            targets[stage].append(target)
    return {stage: found for stage, found in targets.items() if found}


def _targets_of(
    ruling: _Ruling, stages: Sequence[str], objective: Objective, reader: Reader
) -> Mapping[str, StyleTarget]:
    normalization, antialiased = objective.gram_normalization, objective.antialiased
    whole = sum(style.weight for style in ruling.styles)
    shares = [style.weight / whole for style in ruling.styles]
    regions = _regions_of(ruling, stages, antialiased, reader)
    stages = list(regions)
    grams = [
        reader.grams(style.picture, style.style_region, stages, normalization, antialiased) for style in ruling.styles
    ]
    content: Mapping[str, Tensor] = {}
    if objective.stage_balance is StageBalance.CONTENT and objective.content is not None:
        content = reader.grams(objective.content, ruling.region, stages, normalization, antialiased)

    targets = {}
    for stage in stages:
        stacked = torch.stack([gram[stage] for gram in grams])  # (styles, C, C)
        weights = stacked.new_tensor(shares)[:, None, None]
        mean = (weights * stacked).sum(0)
        spread = float((weights * (stacked - mean).square()).sum(0).mean()) if len(grams) > 1 else 0.0
        weight = objective.style_stages[stage] * ruling.share
        if stage in content:
            start = float((content[stage] - mean).square().mean()) + spread
            # A picture that already has the style of a stage leaves nothing to balance there.
            weight = weight / start if start > 0 else weight
        targets[stage] = StyleTarget(mean, spread, weight, energy(mean), regions[stage])
    return targets


def _regions_of(
    ruling: _Ruling, stages: Sequence[str], antialiased: bool, reader: Reader
) -> Mapping[str, Region | None]:
    """The region at each stage that has a position in it, and in the region of each style's own picture.

    A region too small for a stage is left out there: what its positions show lies mostly outside of it. One too small
    for all stages is kept at the first, the finest.
    """
    found: dict[str, Region | None] = {}
    unseen: list[str] = []
    for stage in stages:
        region, seen = (None, True) if ruling.region is None else reader.region(ruling.region, stage, antialiased)
        own = [style.style_region for style in ruling.styles if style.style_region is not None]
        if not (seen and all(reader.region(mask, stage, antialiased)[1] for mask in own)):
            unseen.append(stage)
        found[stage] = region
    kept = [stage for stage in stages if stage not in unseen] or [reader.finest(unseen)]
    return {stage: found[stage] for stage in kept}


def check(objective: Objective, model: Model) -> None:
    """Refuses an objective that the network cannot compute.

    Raises:
        InvalidInput: Naming the field of the objective.
    """

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
        find_stage(objective.content_stage, model.stages, model.backbone, "content_stage")
    if objective.style_weight:
        if not objective.styles:
            raise InvalidInput("a style weight needs a style picture", field="styles")
        if not objective.style_stages:
            raise InvalidInput("a style weight needs at least one stage", field="style_stages")
        for index, style in enumerate(objective.styles):
            weight(style.weight, f"styles[{index}].weight")
            _check_region(style.content_region, f"styles[{index}].content_region")
            _check_region(style.style_region, f"styles[{index}].style_region")
        if not sum(style.weight for style in objective.styles) > 0:
            raise InvalidInput("the styles' weights are all 0", field="styles")
        for index, (stage, value) in enumerate(objective.style_stages.items()):
            find_stage(stage, model.stages, model.backbone, f"style_stages[{index}].stage")
            weight(value, f"style_stages[{index}].weight")
    if objective.stage_balance is StageBalance.CONTENT and objective.content is None:
        raise InvalidInput("balancing the losses needs the content picture", field="content")


def _check_region(region: Array | None, field: str) -> None:
    if region is None:
        return
    if region.ndim != 2:
        raise InvalidInput(f"a region is (H, W), not {region.shape}", field=field)
    if not (region.size and region.min() >= 0 and 0 < region.max() <= 1):  # NaN fails as well
        raise InvalidInput("a region is in 0..1, and 0 is not all of it", field=field)
