"""When a failed call is made again, and after how long. Pure: no gRPC, no clock, and the dice are passed in."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gramlet.errors import GramletError, OtherWeights, Overloaded, Unavailable
from gramlet.inputs.values import seconds

_SHORTEST_ELSEWHERE, _LONGEST_ELSEWHERE = 0.01, 0.25  # between two replicas: none of them is waited for


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter; never shorter than the delay that the server asks for.

    Attributes:
        patience: Seconds since the server was lost after which a call is given up.
        first_contact: The same for a server that has never answered: likely a wrong address.
        fruitless: How often a server may answer and fail again before it has reported anything new.
        shortest: Seconds before the second attempt, before jitter.
        longest: Seconds that the backoff never exceeds. A server may ask for more.
        elsewhere: How often to try again when a replica has other weights than wanted: the next call may reach another
            one.
        elsewhere_seconds: Seconds after which that ends, but not before the second attempt. A service may have looked
            for a replica itself.
    """

    patience: float = 60.0
    first_contact: float = 2.0
    shortest: float = 0.1
    longest: float = 5.0
    fruitless: int = 5
    elsewhere: int = 12
    elsewhere_seconds: float = 2.0

    def delay(
        self,
        error: GramletError,
        *,
        attempt: int,
        elapsed: float,
        remaining: float | None,
        contacted: bool,
        elsewhere: int = 1,
        dice: Callable[[], float] = random.random,
    ) -> float | None:
        """Seconds to wait before the next attempt, or None to give up.

        Args:
            error: How the attempt failed.
            attempt: Failures since the last progress, this one included.
            elapsed: Seconds since the first failure after the last answer.
            remaining: Seconds until the call's deadline; None without one.
            contacted: The server has answered before.
            elsewhere: How many replicas in a row had other weights.
            dice: Uniform in [0, 1).
        """
        if isinstance(error, OtherWeights):
            if elsewhere > self.elsewhere or (elsewhere > 1 and elapsed > self.elsewhere_seconds):
                return None
            backoff = min(_LONGEST_ELSEWHERE, _SHORTEST_ELSEWHERE * 2.0**elsewhere)
        elif isinstance(error, Unavailable | Overloaded):
            backoff = min(self.longest, self.shortest * 2.0 ** min(attempt - 1, 60))
        else:
            return None
        # Jitter separates callers that failed together: half to whole backoff, or up to a quarter more than asked for.
        delay = backoff * (0.5 + 0.5 * dice())
        if error.retry_after is not None:
            delay = max(delay, error.retry_after * (1 + 0.25 * dice()))
        was_there = contacted or isinstance(error, Overloaded | OtherWeights)
        patience = self.patience if was_there else min(self.patience, self.first_contact)
        if elapsed + delay > patience or (remaining is not None and delay >= remaining):
            return None
        return delay


def make_policy(policy: RetryPolicy = RetryPolicy(), **waits: float | None) -> RetryPolicy:  # frozen
    """The policy with other waits, as a caller gives them; None leaves a wait as it is.

    Raises:
        InvalidInput: Not a number of seconds.
    """
    given = {name: seconds(value, name) for name, value in waits.items() if value is not None}
    values: dict[str, Any] = {name: math.inf if value is None else value for name, value in given.items()}
    return replace(policy, **values)


AT_ONCE = RetryPolicy(patience=0.0)
"""Succeed now or not at all."""
