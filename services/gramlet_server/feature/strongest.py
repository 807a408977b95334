"""The strongest patches of channels, kept while pictures pass by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gramlet.feature.see_types import Box
from gramlet.types import Array, Pixels, Timing
from numpy.typing import NDArray
from PIL import Image

from gramlet_server.feature.pixels import resized_on_cpu
from gramlet_server.pictures.encode import to_uint8
from gramlet_server.pictures.prepare import Decoded

BoxOf = Callable[[int, int, int, int], Box]
"""From a row and a column of activations, and the height and width of a picture, to the part that a patch shows."""


@dataclass(frozen=True, eq=False)
class Look:
    """The largest activation of each channel in one picture.

    Attributes:
        index, id: The picture's place in the call, and its name.
        picture: As the network saw it.
        activations: (C,).
        positions: (C,): where they are, counted row by row.
        columns: Of the stage's activations of this picture.
        timing: Its share of the pass.
    """

    index: int
    id: str
    picture: Decoded
    activations: Array
    positions: NDArray[np.int64]
    columns: int
    timing: Timing = Timing()


@dataclass(frozen=True, eq=False)
class Strong:
    """One of the strongest patches of a channel.

    Attributes:
        patch: Its pixels, reduced.
        whole: The picture, where it is needed for a projection.
    """

    activation: float
    index: int
    id: str
    row: int
    column: int
    box: Box
    height: int
    width: int
    patch: Pixels
    whole: Decoded | None


class Strongest:
    """The strongest patches of each channel so far, at most one of a picture. Of equal ones the earlier stays.

    A patch is cut and reduced at once, so that the memory depends on the channels and not on the pictures.

    Args:
        channels: The channels.
        most: Patches of each.
        box_of: What a patch shows.
        patch_size: The longest side of a patch in pixels.
        keeps_pictures: Whether to keep the pictures of the patches as well.
    """

    def __init__(
        self,
        channels: Sequence[int],
        most: int,
        box_of: BoxOf,
        patch_size: int,
        *,
        keeps_pictures: bool,
    ) -> None:
        self.channels = tuple(channels)
        self._most = most
        self._box_of = box_of
        self._patch_size = patch_size
        self._keeps_pictures = keeps_pictures
        self._found: list[list[Strong]] = [[] for _ in self.channels]
        # What an activation must exceed. A channel that is nowhere above 0 does not respond.
        self._thresholds = np.zeros(len(self.channels), np.float32)

    def add(self, look: Look) -> bool:
        """Takes a picture into account; whether a patch of it is among the strongest."""
        activations = look.activations[list(self.channels)]
        places = np.flatnonzero(activations > self._thresholds)
        if places.size == 0:
            return False
        pixels = _levels(look.picture)
        for place in places:
            found = self._found[place]
            found.append(self._strong(look, self.channels[place], pixels))
            found.sort(key=lambda each: -each.activation)  # stable: of equal ones the earlier stays before
            del found[self._most :]
            if len(found) == self._most:
                self._thresholds[place] = found[-1].activation
        return True

    def of(self, channel: int) -> list[Strong]:
        """The strongest patches of a channel, the strongest first."""
        return self._found[self.channels.index(channel)]

    def _strong(self, look: Look, channel: int, pixels: Pixels) -> Strong:
        row, column = divmod(int(look.positions[channel]), look.columns)
        height, width = look.picture.height, look.picture.width
        box = self._box_of(row, column, height, width)
        return Strong(
            activation=float(look.activations[channel]),
            index=look.index,
            id=look.id,
            row=row,
            column=column,
            box=box,
            height=height,
            width=width,
            patch=reduced(cut(pixels, box), self._patch_size),
            whole=look.picture if self._keeps_pictures else None,
        )


def cut(pixels: NDArray[Any], box: Box) -> NDArray[Any]:
    """A part of a picture (H, W, 3)."""
    return pixels[box.top : box.top + box.height, box.left : box.left + box.width]


def reduced(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A copy of a picture (H, W, 3), reduced to that longest side if it is larger."""
    height, width, _ = pixels.shape
    factor = size / max(height, width)
    if factor >= 1:
        return pixels.copy()
    smaller = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(pixels).resize(smaller, Image.Resampling.BOX))


def _levels(picture: Decoded) -> Pixels:
    """A picture in its final size, (H, W, 3)."""
    (final,) = resized_on_cpu([picture])
    return final.pixels if final.pixels.dtype == np.uint8 else to_uint8(final.pixels)
