"""The FeatureSource adapter for a FeatureService over gRPC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from gramlet._sync.client import Client
from gramlet.errors import GramletError
from gramlet.feature.descent_types import DescentStart
from gramlet.feature.types import Extraction, Features, Model, Objective
from gramlet.types import Picture

from gramlet_server.feature_source import Descent, Differentiation


class RemoteFeatures:
    """A FeatureService over gRPC.

    When the FeatureService is unreachable, calls are retried with backoff, also if it has never answered yet. The next
    replica that answers gets the objective again and repeats the evaluation that was lost. It must have the same
    weights: replicas that have others are passed over, and if there are only such, the call fails with OtherWeights.

    Args:
        client: The connection. `close` closes it.
        patience: Seconds without an answer after which a call fails with Unavailable; None: those of the client.
    """

    def __init__(self, client: Client, patience: float | None = 120.0) -> None:
        self._client = client.with_options(patience=patience, first_contact=patience)

    @property
    def address(self) -> str:
        """Where the FeatureService is."""
        return self._client.address

    def pinned(self, weights_digest: str) -> RemoteFeatures:
        """The same FeatureService, but only its replicas that have these weights."""
        return RemoteFeatures(self._client.with_options(weights_digest=weights_digest), patience=None)

    def model(self) -> Model:
        """The network's stages, weights digest and limits."""
        return self._client.model()

    def extract(self, pictures: Iterable[Picture], extraction: Extraction) -> Iterator[Features | GramletError]:
        """Features of each picture, in order; see `FeatureSource.extract`."""
        return self._client.extract(pictures, extraction)

    def differentiate(self, objective: Objective) -> AbstractContextManager[Differentiation]:
        """Opens a differentiation of an objective; see `FeatureSource.differentiate`."""
        return self._client.differentiate(objective)

    def descend(self, start: DescentStart) -> AbstractContextManager[Descent]:
        """Descends on an objective; see `FeatureSource.descend`."""
        return self._client.descend(start)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()
