"""What the positions of a stage see of a picture: their receptive field, and how much of it matters."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
from gramlet.feature.see_types import Box
from torch import Tensor

from gramlet_server.feature.maximization import Spectrum
from gramlet_server.feature.passes import Passes
from gramlet_server.feature.work import Caller

SHARE = 0.95
"""The effective receptive field holds this share of the squared gradient."""
PICTURES = 2
"""Over so many pictures the gradient is averaged."""
MOST_SIDE = 448
"""Those pictures are squares of at most this side in pixels."""
CONTRAST = 100.0
"""Factor on the weak noise of `Spectrum.start`, which has the spectrum and the colors of photographs: it fills 0..1."""


@dataclass(frozen=True)
class Field:
    """The field of a stage.

    Attributes:
        stride: Pixels between two positions; 0: there is one, which sees everything.
        seen: The pixels that the first position can see along each axis.
        effective: The side of the effective receptive field in pixels, an odd number; 0 without positions.
    """

    stride: int
    seen: range
    effective: int

    def center(self, position: int) -> int:
        """The pixel in the middle of what a position sees, along an axis."""
        return position * self.stride + (self.seen.start + self.seen.stop - 1) // 2

    def whole_box(self, row: int, column: int, height: int, width: int) -> Box:
        """The receptive field of a position, as far as it lies in a picture."""
        top, left = row * self.stride + self.seen.start, column * self.stride + self.seen.start
        return self._clipped(top, left, len(self.seen), height, width)

    def effective_box(self, row: int, column: int, height: int, width: int) -> Box:
        """The effective receptive field of a position, as far as it lies in a picture."""
        half = self.effective // 2
        return self._clipped(self.center(row) - half, self.center(column) - half, self.effective, height, width)

    def inner(self, positions: int, length: int) -> slice:
        """The positions along an axis of so many pixels that do not see mostly padding; all if there are no others.

        Args:
            positions: How many there are.
            length: Of the picture, in pixels.
        """
        margin = self.effective // 4
        found = [each for each in range(positions) if margin <= self.center(each) < length - margin]
        return slice(found[0], found[-1] + 1) if found and self.stride else slice(0, positions)

    def _clipped(self, top: int, left: int, side: int, height: int, width: int) -> Box:
        if not self.stride:
            return Box(0, 0, width, height)
        first_row, first_column = max(0, top), max(0, left)
        return Box(first_column, first_row, min(width, left + side) - first_column, min(height, top + side) - first_row)


class Fields:
    """The fields of a network's stages, each measured when it is first asked for.

    The effective receptive field (Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural
    Networks", NeurIPS 2016) is the smallest square around a position that holds SHARE of the squared gradient of its
    activations with respect to the picture. The activations are weighted at random, so that none cancels another.

    Args:
        passes: The network.
    """

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._lock = threading.Lock()
        self._known: dict[str, Field] = {}

    def of(self, caller: Caller, stage: str) -> Field:
        """The field of a stage."""
        if stage not in self._known:
            found = self._measured(caller, stage)
            with self._lock:
                self._known[stage] = found
        return self._known[stage]

    def _measured(self, caller: Caller, stage: str) -> Field:
        architecture = self._passes.network.architecture
        stride = architecture.stride(stage)
        if not stride:
            return Field(0, range(0), 0)
        field = Field(stride, architecture.receptive_field(stage), 0)
        side = min(MOST_SIDE, 32 * (len(field.seen) // 32 + 2))
        middle = side // stride // 2
        energy = torch.zeros(side, side, dtype=torch.float64)
        for seed in range(PICTURES):
            measure = _Measurement(self._passes, stage, side, middle, seed)
            energy += self._passes.run_single(caller, "see", side**2, measure.energy)[0]
        return Field(stride, field.seen, _side_of(energy, field.center(middle)))


@dataclass(frozen=True)
class _Measurement:
    """The squared gradient of the activations at one position of one picture."""

    passes: Passes
    stage: str
    side: int
    position: int
    seed: int

    def energy(self) -> Tensor:
        """(side, side) float64, of sum 1, on the CPU."""
        network = self.passes.network
        generator = torch.Generator().manual_seed(self.seed)
        spectrum = Spectrum(self.side, network.device)
        picture = spectrum.picture(CONTRAST * spectrum.start(generator).to(network.device)).detach().requires_grad_()
        found = network.activations(picture, [self.stage], smooth=True)[self.stage]
        activations = found[0, :, self.position, self.position].float()
        weights = torch.randn(len(activations), generator=generator).to(activations)
        (gradient,) = torch.autograd.grad((activations * weights).sum(), [picture])
        squared = gradient[0].double().square().sum(0).cpu()
        total: Tensor = squared / squared.sum().clamp_min(1e-300)
        return total


def _side_of(energy: Tensor, center: int) -> int:
    """The side of the smallest square around the center that holds SHARE of the energy."""
    places = torch.arange(len(energy))
    distances = torch.maximum((places[:, None] - center).abs(), (places[None] - center).abs())
    by_distance = torch.zeros(len(energy), dtype=energy.dtype).index_add_(0, distances.flatten(), energy.flatten())
    held = by_distance.cumsum(0)
    return 2 * int((held < SHARE * held[-1]).sum()) + 1
