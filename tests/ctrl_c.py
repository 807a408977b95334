"""The command `gramlet` as a process that Ctrl-C interrupts."""

from __future__ import annotations

import sys

# A process inherits whether SIGINT is ignored, and it is in everything that a background job of a shell starts. The
# first two lines bring the interrupt back, for tests that send one.
_PROGRAM = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("gramlet.cli", run_name="__main__", alter_sys=True)
"""

GRAMLET = [sys.executable, "-c", _PROGRAM]
"""What goes before the arguments of `gramlet`."""
