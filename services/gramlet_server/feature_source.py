"""How every service but FeatureService reaches the network: one small interface, two adapters.

`gramlet_server.feature.engine.Engine` is the adapter in this process; `RemoteFeatures` is a FeatureService over gRPC.
A service is written against `FeatureSource` and behaves the same with both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from gramlet.errors import GramletError, OtherWeights
from gramlet.feature.descent_types import DescentEvent, DescentStart, DescentWeights
from gramlet.feature.types import Evaluation, Extraction, Features, Model, Objective
from gramlet.types import Array, Picture, short_digest

FIRST_STATE_SECONDS = 0.5
"""Seconds from the start of a descent to its first state. The interval then doubles up to the one asked for. So a run
makes progress even if every server lives for a few seconds only. L-BFGS has little history by then, and its state is
small."""


class Differentiation(Protocol):
    """An objective whose loss and gradient the network computes, picture by picture."""

    @property
    def reconnects(self) -> int:
        """How often the connection to the network was lost and found again since the start."""
        ...

    def evaluate(self, picture: Array) -> Evaluation:
        """Loss and gradient at a picture (3, H, W), float32, RGB in 0..1 or a little outside.

        Raises:
            InvalidInput: The picture's shape is not the content's.
            Unavailable: The network was unreachable for longer than the source waits.
        """
        ...

    def replace(self, objective: Objective) -> None:
        """Changes the objective from the next evaluation on. Targets that it shares with the old one are kept.

        Raises:
            InvalidInput: Naming the field of the objective.
        """
        ...


class Descent(Protocol):
    """A descent at the network: an iterator of its events, for one reader. Other methods may be called in any thread.

    Events are DescentQueued while it waits for the device, DescentReady, then DescentIteration, DescentPreview,
    DescentState, DescentReweighted, DescentRecovered and DescentWaiting. The last is DescentFinished, or a DescentState
    where the start asks for one or after `stop`. No iteration is reported twice, and none is missed.
    """

    def __iter__(self) -> Iterator[DescentEvent]: ...

    def __next__(self) -> DescentEvent:
        """Waits for the next event.

        Raises:
            StopIteration: The descent has ended.
            InvalidInput: The start, or new weights, are wrong.
            FailedPrecondition: The loss is not a number.
            OtherWeights: The network is another one than wanted.
            Overloaded: The queue of descents is full. Nothing was done.
            Cancelled: The descent was cancelled.
            Unavailable: The network is shutting down, has failed, or was unreachable for longer than the source waits.
                The last DescentState is where the descent can go on.
        """
        ...

    def reweight(self, weights: DescentWeights) -> None:
        """Goes on with other weights from the next iteration on; answered by a DescentState and a DescentReweighted.

        Of several that are sent at once only the newest count.
        """
        ...

    def proceed(self) -> None:
        """Answers a DescentWaiting: the last iteration may begin."""
        ...

    def stop(self) -> None:
        """Ends the descent after the iteration under way, with a DescentState."""
        ...

    def cancel(self) -> None:
        """Ends the descent, and wakes its reader with Cancelled. Returns at once."""
        ...


class FeatureSource(Protocol):
    """The network, in this process or elsewhere."""

    @property
    def address(self) -> str:
        """Where the network is, for people: `in-process`, or an address."""
        ...

    def pinned(self, weights_digest: str) -> FeatureSource:
        """The network with these weights, and no other; an empty digest stands for any.

        Raises:
            OtherWeights: This is another network. If there may be replicas with others, their calls raise it.
        """
        ...

    def model(self) -> Model:
        """The network's stages, weights digest and limits.

        Raises:
            OtherWeights: There is no network with the weights that this source is pinned to.
        """
        ...

    def extract(self, pictures: Iterable[Picture], extraction: Extraction) -> Iterator[Features | GramletError]:
        """Features of each picture, in order. A picture that fails yields its error and does not affect the others.

        Pictures are taken from the iterable as results are consumed, a bounded number ahead.

        Raises:
            InvalidInput: The extraction itself is wrong.
            Overloaded: The device's queue is full.
            Unavailable: The network was unreachable for longer than the source waits.
        """
        ...

    def differentiate(self, objective: Objective) -> AbstractContextManager[Differentiation]:
        """Opens a differentiation of an objective for as long as the context lasts.

        Raises:
            InvalidInput: The objective names an unknown stage, or its pictures do not fit.
            Overloaded: The device's queue is full.
            Unavailable: The network was unreachable for longer than the source waits.
        """
        ...

    def descend(self, start: DescentStart) -> AbstractContextManager[Descent]:
        """Descends on an objective, where the network is. Leaving the context ends the descent.

        Raises:
            OtherWeights: The network is another one than wanted.
            Overloaded: The queue of descents is full. Nothing was done.
            Unavailable: The network is shutting down.
        """
        ...

    def close(self) -> None:
        """Releases the network, or the connection to it."""
        ...


def pin(source: FeatureSource, wanted: str = "") -> tuple[FeatureSource, Model]:
    """The network with the wanted weights, or with those of the first replica that answers, and no other.

    Raises:
        OtherWeights: There is no network with the wanted weights.
    """
    model = source.pinned(wanted).model()
    return source.pinned(model.weights_digest), model


def pin_to(source: FeatureSource, weights_digest: str, made: str, field: str) -> tuple[FeatureSource, Model]:
    """The network with which something in the store was made, and no other.

    Args:
        source: The network.
        weights_digest: Of the network with which it was made.
        made: What it is, for the error.
        field: The field of the request that names it.

    Raises:
        OtherWeights: That network is not here.
    """
    try:
        return pin(source, weights_digest)
    except OtherWeights as error:
        raise OtherWeights(f"{made} was made with other weights: {error.message}", field=field) from None


def check_weights(
    wanted: str, serving: str, field: str = "weights_digest", of: str = "this network has weights"
) -> None:
    """Compares the digest of the weights that a caller wants, which may be empty, to that of a network.

    Args:
        wanted: The caller's.
        serving: The network's.
        field: Of the request, for the error.
        of: What has these weights, for the error.

    Raises:
        OtherWeights: They differ.
    """
    if wanted not in ("", serving):
        message = f"{of} {short_digest(serving)}, and {short_digest(wanted)} are wanted"
        if wanted.partition("+")[0] == serving.partition("+")[0]:
            message += ": the same weights, but pictures are decoded in another way (the server's --decoder)"
        raise OtherWeights(message, field=field)
