"""Names are shown on every terminal as they are, or as escapes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from gramlet.cli.terminal import Terminal

from tests.clients.cli.commands import Run
from tests.ctrl_c import GRAMLET


def test_names_are_shown_as_they_are_or_escaped(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    shown = {
        "scan:100:left.png": "scan:100:left.png",
        "[bold]a.png": "[bold]a.png",
        "\x1b[31mred.png": "\\x1b[31mred.png",
        os.fsdecode(b"caf\xe9.png"): "caf\\xe9.png",
        "猫 👩\u200d🎨.png": "猫 👩\u200d🎨.png",
        "a\nb.png": "a\\nb.png",
    }
    for name in shown:
        (tmp_path / name).write_bytes(picture.read_bytes())
    how = ("--stages", "conv1", "--pooled", "-o", tmp_path / "out")
    code, said, noted = gramlet("features", *(tmp_path / name for name in shown), tmp_path / "missing\x07.png", *how)
    assert code == 1
    assert [line.partition(".npz: ")[0].rpartition("/")[2] for line in said.splitlines()] == [*shown.values()]
    assert "there is no file" in noted
    assert "missing\\x07.png" in noted


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_terminal_of_any_code_page_gets_escapes_and_no_traceback(
    address: str, picture: Path, tmp_path: Path, encoding: str
) -> None:
    names = ["猫.png", os.fsdecode(b"caf\xe9.png")]
    for name in names:
        (tmp_path / name).write_bytes(picture.read_bytes())
    ended = subprocess.run(
        [*GRAMLET, "features", *names, "none.png", "--stages", "conv1", "--pooled", "-o", "out", "--server", address],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert ended.returncode == 1
    cat = "猫" if encoding == "utf-8" else "\\u732b"
    assert ended.stdout.decode(encoding).splitlines() == [
        f"out/{name}.png.npz: conv1.pooled (64,)" for name in (cat, "caf\\xe9")
    ]
    assert "gramlet: none.png: there is no file none.png" in ended.stderr.decode(encoding).splitlines()


def test_a_narrow_terminal_cuts_the_text_of_a_progress_bar_and_not_its_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    with Terminal().progress("stylizing") as meter:
        meter.update(280, 300, "64 x 48 px, loss 0.6442, run e38dabfb497827b9")
    shown = capsys.readouterr().err
    assert "280/300" in shown
    assert "64 x" in shown
    assert "…" in shown
