"""What a command prints is its work: where it cannot be written, the command fails; where nobody reads on, it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ctrl_c import GRAMLET

SERVER = [sys.executable, "-m", "gramlet_server"]
PRINTING = [
    [*GRAMLET, "--version"],
    [*GRAMLET, "--help"],
    [*GRAMLET, "stylize", "--help"],
    [*GRAMLET, "presets"],
    [*GRAMLET, "completion", "bash"],
    [*GRAMLET, "status"],
    [*GRAMLET, "status", "--json"],
    [*GRAMLET, "heads", "--json"],  # fails at this server, and cannot say so
    [*SERVER, "--version"],
    [*SERVER, "--help"],
    [*SERVER, "all", "--help"],
    [*SERVER, "token", "new", "me"],
]
NAMES = [" ".join(command[1:] if command[1] == "-m" else ["gramlet", *command[3:]]) for command in PRINTING]


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("command", PRINTING, ids=NAMES)
def test_an_output_that_cannot_be_written_is_a_failure(command: list[str], unbuffered: str, address: str) -> None:
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "GRAMLET_SERVER": address}
    with Path("/dev/full").open("w") as disk:
        ended = subprocess.run(command, stdout=disk, stderr=subprocess.PIPE, text=True, timeout=120, env=environ)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith("No space left on device")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("command", [PRINTING[1], PRINTING[9]], ids=["gramlet", "gramlet-server"])
def test_a_reader_that_has_left_ends_a_command_silently(command: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=120, env=environ)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (128 + 13, b"")
