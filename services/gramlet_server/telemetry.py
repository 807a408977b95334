"""What domain code reports about itself while it works. `runtime.metrics` turns it into Prometheus metrics."""

from __future__ import annotations


class Observer:
    """Hears what happens and does nothing about it: the default. Methods are called from any thread, return at once."""

    def queue_length(self, pictures: int) -> None:
        """Pictures that wait for the device now."""

    def batch(self, kind: str, pictures: int, device_seconds: float) -> None:
        """A pass over the device is done: `extract`, `gradient`, or `targets` (the fixed side of an objective)."""

    def cache(self, name: str, hit: bool) -> None:
        """A cache was asked, and had the value or not."""

    def runs(self, service: str, running: int, queued: int) -> None:
        """Pieces of long work that a service has under way, and those that wait for their turn."""
