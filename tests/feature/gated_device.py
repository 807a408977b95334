"""A device whose passes a test can hold back, so that what waits for the device waits for as long as the test needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gramlet.types import Array
from gramlet_server.feature.device import AnyPicture, Device, Wait
from gramlet_server.feature.graphs import Compute, PassKey


class GatedDevice(Device):
    """The CPU, but no pass ends while the gate is shut."""

    def __init__(self) -> None:
        self._gate = threading.Event()
        self._gate.set()

    def start(self, pictures: Sequence[AnyPicture], compute: Compute, key: PassKey) -> Wait:
        wait = super().start(pictures, compute, key)

        def gated() -> list[Array]:
            self._gate.wait()
            return wait()

        return gated

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Holds passes back inside."""
        self._gate.clear()
        try:
            yield
        finally:
            self._gate.set()
