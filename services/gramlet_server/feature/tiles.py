"""Pictures too large for the device's memory are cut into tiles. The loss and the gradient are those of the whole.

A tile is a core and a halo around it. Every position of a stage belongs to the core of exactly one tile, and the halo
is at least as wide as the receptive field's radius. So the activations of a core are those of the whole picture. The
gradient of a loss of these activations reaches into the halo, and the gradients of all tiles add up to that of the
whole picture. Tiles start at multiples of the stages' strides; at the picture's border the network pads as always.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from gramlet.feature.types import GramNormalization
from gramlet.types import Array
from torch import Tensor

from gramlet_server.backbone.architecture import Architecture
from gramlet_server.backbone.onednn import times_transposed
from gramlet_server.backbone.tape import Tape
from gramlet_server.feature.gram import Region, divisor, gram_of_rows, positions_by_channels
from gramlet_server.feature.objective import Targets, total_variation

Pixels = TypeVar("Pixels", Array, Tensor)

Spans = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class Span:
    """A tile's extent in one direction, in pixels of the picture: the core, and the core with its halo (`whole`)."""

    core: slice
    whole: slice


@dataclass(frozen=True)
class Tile:
    """A part of a picture.

    Attributes:
        rows, columns: Its extent in each direction.
        strides: Pixels between two positions of each stage.
        shapes: (height, width) of each stage's activations of the whole picture.
    """

    rows: Span
    columns: Span
    strides: Mapping[str, int]
    shapes: Mapping[str, tuple[int, int]]

    @property
    def pixels(self) -> int:
        """How many pixels the network sees at once, halo included."""
        return _length(self.rows.whole) * _length(self.columns.whole)

    def of(self, picture: Pixels) -> Pixels:
        """The tile's part of the picture (3, H, W), its halo included."""
        return picture[:, self.rows.whole, self.columns.whole]

    def positions(self, stage: str) -> Spans:
        """The core's positions at a stage, among those of the whole picture."""
        height, width = self.shapes[stage]
        stride = self.strides[stage]
        return _positions(self.rows.core, stride, height), _positions(self.columns.core, stride, width)

    def core(self, stage: str, activations: Tensor) -> Tensor:
        """The core's part of the tile's activations (C, H, W): a view."""
        stride = self.strides[stage]
        rows, columns = self.positions(stage)
        top, left = self.rows.whole.start // stride, self.columns.whole.start // stride
        return activations[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def cut(
    architecture: Architecture, height: int, width: int, stages: Sequence[str], antialiased: bool, limit: int
) -> list[Tile]:
    """The tiles of a picture for some stages: of all grids whose tiles fit the limit, the one with the fewest pixels.

    Cores are never narrower than their halos, which would be mostly wasted work; a limit that asks for narrower ones is
    exceeded.

    Args:
        architecture: The network.
        height, width: Size of the picture.
        stages: The stages that are needed.
        antialiased: Whether the network's strides are antialiased.
        limit: Pixels of a tile, halo included.
    """
    strides = {stage: architecture.stride(stage, antialiased) for stage in stages}
    step = max(strides.values(), default=1)
    reach = max((architecture.reach(stage, antialiased) for stage in stages), default=0)
    halo = math.ceil(reach / step) * step
    rows, columns = _grids(height, halo, step), _grids(width, halo, step)
    grids = [(down, across) for down in rows for across in columns]
    fitting = [(down, across) for down, across in grids if down.longest * across.longest <= limit]
    if fitting:
        down, across = min(fitting, key=lambda grid: grid[0].total * grid[1].total)
    else:
        down, across = min(grids, key=lambda grid: grid[0].longest * grid[1].longest)
    shapes = {stage: architecture.activation_shape(stage, height, width, antialiased)[1:] for stage in stages}
    across_spans = _spans(width, across.core, halo)
    return [Tile(row, column, strides, shapes) for row in _spans(height, down.core, halo) for column in across_spans]


@dataclass(frozen=True)
class _Grid:
    """A way to cut a side: the length of a core, that of the longest span, and that of all spans, halos included."""

    core: int
    longest: int
    total: int


def _grids(length: int, halo: int, step: int) -> list[_Grid]:
    """The ways to cut a side: into one, two, three ... cores, down to cores as wide as the halo.

    Cores are multiples of `step`, so many of the numbers give one and the same grid, which is made once: a side of
    4,096 pixels has 1,024 numbers and 90 grids where the halo has 4 pixels.
    """
    grids, count = [], 1
    while True:
        steps = math.ceil(length / (count * step))
        grids.append(_grid(length, steps * step, halo))
        if steps == 1:
            return grids
        count = math.ceil(length / ((steps - 1) * step))  # the next number that gives another grid
        if count > max(1, length // max(halo, step)):
            return grids


def _grid(length: int, core: int, halo: int) -> _Grid:
    """A grid, without its spans: slivers of millions of pixels have millions of them.

    Span i reaches from max(0, i core - halo) to min(length, (i + 1) core + halo).
    """
    count = math.ceil(length / core)
    inside = max(0, min(count, (length - halo) // core))  # spans that end before the picture does
    clear = min(count, halo // core + 1)  # the first span that begins after the picture does
    ends = core * inside * (inside + 1) // 2 + halo * inside + length * (count - inside)
    starts = core * (count * (count - 1) - clear * (clear - 1)) // 2 - halo * (count - clear)
    turns = {min(count - 1, max(0, i)) for i in (0, clear - 1, clear, inside - 1, inside, count - 1)}
    longest = max(min(length, (i + 1) * core + halo) - max(0, i * core - halo) for i in turns)
    return _Grid(core, longest, ends - starts)


def _spans(length: int, core: int, halo: int) -> list[Span]:
    return [
        Span(
            slice(start, min(start + core, length)),
            slice(max(0, start - halo), min(start + core + halo, length)),
        )
        for start in range(0, length, core)
    ]


def _length(span: slice) -> int:
    return int(span.stop - span.start)


def _positions(core: slice, stride: int, count: int) -> slice:
    # Only the last core may end at no multiple of the stride.
    return slice(core.start // stride, min(count, math.ceil(core.stop / stride)))


class TileSums:
    """Activations and Gram matrices of one picture, put together tile by tile. Used on the device thread.

    Args:
        activations: The stages whose activations are kept.
        grams: The stages and regions (None: everywhere) whose Gram matrices are summed.
    """

    def __init__(self, activations: Sequence[str], grams: Sequence[tuple[str, Region | None]]) -> None:
        self._stages = activations
        self._grams = grams
        self._sums: dict[int, Tensor] = {}
        self.activations: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, tile: Tile, activations: Mapping[str, Tensor]) -> Generator[None, None, None]:
        """Adds the cores of a tile's activations, (C, H, W) by stage; yields after each Gram matrix."""
        sums = []
        for stage, region in self._grams:
            rows = core_rows(tile, stage, activations[stage], region)
            sums.append(gram_of_rows(rows))
            yield
        for stage in self._stages:
            core = tile.core(stage, activations[stage]).float()
            if stage not in self.activations:
                self.activations[stage] = core.new_empty((len(core), *tile.shapes[stage]))
            self.activations[stage][:, *tile.positions(stage)] = core
        # Last, so that a tile whose work failed above can be added again.
        for index, part in enumerate(sums):
            self._sums[index] = self._sums[index].add_(part) if index in self._sums else part

    def grams(self, shapes: Mapping[str, tuple[int, int]], normalization: GramNormalization) -> list[Tensor]:
        """The Gram matrices (C, C), once all tiles are added, in the order of `grams`.

        Args:
            shapes: (height, width) of each stage's activations of the whole picture.
            normalization: Of the Gram matrices.
        """
        found = []
        for index, (stage, _) in enumerate(self._grams):
            height, width = shapes[stage]
            found.append(self._sums[index] / divisor(height * width, len(self._sums[index]), normalization))
        return found


class TiledEvaluation:
    """Loss and gradient at one picture, tile by tile. Used on the device thread.

    First every tile is read (`add`), which sums the Gram matrices. Then the gradient of the loss with respect to the
    activations is known in closed form (`compare`), and every tile is differentiated (`differentiate`). Both yield
    where other work may run. They change sums only in their last lines, so they may run again when they failed before.

    Args:
        targets: The objective.
        height, width: Size of the picture.
        device: The network's device.
    """

    def __init__(self, targets: Targets, height: int, width: int, device: torch.device) -> None:
        self._targets = targets
        self._style_targets = [(stage, target) for stage, each in targets.style.items() for target in each]
        self._sums = TileSums((), [(stage, target.region) for stage, target in self._style_targets])
        self._directions: dict[str, list[Tensor]] = {stage: [] for stage in targets.style}
        self._stage_losses = dict.fromkeys(targets.style, 0.0)
        self._content = torch.zeros((), dtype=torch.float64, device=device)
        self._gradient = torch.zeros((3, height, width), device=device)

    def add(self, tile: Tile, activations: Mapping[str, Tensor]) -> Generator[None, None, None]:
        """Adds a tile's activations (C, H, W) to the Gram matrices."""
        return self._sums.add(tile, activations)

    def compare(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Compares the Gram matrices with the targets, once all tiles are added."""
        targets = self._targets
        grams = self._sums.grams(shapes, targets.gram_normalization)
        for (stage, target), gram in zip(self._style_targets, grams, strict=True):
            height, width = shapes[stage]
            by = divisor(height * width, len(gram), targets.gram_normalization)
            difference = gram - target.gram
            self._stage_losses[stage] += target.weight * (float(difference.square().mean()) + target.spread)
            # d mean((AᵀA/n - T)²) / dA = 4/(n C²) · A (AᵀA/n - T)
            scale = targets.style_weight * target.weight * 4 / (by * difference.numel())
            self._directions[stage].append(difference * scale)

    @torch.no_grad()
    def differentiate(self, tile: Tile, tape: Tape) -> Generator[None, None, None]:
        """Adds a tile's part of the gradient and of the content loss.

        Args:
            tile: The tile.
            tape: The pass over the tile's pixels (1, 3, H, W).
        """
        activations = {stage: found.squeeze(0) for stage, found in tape.activations().items()}
        content = self._content_error(tile, activations)
        upstream = {}
        for stage, found in activations.items():
            upstream[stage] = self._upstream(tile, stage, found)[None]
            yield
        del activations, found
        gradient = yield from tape.gradient(upstream)
        self._gradient[:, tile.rows.whole, tile.columns.whole] += gradient[0]
        self._content += content

    def _upstream(self, tile: Tile, stage: str, activations: Tensor) -> Tensor:
        """The gradient of the loss with respect to a tile's activations: zero in the halo."""
        gradient = torch.zeros_like(activations)
        core = tile.core(stage, gradient)
        for target, direction in zip(self._targets.style.get(stage, ()), self._directions.get(stage, ()), strict=True):
            guided = times_transposed(core_rows(tile, stage, activations, target.region), direction)
            rows = guided if target.region is None else target.region.part(*tile.positions(stage)).scatter(guided)
            core += rows.view(*core.shape[1:], len(core)).permute(2, 0, 1)
        if stage == self._targets.content_stage and self._targets.content is not None:
            scale = 2 * self._targets.content_weight / self._targets.content.numel()
            core += self._difference(tile, activations) * scale
        return gradient

    def _content_error(self, tile: Tile, activations: Mapping[str, Tensor]) -> Tensor | float:
        """The core's part of the sum of squared differences from the content."""
        if self._targets.content is None:
            return 0.0
        return self._difference(tile, activations[self._targets.content_stage]).double().square().sum()

    def _difference(self, tile: Tile, activations: Tensor) -> Tensor:
        stage, content = self._targets.content_stage, self._targets.content
        assert content is not None
        return tile.core(stage, activations).float() - content[:, *tile.positions(stage)]

    def evaluation(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The loss terms, ordered as `Losses.terms`, and the gradient (3, H, W), once all tiles are differentiated."""
        targets = self._targets
        style, content, variation = targets.style_weight * sum(self._stage_losses.values()), 0.0, 0.0
        if targets.content is not None:
            content = targets.content_weight * float(self._content) / targets.content.numel()
        if targets.total_variation_weight:
            whole = picture.detach().requires_grad_()
            loss = targets.total_variation_weight * total_variation(whole)
            self._gradient += torch.autograd.grad(loss, whole)[0]
            variation = float(loss.detach())
        terms = [style + content + variation, style, content, variation, *self._stage_losses.values()]
        return torch.tensor(terms, dtype=torch.float64), self._gradient


def core_rows(tile: Tile, stage: str, activations: Tensor, region: Region | None) -> Tensor:
    """The positions of a tile's core as rows (P, C); those of a region, if there is one, times its guide."""
    rows = positions_by_channels(tile.core(stage, activations))
    return rows if region is None else region.part(*tile.positions(stage)).rows(rows)
