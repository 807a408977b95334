"""What a map keeps of each item beside its descriptor: name, label, thumbnail, and a digest of its content."""

from __future__ import annotations

from functools import partial

import numpy as np
from gramlet.embed.types import Item, Place, Refused
from gramlet.errors import GramletError, InvalidInput, counted
from gramlet.tensor.hashing import picture_hash
from gramlet.types import Limits, Resize, ResizeMode
from numpy.typing import NDArray

from gramlet_server.embed import thumbnails
from gramlet_server.embed.descriptors import Describer, ItemDescriptor
from gramlet_server.embed.distances import Measurer
from gramlet_server.pictures.prepare import prepare


class Collected:
    """The items described so far, with what the map keeps of each beside its descriptor.

    Attributes:
        items: Those that have a descriptor.
        contents: A digest of the picture or vector of each.
        jpegs: A thumbnail of each; None where there is no picture.
        refused: The items that failed.
    """

    def __init__(self, count: int, limits: Limits) -> None:
        self.items: list[Place] = []
        self.contents: list[str] = []
        self.jpegs: list[bytes | None] = []
        self.refused: list[Refused] = []
        self._side = thumbnails.side_for(count)
        self._limits = limits
        self._sizes: set[tuple[int, int]] = set()
        self._plain = 0

    def add(self, described: ItemDescriptor, measurer: Measurer, describer: Describer) -> GramletError | None:
        """Takes an item and hands its descriptor to the measurer. Returns the error of an item that failed."""
        item, descriptor = described.item, described.outcome
        if isinstance(descriptor, GramletError):
            return descriptor
        assert isinstance(item, Item), "an item that could not be decoded has no descriptor"
        try:
            jpeg = self._thumbnail(item)
            content = _content_digest(item)
            measurer.add(descriptor, partial(describer.ones, described.features, descriptor.size), content)
        except InvalidInput as error:
            return error
        self.items.append(Place(item.id, item.label))
        self.contents.append(content)
        self.jpegs.append(jpeg)
        self._sizes.add(described.size)
        return None

    def check_not_empty(self) -> None:
        """Raises InvalidInput, with the error of the first item, if every item failed."""
        if not self.items:
            first = f": {self.refused[0].message}" if self.refused else ""
            raise InvalidInput(f"no item could be described{first}", field="item")

    def notes(self, duplicates: int) -> list[str]:
        """Sentences for the reader of the map."""
        notes = []
        if count := len(self.refused):
            notes.append(f"{counted(count, 'item')} could not be described and {_are(count)} not on the map.")
        if count := duplicates:
            notes.append(
                f"{counted(count, 'item')} {'has' if count == 1 else 'have'} the same content as an earlier one."
            )
        if count := self._plain:
            notes.append(f"{counted(count, 'picture')} {_are(count)} of one color: no style to compare.")
        if len(self._sizes) > 1:
            notes.append(
                f"The network saw pictures of {len(self._sizes)} sizes: Gram matrices are comparable, but larger "
                "pictures show finer strokes."
            )
        return notes

    def _thumbnail(self, item: Item) -> bytes | None:
        if item.picture is None:
            return None
        pixels = prepare(item.picture, Resize(ResizeMode.LONGEST_SIDE, self._side), self._limits, "item.picture")
        self._plain += float(pixels.std(axis=(1, 2)).max()) < 1 / 255
        return thumbnails.encode(pixels, self._side)


def notes_of(directed: NDArray[np.bool_]) -> list[str]:
    """A sentence on the items in which the metric finds no direction."""
    count = int((~directed).sum())
    return [f"{counted(count, 'item')} without direction {_are(count)} taken for zero by the metric."] if count else []


def _content_digest(item: Item) -> str:
    """Equal for items of equal picture and vector, whatever their ids."""
    return " ".join(picture_hash(part) for part in (item.picture, item.vector) if part is not None)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
