"""Pictures that nobody stylized: what a number of the judge is to be held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from gramlet_server.stylize.colors import match_colors
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
    """The content in the style's colors. A stylization that is not clearly nearer to the style than this is a tint."""
    return torch.from_numpy(match_colors(content.numpy(), style.numpy()))


BASELINES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "content itself": unchanged,
    "style itself": style_itself,
    "color-matched": color_matched,
}
