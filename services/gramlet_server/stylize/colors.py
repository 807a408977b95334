"""Whose colors a stylization has (Gatys, Bethge, Hertzmann, Shechtman, arXiv:1606.05897, 2016).

Either the style is given the content's colors before anything else (`match_colors`), or only the luminance is
transferred (`LuminanceOnly`). Luminance is the Y of YIQ; pictures are (3, H, W), RGB in 0..1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np
from gramlet.feature.types import Evaluation
from gramlet.types import Array
from numpy.typing import NDArray

Evaluate = Callable[[Array], Evaluation]

LUMINANCE = (0.299, 0.587, 0.114)
"""The share of red, green and blue."""


def luminance(picture: Array) -> Array:
    """(1, H, W)."""
    return np.tensordot(np.asarray(LUMINANCE, np.float32), picture, axes=1)[None]


def gray(picture: Array) -> Array:
    """The luminance as a picture, (3, H, W)."""
    return np.repeat(luminance(picture), 3, axis=0)


def match_luminance(picture: Array, wanted: Array) -> Array:
    """A gray picture with the mean and deviation of another's luminance (section 3.2, equation 4).

    L' = σ*/σ (L - μ) + μ*, clipped to 0..1.
    """
    own, other = luminance(picture), luminance(wanted)
    matched = (own - own.mean()) * (other.std() / max(float(own.std()), 1e-6)) + other.mean()
    return np.repeat(matched.clip(0, 1), 3, axis=0).astype(np.float32)


def match_colors(picture: Array, wanted: Array) -> Array:
    """A picture with the mean and covariance of another's RGB (section 3.1), clipped to 0..1.

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
    """Of a symmetric positive matrix (3, 3); a color that a picture lacks gets a tiny variance."""
    values, vectors = np.linalg.eigh(matrix)
    power: NDArray[np.float64] = (vectors * values.clip(1e-8) ** exponent) @ vectors.T
    return power


class Canvas(Protocol):
    """What of the picture a descent moves. Canvases and pictures are (C, H, W) and (3, H, W)."""

    def of(self, picture: Array) -> Array:
        """The canvas that shows a picture, or what of it a canvas can show."""
        ...

    def shown(self, canvas: Array) -> Array:
        """The picture that people see."""
        ...

    def evaluating(self, evaluate: Evaluate) -> Evaluate:
        """Loss and gradient with respect to the canvas, from those of what the network sees."""
        ...


class AllColors:
    """The picture itself."""

    def of(self, picture: Array) -> Array:
        """The picture."""
        return picture

    def shown(self, canvas: Array) -> Array:
        """The canvas."""
        return canvas

    def evaluating(self, evaluate: Evaluate) -> Evaluate:
        """As it is."""
        return evaluate


class LuminanceOnly:
    """The luminance, (1, H, W), which the network sees as a gray picture. People see it with the content's chroma.

    Args:
        content: (3, H, W).
    """

    def __init__(self, content: Array) -> None:
        self._content = content
        self._own = luminance(content)

    def of(self, picture: Array) -> Array:
        """Its luminance."""
        return luminance(picture)

    def shown(self, canvas: Array) -> Array:
        """The content with its luminance exchanged: I and Q are differences, which the same addend to RGB leaves."""
        return self._content + (canvas - self._own)

    def evaluating(self, evaluate: Evaluate) -> Evaluate:
        """By the chain rule, the sum of the gradient's channels."""

        def evaluated(canvas: Array) -> Evaluation:
            evaluation = evaluate(np.repeat(canvas, 3, axis=0))
            return dataclasses.replace(evaluation, gradient=evaluation.gradient.sum(axis=0, keepdims=True))

        return evaluated
