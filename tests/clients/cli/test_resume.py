"""Flags without effect beside --resume are refused; the hint of an interrupted command has all the others."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from gramlet.cli import __main__ as cli
from gramlet.cli.arguments import resume_line

from tests.clients.cli.commands import Run


@pytest.mark.parametrize("command", ["stylize", "embed", "train"])
def test_settings_beside_resume_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([command, "--resume", "mine", "--size", "64", "--seed", "3", "--server", "localhost:1"])
    assert "--resume: the run keeps its own settings: leave out --size, --seed" in capsys.readouterr().err


def test_hints_are_quoted_for_the_shell() -> None:
    arguments = cli.make_parser().parse(
        ["stylize", "a.png", "b.png", "-o", "my out/r.png", "--server", "h:1", "--token-file", "my token", "--tls"]
    )
    line = resume_line(arguments, "mine")
    assert line == "gramlet stylize --resume mine -o 'my out/r.png' --server h:1 --token-file 'my token' --tls"
    assert vars(cli.make_parser().parse(shlex.split(line)[1:]))["output"] == Path("my out/r.png")


@pytest.mark.parametrize(
    ("command", "words", "flags"),
    [
        (
            "stylize a b --size 9",
            "",
            "-o o.png --preview p.png --preview-every 5 --state-seconds 2.0 --json --weights-digest d --wait 9.0",
        ),
        ("sweep a b --ratios 1,2", "", "-o o.png --cells c --json --timeout 5.0"),
        ("train pics --name n --epochs 3 --keep-on-cancel", "pics", "--report r --json --wait 5.0"),
        ("embed pics --method pca", "", "-o o.png --html h.html --width 900 --title 'two words' --coordinates"),
    ],
)
def test_the_hint_has_every_flag_that_has_an_effect_beside_resume(command: str, words: str, flags: str) -> None:
    parser = cli.make_parser()
    arguments = parser.parse([*command.split(), *shlex.split(flags), "--server", "h:1"])
    line = shlex.split(resume_line(arguments, "mine", *words.split()))
    assert line[: 4 + len(words.split())] == ["gramlet", arguments.command, *words.split(), "--resume", "mine"]
    resumed = parser.parse(line[1:])
    assert resumed.given == {"resume": ["--resume", "mine"]} | {
        dest: given for dest, given in arguments.given.items() if given[0] in f"{flags} --server"
    }
    assert all(word in line for word in shlex.split(flags))


@pytest.mark.parametrize(
    "arguments",
    [
        ("stylize", "-o", "o.png", "--run-id", "other"),
        ("stylize", "-o", "o.png", "--style", "a.png"),
        ("stylize", "-o", "o.png", "--keep-inputs"),
        ("sweep", "-o", "o.png", "--ratios", "1"),
        ("train", "--name", "other"),
        ("train", "--keep-on-cancel"),
        ("embed", "--map-id", "other"),
    ],
)
def test_flags_without_effect_beside_resume_are_refused(gramlet: Run, arguments: tuple[str, ...]) -> None:
    code, _, noted = gramlet(*arguments, "--resume", "mine")
    assert code == 2
    flag = [word for word in arguments if word.startswith("--")][-1]
    assert f"--resume: the run keeps its own settings: leave out {flag}" in noted
