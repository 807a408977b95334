"""A judge of stylizations that is not the network that made them. README.md says what each measure is and misses.

Pictures are float32 tensors (3, H, W), RGB in 0..1, at least `SMALLEST` pixels a side. All numbers are distances or
energies: less is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Activations = Callable[[Tensor], Sequence[Tensor]]
"""A picture to activations (C, H, W) of some network, shallow to deep."""

SMALLEST = 64
"""Pixels of a picture's shorter side. A smaller one has too few coarse patches, and no spectrum to speak of."""
LEVELS = 4
PATCH = 7
PATCHES = 16_384
PROJECTIONS = 128
QUANTILES = 1024
SEED = 0

CONTENT_SCALES = 3
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601

GRID_PERIODS = (2, 4)
GRID_TILE = 128
BESIDE = 4
"""Bins from a grid's line to where the spectrum is compared: outside of a Hann window's line, which is 3 bins wide."""


@dataclass(frozen=True)
class Verdict:
    """What the judge says of one picture.

    Attributes:
        patch_levels: Distance of patches to the style by level of the pyramid: patches of 7, 14, 28, 56 pixels (the
            last left out for pictures of less than 112), then of what is coarser.
        gram_stages: Relative distance of Gram matrices to the style's, shallow to deep.
        content: 1 - similarity of edges and structure to the content.
        grid: Gray levels (of 255) of a grid with the periods of a network's first strides.
    """

    patch_levels: tuple[float, ...]
    gram_stages: tuple[float, ...]
    content: float
    grid: float

    @property
    def patches(self) -> float:
        """Mean over the levels."""
        return _mean(self.patch_levels)

    @property
    def grams(self) -> float:
        """Mean over the stages."""
        return _mean(self.gram_stages)

    @property
    def style(self) -> float:
        """√(patches · grams): neither buys the other."""
        return math.sqrt(self.patches * self.grams)

    @property
    def shapes(self) -> float:
        """`style` of the style's shapes alone: patches of 28 and 56 pixels, and the two deepest stages."""
        return math.sqrt(_mean(self.patch_levels[2:-1]) * _mean(self.gram_stages[-2:]))

    @property
    def deep(self) -> float:
        """The deepest stage's distance alone: how objects and strokes of tens of pixels are put together."""
        return self.gram_stages[-1]


class Judge:
    """Compares pictures with one content and one style, whose own statistics it computes once.

    Args:
        content: (3, H, W).
        style: (3, H', W'), of any size; strokes are compared in pixels, so of the size that the stylization took.
        activations: Of the third network.

    Raises:
        ValueError: A picture is smaller than `SMALLEST`.
    """

    def __init__(self, content: Tensor, style: Tensor, activations: Activations) -> None:
        self._content = content
        self._activations = activations
        self._levels = min(_levels(content), _levels(style))
        self._style_patches = patch_quantiles(style, self._levels)
        self._style_grams = [gram(each) for each in activations(style)]

    @torch.no_grad()
    def __call__(self, picture: Tensor) -> Verdict:
        """The verdict on a picture of the content's shape."""
        return Verdict(
            patch_levels=self._patch_distances(picture),
            gram_stages=self._gram_distances(picture),
            content=content_distance(picture, self._content),
            grid=grid_energy(picture),
        )

    def _patch_distances(self, picture: Tensor) -> tuple[float, ...]:
        """Sliced W₁ by level: mean |q - q*| over directions and quantiles, by the deviation of q*.

        Rabin, Peyré, Delon, Bernot, "Wasserstein barycenter and its application to texture mixing", 2011; on the
        levels of a Laplacian pyramid: Karras, Aila, Laine, Lehtinen, "Progressive growing of GANs", 2018, section 5.
        """
        found = patch_quantiles(picture, self._levels)
        pairs = zip(found, self._style_patches, strict=True)
        return tuple(float((a - b).abs().mean() / b.std()) for a, b in pairs)

    def _gram_distances(self, picture: Tensor) -> tuple[float, ...]:
        """By stage ‖G - G*‖ / ‖G*‖ in the Frobenius norm."""
        found = [gram(each) for each in self._activations(picture)]
        return tuple(float((a - b).norm() / b.norm()) for a, b in zip(found, self._style_grams, strict=True))


def gram(activations: Tensor) -> Tensor:
    """F Fᵀ / HW of activations (C, H, W): (C, C). Gatys, Ecker, Bethge, 2016."""
    flat = activations.flatten(1)
    return flat @ flat.T / flat.shape[1]


def laplacian_pyramid(picture: Tensor, levels: int) -> list[Tensor]:
    """Band-pass pictures, fine to coarse, then what is left: `levels` + 1 tensors (3, h, w). Burt, Adelson, 1983."""
    bands = []
    for _ in range(levels):
        low = _halved(picture)
        shape = (picture.shape[1], picture.shape[2])
        bands.append(picture - functional.interpolate(low[None], shape, mode="bilinear", align_corners=False)[0])
        picture = low
    return [*bands, picture]


def patch_quantiles(picture: Tensor, levels: int) -> list[Tensor]:
    """By level the quantiles of random projections of all patches, (QUANTILES, PROJECTIONS); the same at every call."""
    generator = torch.Generator().manual_seed(SEED)
    at = torch.linspace(0, 1, QUANTILES)
    quantiles = []
    for band in laplacian_pyramid(picture, levels):
        directions = torch.randn(3 * PATCH**2, PROJECTIONS, generator=generator)
        patches = functional.unfold(band[None], PATCH)[0].T  # (positions, 3 · PATCH²)
        if len(patches) > PATCHES:
            chosen = torch.Generator().manual_seed(SEED)
            patches = patches[torch.randperm(len(patches), generator=chosen)[:PATCHES]]
        quantiles.append(torch.quantile(patches @ (directions / directions.norm(dim=0)), at, dim=0))
    return quantiles


def content_distance(picture: Tensor, content: Tensor) -> float:
    """1 - mean over scales of the similarity of structure and of edges, on luminances; 0 for equal pictures.

    Structure: the mean local correlation coefficient, SSIM's third term (Wang, Bovik, Sheikh, Simoncelli, 2004).
    Edges: the correlation of blurred gradient magnitudes.
    """
    a, b = luminance(picture), luminance(content)
    similarities = []
    for _ in range(CONTENT_SCALES):
        a, b = _halved(a), _halved(b)
        similarities += [_structure(a, b), _correlation(_blurred(_edges(a)), _blurred(_edges(b)))]
    return float(1 - torch.stack(similarities).mean())


def grid_energy(picture: Tensor) -> float:
    """RMS, in gray levels of 255, of what stands above its spectral neighborhood at the frequencies of a grid.

    √max(0, Σ (P(u, v) - the geometric mean of P beside it)) over the frequencies (u, v) that are multiples of 1/4, the
    origin left out. Strokes and noise have as much energy beside a line as on it, and cancel. Longer periods are left
    out: there a picture's own shapes vary more than any grid does.
    """
    values = luminance(picture)[0] * 255
    tile = min(GRID_TILE, 2 ** int(math.log2(min(values.shape))))
    power = _line_power(values, tile)
    lines = range(0, tile, tile // max(GRID_PERIODS))
    excess = sum(float(power[u, v]) - _power_beside(power, u, v) for u in lines for v in lines if u or v)
    return math.sqrt(max(0.0, excess))


def luminance(picture: Tensor) -> Tensor:
    """(1, H, W) in 0..1."""
    return (picture * picture.new_tensor(LUMINANCE)[:, None, None]).sum(0, keepdim=True)


def _line_power(values: Tensor, tile: int) -> Tensor:
    """Energy of the line around each frequency, (tile, tile): the mean over Hann windows that overlap by half.

    Welch, 1967. A grid shows wherever it is in the picture, and the picture's border does not count.
    """
    tiles = values.unfold(0, tile, tile // 2).unfold(1, tile, tile // 2)  # (rows, columns, tile, tile)
    window = torch.hann_window(tile, periodic=True, dtype=values.dtype)
    window = window[:, None] * window
    tiles = (tiles - tiles.mean((-1, -2), keepdim=True)) * window
    # Parseval: the sum of `power` is the variance.
    power = torch.fft.fft2(tiles).abs().square().mean((0, 1)) / (tile**2 * window.square().sum())
    around = functional.pad(power[None, None], (1, 1, 1, 1), mode="circular")
    return functional.avg_pool2d(around, 3, 1)[0, 0] * 9  # a Hann window spreads a line over 3 × 3 bins


def _power_beside(power: Tensor, u: int, v: int) -> float:
    """The geometric mean of the neighbors at `BESIDE` bins: exact where the spectrum falls exponentially."""
    tile = len(power)
    # A line on an axis is compared along it: pictures are strong there.
    neighbors = [
        float(power[(u + i) % tile, (v + j) % tile])
        for i in ((-BESIDE, BESIDE) if u else (0,))
        for j in ((-BESIDE, BESIDE) if v else (0,))
    ]
    return math.exp(_mean([math.log(each + 1e-12) for each in neighbors]))


def _levels(picture: Tensor) -> int:
    """Levels for which even the rest of the pyramid holds a patch, at most LEVELS."""
    shorter = min(picture.shape[1:])
    if shorter < SMALLEST:
        raise ValueError(f"a picture of {shorter} pixels; the judge needs {SMALLEST} a side")
    return min(LEVELS, int(math.log2(shorter / PATCH)))


def _blurred(x: Tensor) -> Tensor:
    kernel = x.new_tensor([1, 4, 6, 4, 1]) / 16
    kernel = (kernel[:, None] * kernel).expand(x.shape[0], 1, 5, 5)
    return functional.conv2d(functional.pad(x[None], (2, 2, 2, 2), mode="reflect"), kernel, groups=x.shape[0])[0]


def _halved(x: Tensor) -> Tensor:
    return _blurred(x)[:, ::2, ::2]


def _edges(x: Tensor) -> Tensor:
    """Magnitude of the gradient."""
    dx, dy = functional.pad(x.diff(dim=2), (0, 1, 0, 0)), functional.pad(x.diff(dim=1), (0, 0, 0, 1))
    return (dx.square() + dy.square()).sqrt()


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(), b - b.mean()
    correlation: Tensor = torch.sum(a * b) / (a.norm() * b.norm()).clamp_min(1e-12)
    return correlation


def _structure(a: Tensor, b: Tensor, stabilizer: float = 1e-3) -> Tensor:
    """Mean of (σ_ab + c) / (σ_a σ_b + c) over 5 × 5 windows."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a = (_blurred(a * a) - mean_a * mean_a).clamp_min(0)
    var_b = (_blurred(b * b) - mean_b * mean_b).clamp_min(0)
    covariance = _blurred(a * b) - mean_a * mean_b
    return ((covariance + stabilizer) / ((var_a * var_b).sqrt() + stabilizer)).mean()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
