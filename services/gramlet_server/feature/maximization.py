"""A picture that maximizes a channel (Olah, Mordvintsev, Schubert, "Feature Visualization", Distill 2017).

Steps along the plain gradient give noise that the channel responds to. Three things make a picture of it:

- the picture is given by its Fourier spectrum, each frequency scaled as in natural pictures (1/f), and by colors that
  are decorrelated over ImageNet, so that a step changes all frequencies and colors alike;
- the network sees it turned, scaled and shifted at random in each step, so that only what survives that is rewarded;
- sigmoids keep the colors in 0..1.

A channel of a late stage may be 0 everywhere in noise, and has no gradient there. Then the gradient of another
function, which passes the ReLUs, leads to where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from gramlet.feature.see_types import Maximization
from torch import Tensor
from torch.nn import functional

from gramlet_server.feature.lbfgs import Adam

LEARNING_RATE = 0.05
NOISE = 0.01
"""Standard deviation of the first spectrum."""
DECAY = 1.0
"""Power of 1/f by which frequencies are scaled."""

TURN = math.radians(8)
SCALE = 0.1
SHIFT = 0.06
"""The picture is turned by up to so much, scaled by 1 - SCALE to 1 + SCALE, and shifted by a share of its side."""

COLORS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""A square root of the covariance of ImageNet's colors, from Lucid (github.com/tensorflow/lucid, Apache-2.0)."""

Activate = Callable[[Tensor], Tensor]
"""From a picture (1, 3, H, W) to the mean activation of the channel over all positions, with a gradient."""

Motion = tuple[float, float, float, float]
"""How a picture is turned, scaled, shifted to the right and down: -1 to 1 each, of the most that is allowed."""

WithRoom = Callable[[Callable[[], tuple[Tensor, Tensor]]], tuple[Tensor, Tensor]]
"""Runs work that allocates; see `Device.with_room`."""


@dataclass(frozen=True)
class Ascent:
    """A step is done.

    Attributes:
        step: Its number, counted from 1.
        activation: Of the picture from which it stepped, as the network saw it. After the last step that of the
            picture, not transformed.
        picture: (3, H, W) in 0..1, where it is wanted.
    """

    step: int
    activation: Tensor
    picture: Tensor | None


class Spectrum:
    """Pictures of a size by their Fourier spectra: points (numbers,).

    Args:
        size: Height and width in pixels.
        device: Where the tensors are.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._size = size
        rows = torch.fft.fftfreq(size, device=device)[:, None]
        columns = torch.fft.rfftfreq(size, device=device)[None]
        frequencies = torch.sqrt(rows**2 + columns**2)  # (H, W / 2 + 1), cycles a pixel
        self._scale = (1 / frequencies.clamp_min(1 / size)) ** DECAY
        self._shape = (3, *self._scale.shape, 2)
        colors = torch.tensor(COLORS, device=device)
        self._colors = colors / torch.linalg.vector_norm(colors, dim=0).max()

    def start(self, generator: torch.Generator) -> Tensor:
        """A random point on the CPU: weak noise around gray."""
        return NOISE * torch.randn(math.prod(self._shape), generator=generator)

    def picture(self, point: Tensor) -> Tensor:
        """(1, 3, H, W) in 0..1."""
        spectrum = torch.view_as_complex(point.view(self._shape)) * self._scale
        planes = torch.fft.irfft2(spectrum, s=(self._size, self._size), norm="ortho")
        return torch.sigmoid(torch.einsum("rc,chw->rhw", self._colors, planes))[None]

    def differentiate(self, by: Activate, point: Tensor, motion: Motion) -> tuple[Tensor, Tensor]:
        """The activation of a point's picture, transformed, and its gradient with respect to the point."""
        at = point.detach().requires_grad_()
        activation = by(transformed(self.picture(at), motion))
        (gradient,) = torch.autograd.grad(activation, [at])
        return activation.detach(), gradient


def transformed(picture: Tensor, motion: Motion) -> Tensor:
    """A picture (1, 3, H, W), turned, scaled and shifted; what comes in from outside is mirrored."""
    turn, scale, right, down = motion
    angle, factor = TURN * turn, 1 + SCALE * scale
    cosine, sine = math.cos(angle) / factor, math.sin(angle) / factor
    # In the coordinates of the grid the side of the picture is 2.
    theta = picture.new_tensor([[[cosine, -sine, 2 * SHIFT * right], [sine, cosine, 2 * SHIFT * down]]])
    grid = functional.affine_grid(theta, list(picture.shape), align_corners=False)
    return functional.grid_sample(picture, grid, padding_mode="reflection", align_corners=False)


def maximize(
    activate: Activate, awaken: Activate, settings: Maximization, device: torch.device, with_room: WithRoom
) -> Iterator[Ascent]:
    """Takes the steps one by one.

    Args:
        activate: What to maximize.
        awaken: The same with a gradient that passes the ReLUs; where `activate` is 0.
        settings: How to maximize it.
        device: Where the tensors are.
        with_room: Runs work that allocates.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    spectrum = Spectrum(settings.size, device)
    point = spectrum.start(generator).to(device)
    # Gradients of the two are of different sizes: what Adam has learned of one would make steps along the other tiny.
    optimizers = [Adam(point.numel(), LEARNING_RATE, device) for _ in range(2)]
    for step in range(1, settings.steps + 1):
        turn, scale, right, down = (2 * torch.rand(4, generator=generator) - 1).tolist()
        motion = turn, scale, right, down
        activation, gradient = with_room(partial(spectrum.differentiate, activate, point, motion))
        is_asleep = not activation.any()
        if is_asleep:
            _, gradient = with_room(partial(spectrum.differentiate, awaken, point, motion))
        point = optimizers[is_asleep].step(point, -gradient)
        is_last = step == settings.steps
        picture = None
        if is_last or (settings.preview_every and step % settings.preview_every == 0):
            with torch.no_grad():
                shown = spectrum.picture(point)
                activation = activate(shown) if is_last else activation
                picture = shown[0]
        yield Ascent(step, activation, picture)
