"""How long the threads of GNU OpenMP, which torch computes with, wait for each other before they sleep.

A pass has hundreds of operations. After each of them the threads wait for the slowest one: at first they spin, which
costs nothing while each has a core for itself. As soon as anybody else computes on this machine, the thread that is
waited for may have no core, because the others spin on it. By default they do so for milliseconds, and every operation
takes that long. A short spin still covers the waits between operations.
"""

from __future__ import annotations

import os

_SPINS = "1000"
"""Rounds of a few nanoseconds. Fewer make a server that is alone slower, more one that is beside others; see
tests/bench/bench_neighbor.py."""


def bound_spinning() -> None:
    """Lets waiting threads sleep early, unless the environment says how they wait. Call this before torch is loaded."""
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["GOMP_SPINCOUNT"] = _SPINS
