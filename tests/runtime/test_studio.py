"""`--studio`: what keeps the page from being served is reported before anything is loaded."""

from __future__ import annotations

import socket
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


def test_a_token_that_the_server_does_not_know_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tokens"
    file.write_text("alice:a-token-that-is-long-enough")
    monkeypatch.setenv("GRAMLET_TOKEN", "wrong")
    assert main(["all", "--studio", "--token-file", str(file)]) == 2
    assert "GRAMLET_TOKEN, which is none of --token-file" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--port", "--metrics-port"])
def test_a_port_of_the_server_is_not_the_pages(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["all", "--studio", "--studio-port", "50999", flag, "50999"]) == 2
    assert f"--studio-port: 50999 is also {flag}: choose another" in capsys.readouterr().err


def test_a_port_that_is_taken_is_found_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["all", "--studio", "--studio-port", str(taken.getsockname()[1])]) == 2
    assert "choose another --studio-port" in capsys.readouterr().err
