"""What the services report about their work. `runtime.metrics` turns it into Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable


class Observer:
    """Receives reports. This default ignores them. Methods are called from any thread and must return at once."""

    def queue_length(self, pictures: int) -> None:
        """The number of pictures that wait for the device has changed."""

    def batch(self, kind: str, pictures: int, device_seconds: float) -> None:
        """A pass on the device has ended.

        Kinds: `extract`, `gradient`, `descent` (a turn of one), `targets` (of an objective), `see`, `warm-up`.
        """

    def cache(self, name: str, hit: bool) -> None:
        """A value was looked up in a cache, and found or not."""

    def gradients(self, count: int) -> None:
        """A descent has evaluated loss and gradient so many times."""

    def backlog(self, seconds: Callable[[], float]) -> None:
        """Registers what estimates how many seconds of work the device has accepted."""

    def runs(self, service: str, running: int, queued: int) -> None:
        """How many runs a service executes, and how many wait, has changed."""
