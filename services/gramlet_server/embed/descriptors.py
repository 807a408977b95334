"""From items to descriptors: vectors (n,) that stand for the items when they are compared.

A Gram matrix is symmetric. Its upper triangle, with the off-diagonal elements times √2, has the same inner products
in half the space: 524,800 elements an item for layer3 of resnet50 instead of 1,048,576.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from gramlet.embed.settings import Descriptor, MapSettings
from gramlet.embed.types import BadItem, Item
from gramlet.errors import GramletError, InvalidInput
from gramlet.feature.types import Extraction, Features, Form, GramNormalization
from gramlet.types import Array, Picture
from numpy.typing import NDArray

from gramlet_server.feature_source import FeatureSource

LARGEST_VECTOR = 2**22
LARGEST_LENGTH = 1e18
"""The largest norm of a descriptor: the square of a larger distance is infinite in float32."""
_FORMS = {Descriptor.GRAM: Form.GRAM, Descriptor.POOLED: Form.POOLED}


@dataclass(frozen=True)
class ItemDescriptor:
    """The outcome for one item.

    Attributes:
        item: The item.
        outcome: Its descriptor (n,), or the error with which it failed.
        features: What the network found; None for vectors and for items that failed.
        size: Height and width in pixels of the picture that the network was given; (0, 0) where there was none.
    """

    item: Item | BadItem
    outcome: Array | GramletError
    features: Features | None = None
    size: tuple[int, int] = (0, 0)


class Describer:
    """Makes descriptors from features or from vectors.

    Args:
        settings: The map's settings.
        largest_vector: The most elements of a vector.

    Attributes:
        settings: The map's settings.
    """

    def __init__(self, settings: MapSettings, largest_vector: int = LARGEST_VECTOR) -> None:
        self.settings = settings
        self._largest_vector = largest_vector
        self._triangles: dict[int, tuple[NDArray[np.intp], Array]] = {}

    def of_features(self, features: Features) -> Array:
        """The descriptor (n,) of a picture, from its Gram matrices or its pooled activations.

        Raises:
            InvalidInput: A feature is not finite.
        """
        parts = [self.part(features, self.settings.descriptor, stage) for stage in self.settings.stages]
        if self.settings.balance_stages:
            parts = [to_unit_length(part) for part in parts]
        return _checked(np.concatenate(parts), "picture")

    def of_vector(self, vector: Array) -> Array:
        """The descriptor (n,) of a vector (n,) that came with the item.

        Raises:
            InvalidInput: It has another shape, is empty or too long, or has an element that is not finite.
        """
        if vector.ndim != 1 or vector.size == 0:
            raise InvalidInput(f"a vector has shape (n,), not {vector.shape}", field="vector")
        if vector.size > self._largest_vector:
            message = f"{vector.size:,} elements, and at most {self._largest_vector:,} were announced: set vector_size"
            raise InvalidInput(message, field="vector")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
            return _checked(vector.astype(np.float32), "vector")

    def part(self, features: Features, descriptor: Descriptor, stage: str) -> Array:
        """The part of one stage, not scaled."""
        if descriptor is Descriptor.GRAM:
            return self._pack(features.grams[stage])
        return features.pooled[stage].astype(np.float32).ravel()

    def ones(self, features: Features | None, size: int) -> Array:
        """(n,) the descriptor of matrices of ones: the mean of a matrix's elements is a product with it.

        In a packed triangle the elements have different weights.
        """
        if features is None or self.settings.descriptor is not Descriptor.GRAM:
            return np.ones(size, np.float32)
        return np.concatenate([self._triangle(features.grams[s].shape[0])[1] for s in self.settings.stages])

    def _pack(self, gram: Array) -> Array:
        indices, weights = self._triangle(gram.shape[0])
        packed: Array = gram.ravel().take(indices)
        packed *= weights
        return packed

    def _triangle(self, n: int) -> tuple[NDArray[np.intp], Array]:
        """Flat indices of the upper triangle of an (n, n) matrix, and their weights: 1, and √2 off the diagonal."""
        if n not in self._triangles:
            rows, columns = np.triu_indices(n)
            weights = np.where(rows == columns, 1.0, np.sqrt(2.0)).astype(np.float32)
            self._triangles[n] = rows * n + columns, weights
        return self._triangles[n]


def describe(
    items: Iterable[Item | BadItem],
    describer: Describer,
    features: FeatureSource,
    compared: Collection[tuple[Descriptor, str]] = (),
) -> Iterator[ItemDescriptor]:
    """The descriptor, or the error, of each item, in order. Only pictures need the network."""
    if describer.settings.descriptor is Descriptor.VECTOR:
        for item in items:
            yield ItemDescriptor(item, _from_vector(item, describer))
    else:
        yield from _from_pictures(items, describer, features, extraction_of(describer.settings, compared))


def extraction_of(settings: MapSettings, compared: Collection[tuple[Descriptor, str]] = ()) -> Extraction:
    """The features that the network has to extract for a map of pictures.

    Args:
        settings: The map's settings.
        compared: Further descriptors of single stages, from the same pass.
    """
    wanted = [(settings.descriptor, stage) for stage in settings.stages]
    wanted += compared
    return Extraction(
        stages=tuple(dict.fromkeys(stage for _, stage in wanted)),
        forms=tuple(dict.fromkeys(_FORMS[descriptor] for descriptor, _ in wanted)),
        gram_normalization=GramNormalization.POSITIONS,
        triangle=True,
        resize=settings.resize,
    )


def _from_pictures(
    items: Iterable[Item | BadItem], describer: Describer, features: FeatureSource, extraction: Extraction
) -> Iterator[ItemDescriptor]:
    """The source takes pictures ahead of its outcomes, so the items whose outcome is still to come wait in a queue.

    An item without a picture waits there too but has no outcome: it is reported when it reaches the front.
    """
    waiting: deque[Item | BadItem] = deque()

    def pictures() -> Iterator[Picture]:
        for item in items:
            waiting.append(item)
            if isinstance(item, Item) and item.picture is not None:
                yield item.picture

    for outcome in features.extract(pictures(), extraction):
        yield from _without_picture(waiting)
        found = outcome if isinstance(outcome, Features) else None
        size = (found.height, found.width) if found else (0, 0)
        yield ItemDescriptor(waiting.popleft(), _from_outcome(outcome, describer), found, size)
    yield from _without_picture(waiting)


def _without_picture(waiting: deque[Item | BadItem]) -> Iterator[ItemDescriptor]:
    """Takes the items without a picture from the front of the queue, each with its error."""
    while waiting:
        item = waiting[0]
        if isinstance(item, Item) and item.picture is not None:
            return
        waiting.popleft()
        missing = InvalidInput("the item has no picture", field="item.picture")
        yield ItemDescriptor(item, item.error if isinstance(item, BadItem) else missing)


def _from_outcome(outcome: Features | GramletError, describer: Describer) -> Array | GramletError:
    if isinstance(outcome, GramletError):
        return outcome
    try:
        return describer.of_features(outcome)
    except InvalidInput as error:
        return error


def _from_vector(item: Item | BadItem, describer: Describer) -> Array | GramletError:
    if isinstance(item, BadItem):
        return item.error
    if item.vector is None:
        return InvalidInput("the item has no vector", field="item.vector")
    try:
        return describer.of_vector(item.vector)
    except InvalidInput as error:
        return error


def _checked(descriptor: Array, field: str) -> Array:
    """The descriptor, if squared distances to it fit into float32."""
    length = np.linalg.norm(descriptor.astype(np.float64))
    if not np.isfinite(length):
        raise InvalidInput("an element is not a finite number", field=field)
    if length > LARGEST_LENGTH:
        raise InvalidInput(f"its length is {length:.0e}, more than {LARGEST_LENGTH:.0e}: scale it down", field=field)
    return descriptor


def to_unit_length(part: Array) -> Array:
    """The vector with length 1; a zero vector as it is."""
    length = np.float32(np.linalg.norm(part))
    return part / length if length > 0 else part
