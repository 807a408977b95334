"""Pictures that nobody stylized: what a number of the judge is to be held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional


def unchanged(content: Tensor, _: Tensor) -> Tensor:
    """The content itself: content distance 0, and the style distance of doing nothing."""
    return content


def style_itself(content: Tensor, style: Tensor) -> Tensor:
    """The style, stretched to the content's shape: about the least style distance, and no content."""
    shape = (content.shape[1], content.shape[2])
    return functional.interpolate(style[None], shape, mode="bilinear", antialias=True)[0].clamp(0, 1)


def color_matched(content: Tensor, style: Tensor) -> Tensor:
    """The content in the style's colors: x' = T (x - μ) + μ*, the optimal transport between two Gaussians.

    T = Σ^-½ (Σ^½ Σ* Σ^½)^½ Σ^-½ for the covariances Σ, Σ* of RGB (Pitié, Kokaram, 2007). A stylization that is not
    clearly nearer to the style than this is a tint.
    """
    pixels, wanted = content.flatten(1).double(), style.flatten(1).double()
    root = _power(torch.cov(pixels), 0.5)
    inverse = _power(torch.cov(pixels), -0.5)
    transport = inverse @ _power(root @ torch.cov(wanted) @ root, 0.5) @ inverse
    matched = transport @ (pixels - pixels.mean(1, keepdim=True)) + wanted.mean(1, keepdim=True)
    return matched.view(content.shape).to(content.dtype).clamp(0, 1)


BASELINES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "content itself": unchanged,
    "style itself": style_itself,
    "color-matched": color_matched,
}


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Of a symmetric positive matrix (3, 3); a color that a picture lacks gets a tiny variance."""
    values, vectors = torch.linalg.eigh(matrix)
    power: Tensor = (vectors * values.clamp_min(1e-8) ** exponent) @ vectors.T
    return power
