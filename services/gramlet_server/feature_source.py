"""How every service but FeatureService reaches the network: one small interface, two adapters.

`gramlet_server.feature.engine.Engine` is the adapter in this process; `RemoteFeatures` is a FeatureService over gRPC.
A service is written against `FeatureSource` and cannot tell which one it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from gramlet.client import Client
from gramlet.errors import GramletError
from gramlet.types import Array, Evaluation, Extraction, Features, Model, Objective, Picture

__all__ = ["Differentiation", "FeatureSource", "Picture", "RemoteFeatures"]


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


class RemoteFeatures:
    """A FeatureService over gRPC.

    A lost FeatureService is waited for with backoff, even one that has never answered; whichever replica answers next
    is given the objective again, and the same evaluation goes on. It must have the same weights: FailedPrecondition if
    not.

    Args:
        client: The connection. It is closed with this.
        patience: Seconds after which a lost FeatureService is given up with Unavailable.
    """

    def __init__(self, client: Client, patience: float = 120.0) -> None:
        self._client = client.with_options(patience=patience, first_contact=patience)

    @property
    def address(self) -> str:
        """Where the FeatureService is."""
        return self._client.address

    def model(self) -> Model:
        """The network's stages, weights digest and limits."""
        return self._client.model()

    def extract(self, pictures: Iterable[Picture], extraction: Extraction) -> Iterator[Features | GramletError]:
        """Features of each picture, in order; see `FeatureSource.extract`."""
        return self._client.extract(pictures, extraction)

    def differentiate(self, objective: Objective) -> AbstractContextManager[Differentiation]:
        """Puts an objective in place; see `FeatureSource.differentiate`."""
        return self._client.differentiate(objective)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()
