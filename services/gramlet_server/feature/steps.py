"""Work on the device thread in steps, between which the device may serve others."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

T = TypeVar("T")

TURN_SECONDS = 0.03
"""How long the device advances one piece of long work before it looks for others. A turn is one step at least."""


@dataclass(frozen=True)
class Holding:
    """What steps yield where they hold the memory of a pass: another long pass must not begin meanwhile."""


HOLDING = Holding()
Pause = Holding | None
"""What steps yield."""
Steps = Generator[Pause, None, T]
"""Work on the device thread that yields wherever the device may serve others, and returns its result."""


@dataclass(frozen=True)
class Turn(Generic[T]):
    """What a turn came to: whether the work has ended, and its result if it has."""

    ended: bool
    outcome: T | None = None

    @property
    def result(self) -> T:
        """The result of work that has ended."""
        return cast(T, self.outcome)


def advance(steps: Steps[T]) -> Turn[T]:
    """Takes steps for TURN_SECONDS, or to their end."""
    until = time.monotonic() + TURN_SECONDS
    try:
        next(steps)
        while time.monotonic() < until:
            next(steps)
    except StopIteration as ended:
        return Turn(True, ended.value)
    return Turn(False)


def turn_of(steps: Steps[T]) -> Steps[Turn[T]]:
    """Takes steps for TURN_SECONDS and on to where they hold no memory, or to their end; yields where they hold it.

    Closing it there closes the steps as well.
    """
    until = time.monotonic() + TURN_SECONDS
    try:
        while True:
            if next(steps) is HOLDING:
                yield HOLDING
            elif time.monotonic() >= until:
                return Turn(False)
    except StopIteration as ended:
        return Turn(True, ended.value)
    except GeneratorExit:
        steps.close()
        raise


def to_end(steps: Steps[T]) -> T:
    """Takes all steps at once."""
    try:
        while True:
            next(steps)
    except StopIteration as ended:
        return cast(T, ended.value)
