"""`--studio`: what keeps the page from being served is reported before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from gramlet_server.__main__ import main


def test_a_studio_that_is_absent_is_named_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gramlet_server.runtime.studio.find_spec", lambda _: None)
    assert main(["all", "--studio"]) == 2
    assert "--studio: the studio is not installed: pip install gramlet-studio" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tls-cert", "FILE", "--tls-key", "FILE"], "gramlet studio --server NAME:PORT --tls"),
        (["--token-file", "FILE"], "GRAMLET_TOKEN"),
    ],
)
def test_a_page_that_could_not_call_the_server_is_refused(
    flags: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("GRAMLET_TOKEN", raising=False)
    file = tmp_path / "file"
    file.write_text("alice:a-token-that-is-long-enough")
    assert main(["all", "--studio", *(str(file) if flag == "FILE" else flag for flag in flags)]) == 2
    assert message in capsys.readouterr().err
