"""`gramlet-server` with a device that takes a fixed time for each picture, whatever else this machine does.

    python slow_server.py SECONDS [arguments of gramlet-server]

So replicas on one machine behave as if each had a device of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from gramlet_server.__main__ import main
from gramlet_server.feature.device import AnyPicture, Device, Wait
from gramlet_server.feature.graphs import Compute, PassKey
from gramlet_server.services import Shared

T = TypeVar("T")


class SlowDevice(Device):
    """The CPU, but every pass takes at least so many seconds for each of its pictures."""

    def __init__(self, seconds_per_picture: float) -> None:
        self._seconds = seconds_per_picture

    def start(self, pictures: Sequence[AnyPicture], compute: Compute, key: PassKey) -> Wait:
        with self._at_least(len(pictures) * self._seconds):
            return super().start(pictures, compute, key)

    def with_room(self, work: Callable[[], T]) -> T:
        with self._at_least(self._seconds):
            return super().with_room(work)

    @contextmanager
    def _at_least(self, seconds: float) -> Iterator[None]:
        until = time.monotonic() + seconds
        yield
        time.sleep(max(0.0, until - time.monotonic()))


if __name__ == "__main__":
    device = SlowDevice(float(sys.argv[1]))
    sys.exit(main(sys.argv[2:], partial(Shared, device=device)))
