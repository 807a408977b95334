"""When a failed call is made again, and after how long. Pure: no gRPC, and the clock and the dice are passed in."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from gramlet.errors import DeadlineExceeded, GramletError, Overloaded, Unavailable


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter; a delay that the server asks for is never undercut.

    Attributes:
        patience: Seconds since the server was lost after which a call is given up.
        first_contact: The same for a server that has never answered: likely a wrong address.
        fruitless: How often a server may answer and fail again before it has told anything new.
        shortest: Seconds before the second attempt, before jitter.
        longest: Seconds that the backoff never exceeds. A server may ask for more.
    """

    patience: float = 60.0
    first_contact: float = 2.0
    shortest: float = 0.1
    longest: float = 5.0
    fruitless: int = 5

    def but(self, *, patience: float | None, first_contact: float | None) -> RetryPolicy:
        """The same policy with other values; what is None stays."""
        return dataclasses.replace(
            self,
            patience=self.patience if patience is None else patience,
            first_contact=self.first_contact if first_contact is None else first_contact,
        )

    def delay(
        self,
        error: GramletError,
        *,
        attempt: int,
        elapsed: float,
        remaining: float | None,
        contacted: bool,
        dice: Callable[[], float] = random.random,
    ) -> float | None:
        """Seconds to wait before the next attempt, or None to give up.

        Args:
            error: How the attempt failed.
            attempt: Failures since the last progress, this one included.
            elapsed: Seconds since the first failure after the last answer.
            remaining: Seconds until the call's deadline; None without one.
            contacted: The server has answered before.
            dice: Uniform in [0, 1).
        """
        if not isinstance(error, Unavailable | Overloaded):
            return None
        backoff = min(self.longest, self.shortest * 2.0 ** min(attempt - 1, 60))
        # Jitter parts callers that failed together: half to whole backoff, or up to a quarter past what was asked.
        delay = backoff * (0.5 + 0.5 * dice())
        if error.retry_after is not None:
            delay = max(delay, error.retry_after * (1 + 0.25 * dice()))
        was_there = contacted or isinstance(error, Overloaded)
        patience = self.patience if was_there else min(self.patience, self.first_contact)
        if elapsed + delay > patience or (remaining is not None and delay >= remaining):
            return None
        return delay


AT_ONCE = RetryPolicy(patience=0.0)
"""Succeed now or not at all."""


class Contact:
    """Whether a server has ever answered this client. Shared by all calls of a client."""

    def __init__(self) -> None:
        self.made = False


class Attempts:
    """The attempts of one call: counts them, keeps its deadline, and decides with the policy."""

    def __init__(
        self,
        policy: RetryPolicy,
        contact: Contact,
        timeout: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._contact = contact
        self._clock = clock
        self._deadline = None if timeout is None else clock() + timeout
        self._lost_since: float | None = None
        self._failures = 0
        self._answered_in_vain = False
        self._fruitless = 0

    def remaining(self) -> float | None:
        """Seconds until the deadline, for the next attempt; None without one.

        Raises:
            DeadlineExceeded: There are none left.
        """
        if self._deadline is None:
            return None
        remaining = self._deadline - self._clock()
        if remaining <= 0:
            raise DeadlineExceeded("the timeout is over: allow more, or ask for less")
        return remaining

    def answered(self, *, new: bool = True) -> None:
        """The server sent something; `new` says whether it brought the call forward."""
        self._contact.made = True
        self._lost_since = None
        self._answered_in_vain = not new
        if new:
            self._failures = self._fruitless = 0

    def delay_after(self, error: GramletError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            GramletError: The error itself, where another attempt is pointless or patience is over.
        """
        now = self._clock()
        self._failures += 1
        # A request that kills every server it reaches must not go on for ever, however fast they come back.
        self._fruitless += self._answered_in_vain
        self._answered_in_vain = False
        self._contact.made = self._contact.made or bool(error.request_id)
        if self._lost_since is None:
            self._lost_since = now
        delay = self._policy.delay(
            error,
            attempt=self._failures,
            elapsed=now - self._lost_since,
            remaining=None if self._deadline is None else self._deadline - now,
            contacted=self._contact.made,
        )
        if delay is None or self._fruitless > self._policy.fruitless:
            raise error from None
        return delay
