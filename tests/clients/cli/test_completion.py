"""Shells complete commands, flags and values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.clients.cli.commands import Run
from tests.ctrl_c import GRAMLET


def completions(line: str) -> set[str]:
    """What a shell offers for a line, by the protocol of argcomplete."""
    given = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": " "}
    program = {"gramlet": GRAMLET, "gramlet-server": [sys.executable, "-m", "gramlet_server"]}[line.split()[0]]
    with TemporaryDirectory() as folder:
        offered = Path(folder) / "offered"
        # Otherwise argcomplete writes to file descriptor 8, which only a shell gives it.
        subprocess.run(program, env={**os.environ, **given, "_ARGCOMPLETE_STDOUT_FILENAME": str(offered)}, check=True)
        return set(offered.read_text().split())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("gramlet sty", {"stylize"}),
        ("gramlet stylize --pres", {"--preset"}),
        ("gramlet embed --method ", {"tsne", "pca", "umap", "isomap", "mds", "lle"}),
        ("gramlet-server st", {"stylize"}),
        ("gramlet-server embed --q", set()),
        ("gramlet-server feature --backbone vgg1", {"vgg16", "vgg19"}),
    ],
)
def test_shells_complete_commands_flags_and_values(line: str, offered: set[str]) -> None:
    assert completions(line) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_a_shell_is_printed(gramlet: Run, shell: str) -> None:
    code, said, _ = gramlet("completion", shell)
    assert code == 0
    assert "gramlet-server" in said
    assert "_ARGCOMPLETE" in said
