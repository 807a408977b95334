"""The FeatureSource adapter for a FeatureService over gRPC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from gramlet._sync.client import Client
from gramlet.errors import GramletError
from gramlet.feature.types import Extraction, Features, Model, Objective
from gramlet.types import Picture

from gramlet_server.feature_source import Differentiation


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
