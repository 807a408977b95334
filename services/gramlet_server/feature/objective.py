"""The loss of neural style transfer at one picture, given the network's activations there (Gatys, Ecker, Bethge, 2016).

`Targets` is an objective whose target activations and Gram matrices have been computed; `targets.py` computes them.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
import torch
from gramlet.errors import InvalidInput
from gramlet.feature.types import GramNormalization, Objective, StageBalance, Style
from gramlet.types import Array
from torch import Tensor
from torch.nn import functional

from gramlet_server.backbone.architecture import Architecture
from gramlet_server.feature.gram import Region, style_loss
from gramlet_server.feature.graphs import Inputs
from gramlet_server.pictures.masks import fit_region

Activations = Mapping[str, Tensor]
"""Stage name to activations (C, H, W) of one picture."""


@dataclass(frozen=True)
class StyleTarget:
    """What the style loss of one stage compares with, in one region or everywhere.

    Several styles need only one comparison: the mean over the styles of mean((G - Gᵢ)²) is mean((G - gram)²) + spread.

    Attributes:
        gram: (C, C): the mean of the styles' Gram matrices, weighted by their shares.
        spread: The weighted variance of the styles' Gram matrices around that mean, averaged over the elements.
        weight: The stage's weight, times the share of the picture that these styles apply to, divided by its balance.
        energy: The sum of the squares of `gram`.
        region: Where the styles apply; None is everywhere.
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
    """Scalar tensors: the total, and its terms, each times its weight."""

    total: Tensor
    style: Tensor
    content: Tensor
    total_variation: Tensor
    stages: Mapping[str, Tensor]

    @property
    def terms(self) -> list[Tensor]:
        """All of them: total, style, content, total variation, then the style loss of each stage."""
        return [self.total, self.style, self.content, self.total_variation, *self.stages.values()]


@dataclass(frozen=True)
class Targets:
    """An objective with its targets. All tensors are on the network's device.

    Attributes:
        style: The targets of each stage.
        content: (C, H, W).
        picture_shape: (height, width) that a picture must have; None if any will do.
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
        """The length of `Losses.terms`."""
        return 4 + len(self.style)

    # --- what passes over one picture can share: a recorded pass serves all objectives of one signature ---

    @cached_property
    def signature(self) -> Hashable:
        """Equal for objectives whose losses run the same kernels on other `inputs`; None where there are regions."""
        targets = [target for each in self.style.values() for target in each]
        if any(target.region is not None for target in targets):
            return None
        content = None if self.content is None else (self.content_stage, tuple(self.content.shape))
        style = tuple((stage, len(each)) for stage, each in self.style.items())
        how = self.gram_normalization, self.antialiased, self.reduced_precision
        return "gradient", style, content, self.total_variation_weight, how

    @cached_property
    def inputs(self) -> Inputs:
        """The tensors and numbers that differ between objectives of one signature; none if that is None."""
        if self.signature is None:
            return Inputs()
        targets = [target for each in self.style.values() for target in each]
        tensors = [target.gram for target in targets] + ([] if self.content is None else [self.content])
        # As torch rounds a number that a tensor is multiplied by; the energies are used in float64.
        numbers = [self.style_weight, self.content_weight, *(n for t in targets for n in (t.weight, t.spread))]
        device = tensors[0].device if tensors else None
        return Inputs(
            (
                *tensors,
                torch.tensor(numbers, dtype=torch.float32, device=device),
                torch.tensor([target.energy for target in targets], dtype=torch.float64, device=device),
            )
        )

    def reading(self, inputs: Sequence[Tensor]) -> Targets:
        """These targets, with the tensors and numbers of `inputs` in place of their own."""
        if not inputs:
            return self
        *tensors, numbers, energies = inputs
        # Tensors of one number, which do in the formulas what numbers do.
        style_weight, content_weight, *rest = cast(Sequence[float], numbers.unbind())
        grams, each_energy = iter(tensors), iter(cast(Sequence[float], energies.unbind()))
        each = iter(rest)
        style = {
            stage: [
                StyleTarget(next(grams), weight=next(each), spread=next(each), energy=next(each_energy))
                for _ in targets
            ]
            for stage, targets in self.style.items()
        }
        content = None if self.content is None else next(grams)
        return replace(self, style=style, content=content, style_weight=style_weight, content_weight=content_weight)

    def losses(self, picture: Tensor, activations: Activations) -> Generator[None, None, Losses]:
        """The loss at a picture (3, H, W), from its activations; yields after each stage."""
        zero = picture.new_zeros(())
        stages = {}
        for stage, targets in self.style.items():
            losses = [each.loss(activations[stage], self.gram_normalization) for each in targets]
            stages[stage] = torch.stack(losses).sum()
            yield
        style = self.style_weight * sum(stages.values(), start=zero)
        content = zero
        if self.content is not None:
            content = self.content_weight * functional.mse_loss(activations[self.content_stage].float(), self.content)
        variation = zero
        if self.total_variation_weight:
            variation = self.total_variation_weight * total_variation(picture)
        return Losses(style + content + variation, style, content, variation, stages)


def total_variation(picture: Tensor) -> Tensor:
    """Mean squared difference of vertical neighbors plus that of horizontal ones, of a picture (C, H, W)."""
    down, right = picture.diff(dim=-2), picture.diff(dim=-1)
    zero = picture.new_zeros(())
    return (down.square().mean() if down.numel() else zero) + (right.square().mean() if right.numel() else zero)


# --- regions ---


@dataclass(frozen=True)
class StyleGroup:
    """Styles that apply to the same region: all styles without a region, or a single one with a region.

    Attributes:
        styles: The styles.
        region: Where they apply, (H, W); None is everywhere.
        share: Their share of the picture, 0..1.
    """

    styles: tuple[Style[Array], ...]
    region: Array | None
    share: float


def style_groups(styles: Sequence[Style[Array]]) -> list[StyleGroup]:
    """The styles by region. Where regions overlap, styles divide each pixel in proportion to their weights.

    A region's Gram matrices are normalized to weigh as much as a whole picture's. Multiplied by the group's share of
    the picture, its loss changes every pixel as strongly as it would if the style applied everywhere.
    """
    everywhere = tuple(style for style in styles if style.content_region is None)
    regional = [style for style in styles if style.content_region is not None and style.weight]
    if not regional:
        return [StyleGroup(everywhere, None, 1.0)]
    masks = [np.asarray(style.content_region, np.float64) for style in regional]
    base = sum(style.weight for style in everywhere)
    weights = base + sum(style.weight * mask for style, mask in zip(regional, masks, strict=True))  # (H, W)
    covered = np.minimum(1.0, (1.0 if base else 0.0) + sum(masks))
    per_weight = np.divide(covered, weights, out=np.zeros_like(covered), where=weights > 0)
    groups = [StyleGroup(everywhere, None, float(base * per_weight.mean()))] if base else []
    return groups + [
        StyleGroup((style,), style.content_region, float((style.weight * mask * per_weight).mean()))
        for style, mask in zip(regional, masks, strict=True)
    ]


def fit_regions(objective: Objective) -> tuple[Objective, tuple[int, int] | None]:
    """Resizes an objective's regions to their pictures.

    Returns:
        The objective; and the (height, width) that a picture must have, or None if there are no content regions.

    Raises:
        InvalidInput: A region's aspect ratio is not its picture's.
    """
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


# --- checks ---


def check_settings(objective: Objective, network: Architecture) -> None:
    """Rejects an objective that the network cannot compute, whatever its pictures and regions are.

    Raises:
        InvalidInput: Naming the field of the objective.
    """
    weights = {name: getattr(objective, name) for name in ("content_weight", "style_weight", "total_variation_weight")}
    for field, weight in weights.items():
        _check_weight(weight, field)
    if not any(weights.values()):
        raise InvalidInput("all weights are 0: there is nothing to minimize", field="style_weight")
    if objective.content_weight:
        if objective.content is None:
            raise InvalidInput("a content weight needs a content picture", field="content")
        network.stage(objective.content_stage, "content_stage")
    if objective.style_weight:
        _check_styles(objective, network)
    if objective.stage_balance is StageBalance.CONTENT and objective.content is None:
        raise InvalidInput("balancing the losses needs the content picture", field="content")


def _check_styles(objective: Objective, network: Architecture) -> None:
    if not objective.styles:
        raise InvalidInput("a style weight needs a style picture", field="styles")
    if not objective.style_stages:
        raise InvalidInput("a style weight needs at least one stage", field="style_stages")
    for index, style in enumerate(objective.styles):
        _check_weight(style.weight, f"styles[{index}].weight")
    if not sum(style.weight for style in objective.styles) > 0:
        raise InvalidInput("the styles' weights are all 0", field="styles")
    for index, (stage, value) in enumerate(objective.style_stages.items()):
        network.stage(stage, f"style_stages[{index}].stage")
        _check_weight(value, f"style_stages[{index}].weight")


def check_regions(styles: Sequence[Style[Array]]) -> None:
    """Rejects regions that are no masks. Errors as above."""
    for index, style in enumerate(styles):
        _check_region(style.content_region, f"styles[{index}].content_region")
        _check_region(style.style_region, f"styles[{index}].style_region")


def _check_weight(value: float, field: str) -> None:
    if not 0 <= value < float("inf"):  # NaN fails as well
        raise InvalidInput(f"{value} is not a weight: give a finite number, 0 or more", field=field)


def _check_region(region: Array | None, field: str) -> None:
    if region is None:
        return
    if region.ndim != 2:
        raise InvalidInput(f"a region is (H, W), not {region.shape}", field=field)
    if not (region.size and region.min() >= 0 and 0 < region.max() <= 1):  # NaN fails as well
        raise InvalidInput("the values of a region are in 0..1, and not all 0", field=field)
