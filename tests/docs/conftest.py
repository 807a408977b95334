"""A real server with all services and random weights, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server."""
    store = tmp_path_factory.mktemp("store")
    command = [sys.executable, "-m", "gramlet_server", "all", "--weights", "random:0", "--port", "0"]
    log = (tmp_path_factory.mktemp("log") / "server").open("w")
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        log,
        subprocess.Popen(
            [*command, "--store", store], stdout=subprocess.PIPE, stderr=log, text=True, env=environ
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            address = re.search(r" on (\S+:\d+)", line)
            assert address, Path(log.name).read_text()
            yield address[1]
        finally:
            process.terminate()
            process.communicate()
