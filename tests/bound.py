"""Runs programs that permissions bind. They do not bind root, as whom tests often run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

_BOUND = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
"""Takes from root the right to read and write what its owner may not."""


def run_bound(command: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command that may not read files of mode 0, nor write in folders of mode 0o500."""
    prefix = _BOUND if os.geteuid() == 0 else []
    return subprocess.run([*prefix, *command], capture_output=True, text=True, timeout=120, cwd=cwd)
