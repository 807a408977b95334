"""How every service but FeatureService reaches the network: one small interface, two adapters.

`gramlet_server.feature.engine.Engine` is the adapter in this process; `RemoteFeatures` is a FeatureService over gRPC.
A service is written against `FeatureSource` and behaves the same with both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from gramlet.errors import GramletError
from gramlet.feature.descent_types import DescentEvent, DescentStart, DescentWeights
from gramlet.feature.types import Evaluation, Extraction, Features, Model, Objective
from gramlet.types import Array, Picture


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
            FailedPrecondition: The loss is not a number, or the network is another one than wanted.
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

    def model(self) -> Model:
        """The network's stages, weights digest and limits."""
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
            FailedPrecondition: The network is another one than wanted.
            Overloaded: The queue of descents is full. Nothing was done.
            Unavailable: The network is shutting down.
        """
        ...

    def close(self) -> None:
        """Releases the network, or the connection to it."""
        ...
