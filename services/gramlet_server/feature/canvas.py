"""What of a picture a descent moves: all colors, or the luminance only (Gatys et al., arXiv:1606.05897, section 3.2).

Pictures are (3, H, W), RGB in 0..1; canvases are (C, H, W). All are tensors where the network is.
"""

from __future__ import annotations

from typing import Protocol

import torch
from gramlet.types import Array
from torch import Tensor
from torch.nn import functional

from gramlet_server.pictures.masks import LUMINANCE


class Canvas(Protocol):
    """What of the picture a descent moves."""

    def of(self, picture: Tensor) -> Tensor:
        """The canvas that shows a picture, as far as a canvas can show it."""
        ...

    def seen(self, canvas: Tensor) -> Tensor:
        """The picture that the network sees."""
        ...

    def gradient(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to the canvas, from that with respect to what the network sees."""
        ...

    def shown(self, canvas: Tensor) -> Tensor:
        """The picture that people see."""
        ...


class AllColors:
    """The picture itself."""

    def of(self, picture: Tensor) -> Tensor:
        return picture

    def seen(self, canvas: Tensor) -> Tensor:
        return canvas

    def gradient(self, gradient: Tensor) -> Tensor:
        return gradient

    def shown(self, canvas: Tensor) -> Tensor:
        return canvas


class LuminanceOnly:
    """The luminance (1, H, W), Y of YIQ. The network sees it gray; people see it with the content's chroma.

    Args:
        content: (3, H, W).
    """

    def __init__(self, content: Tensor) -> None:
        self._content = content
        self._luminance = luminance(content)

    def of(self, picture: Tensor) -> Tensor:
        return luminance(picture)

    def seen(self, canvas: Tensor) -> Tensor:
        return canvas.expand(3, -1, -1).contiguous()

    def gradient(self, gradient: Tensor) -> Tensor:
        # By the chain rule, since every channel is the same canvas.
        return gradient.sum(0, keepdim=True)

    def shown(self, canvas: Tensor) -> Tensor:
        # I and Q are differences of colors: adding the same to red, green and blue leaves them as they are.
        return self._content + (canvas - self._luminance)


def luminance(picture: Tensor) -> Tensor:
    """The luminance of a picture, (1, H, W)."""
    # A sum, not a matrix product, which CUDA would compute in TF32.
    return (picture * picture.new_tensor(LUMINANCE)[:, None, None]).sum(0, keepdim=True)


def gray(picture: Array) -> Array:
    """The luminance as a picture (3, H, W), on the CPU."""
    found: Array = luminance(torch.tensor(picture)).expand(3, -1, -1).numpy().copy()
    return found


def resized(picture: Tensor, height: int, width: int) -> Tensor:
    """A picture or canvas (C, H, W) at another size, bicubic; smaller ones without aliasing."""
    if picture.shape[1:] == (height, width):
        return picture
    smaller = height < picture.shape[1] or width < picture.shape[2]
    found: Tensor = functional.interpolate(picture[None], (height, width), mode="bicubic", antialias=smaller)
    return found[0].contiguous()
