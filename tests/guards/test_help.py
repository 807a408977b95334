"""`--help` of both programs stays what it is: flags, defaults and words. Line breaks do not count.

GRAMLET_UPDATE_GOLDENS=1 rewrites the goldens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

import pytest

from tests.guards.goldens import FOLDER, HINT, golden_text
from tests.guards.product import gramlet_command, gramlet_server_command


@pytest.fixture
def help_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a program with some arguments and `--help`; returns what it says."""
    for name in os.environ:
        if name.startswith("GRAMLET_"):
            monkeypatch.delenv(name)  # variables are the defaults of flags, which the help shows
    monkeypatch.setenv("COLUMNS", "100")

    def run(program: Callable[[Sequence[str]], int], *arguments: str) -> str:
        assert program([*arguments, "--help"]) == 0
        return capsys.readouterr().out

    return run


SERVICES = ("all", "feature", "stylize", "train", "embed", "probe", "weights")


def test_the_help_of_gramlet_server_is_what_it_was(help_of: Callable[..., str]) -> None:
    _check("gramlet-server", help_of(gramlet_server_command))
    for service in SERVICES:
        _check(f"gramlet-server-{service}", help_of(gramlet_server_command, service))


def test_the_help_of_gramlet_is_what_it_was(help_of: Callable[..., str]) -> None:
    _check("gramlet", help_of(gramlet_command))


def test_the_help_of_every_subcommand_is_what_it_was(help_of: Callable[..., str]) -> None:
    commands = re.findall(r"^ {4}([a-z]+)(?: {2}|$)", help_of(gramlet_command), re.MULTILINE)
    assert "stylize" in commands
    for command in commands:
        _check(command, help_of(gramlet_command, command))
    kept = {path.stem for path in (FOLDER / "help").glob("*.txt")}
    of_server = {"gramlet-server", *(f"gramlet-server-{service}" for service in SERVICES)}
    assert kept == {*commands, "gramlet", *of_server}, "a subcommand is gone, or its golden is left over"


def _check(name: str, found: str) -> None:
    assert golden_text(f"help/{name}.txt", found).split() == found.split(), f"{name} --help: {HINT}"
