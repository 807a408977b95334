"""The colors of a stylization (Gatys, Bethge, Hertzmann, Shechtman, arXiv:1606.05897, 2016).

To keep the content's colors, either the style is given them before anything else (`match_colors`), or only the
luminance is transferred (`luminance`, `match_luminance`). Pictures are (3, H, W), RGB in 0..1.
"""

from __future__ import annotations

import numpy as np
from gramlet.types import Array
from numpy.typing import NDArray

from gramlet_server.pictures.masks import LUMINANCE


def luminance(picture: Array) -> Array:
    """The luminance of a picture, (1, H, W)."""
    return np.tensordot(np.asarray(LUMINANCE, np.float32), picture, axes=1)[None]


def match_luminance(picture: Array, wanted: Array) -> Array:
    """A gray picture (3, H, W) with the mean and deviation of another's luminance (section 3.2, equation 4).

    L' = σ*/σ (L - μ) + μ*, clipped to 0..1.
    """
    own, other = luminance(picture), luminance(wanted)
    matched = (own - own.mean()) * (other.std() / max(float(own.std()), 1e-6)) + other.mean()
    return np.repeat(matched.clip(0, 1), 3, axis=0).astype(np.float32)


def match_colors(picture: Array, wanted: Array) -> Array:
    """A picture (3, H, W) with the mean and covariance of another's RGB (section 3.1), clipped to 0..1.

    x' = T (x - μ) + μ*. Of the matrices with T Σ Tᵀ = Σ* this is the one that moves colors least, the optimal transport
    between two Gaussians (Pitié, Kokaram, 2007): T = Σ^-½ (Σ^½ Σ* Σ^½)^½ Σ^-½.
    """
    pixels, others = (each.reshape(3, -1).astype(np.float64) for each in (picture, wanted))
    root, inverse = _power(np.cov(pixels), 0.5), _power(np.cov(pixels), -0.5)
    transport = inverse @ _power(root @ np.cov(others) @ root, 0.5) @ inverse
    matched = transport @ (pixels - pixels.mean(1, keepdims=True)) + others.mean(1, keepdims=True)
    clipped: Array = matched.reshape(picture.shape).clip(0, 1).astype(np.float32)
    return clipped


def _power(matrix: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """A power of a symmetric positive matrix (3, 3). A color that does not vary gets a tiny variance."""
    values, vectors = np.linalg.eigh(matrix)
    power: NDArray[np.float64] = (vectors * values.clip(1e-8) ** exponent) @ vectors.T
    return power
