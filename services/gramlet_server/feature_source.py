"""How every service but FeatureService reaches the network: one small interface, two adapters.

`gramlet_server.feature.engine.Engine` is the adapter in this process; `RemoteFeatures` is a FeatureService over gRPC.
A service is written against `FeatureSource` and cannot tell which one it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from gramlet.errors import GramletError
from gramlet.feature.types import Evaluation, Extraction, Features, Model, Objective
from gramlet.types import Array, Picture

__all__ = ["Differentiation", "FeatureSource", "Picture"]


class Differentiation(Protocol):
    """An objective in place at the network."""

    @property
    def reconnects(self) -> int:
        """How often the network was lost and found again since the start."""
        ...

    def evaluate(self, picture: Array) -> Evaluation:
        """Loss and gradient at a picture (3, H, W).

        Raises:
            Unavailable: The network stayed lost for longer than the source is willing to wait.
        """
        ...

    def replace(self, objective: Objective) -> None:
        """Changes the objective from the next evaluation on. Targets that it shares with the old one are kept."""
        ...


class FeatureSource(Protocol):
    """The network, wherever it runs."""

    @property
    def address(self) -> str:
        """Where the network is, for people: `in-process`, or an address."""
        ...

    def model(self) -> Model:
        """The network's stages, weights digest and limits."""
        ...

    def extract(self, pictures: Iterable[Picture], extraction: Extraction) -> Iterator[Features | GramletError]:
        """Features of each picture, in order, one outcome a picture: a bad picture yields its error and costs no other.

        Pictures are taken from the iterable as results are consumed, a bounded window ahead.

        Raises:
            InvalidInput: The extraction itself is wrong.
        """
        ...

    def differentiate(self, objective: Objective) -> AbstractContextManager[Differentiation]:
        """Puts an objective in place for as long as the context lasts.

        Raises:
            InvalidInput: The objective names an unknown stage, or its pictures do not fit.
        """
        ...

    def close(self) -> None:
        """Lets go of the network."""
        ...
