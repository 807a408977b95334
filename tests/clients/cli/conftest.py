"""The command line against the real services, in this process."""

from __future__ import annotations

import pytest
from gramlet.cli import __main__ as cli

from tests.clients.cli.commands import Run


@pytest.fixture
def gramlet(address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line; returns exit code, stdout and stderr."""
    monkeypatch.setenv("GRAMLET_SERVER", address)

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
