"""A command line that is wrong is answered in one line, with what is right, before any work."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gramlet.cli import __main__ as cli
from gramlet.cli import runs
from gramlet.cli.terminal import Terminal
from gramlet.errors import InvalidInput
from gramlet.run.types import RunKind

from tests.clients.cli.commands import Run, events
from tests.clients.servers import free_port


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"style": "/nowhere.jpg"}, "style[0]: there is no file /nowhere.jpg"),
        ({"--output": "/dev/null/o.png"}, "--output: cannot write to /dev/null: "),
        ({"--output": "x" * 252 + ".png"}, "--output: "),
        ({"--output": "o.xyz"}, "--output: o.xyz must end in one of .png, .jpg"),
        ({"--output": "/"}, "--output: / must end in"),
        ({"--preview": "p.xyz"}, "--preview: p.xyz must end in"),
        ({"--size": "0"}, "--size: must be a positive whole number"),
        ({"--resume": "r"}, "--resume: a resumed run has its pictures already"),
        ({"--preset": "cubist"}, "--preset: resnet50 has no preset 'cubist'"),
        ({"--server": "http://localhost"}, "--server: http://localhost is a URL"),
        ({"--token-file": "/nowhere"}, "--token-file: cannot read /nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    gramlet: Run, picture: Path, tmp_path: Path, change: dict[str, str], complaint: str
) -> None:
    options = {"--output": str(tmp_path / "o.png")} | {name: text for name, text in change.items() if name != "style"}
    arguments = [text for option in options.items() for text in option]
    code, said, noted = gramlet("stylize", picture, change.get("style", picture), *arguments)
    assert (code, said) == (2, "")
    assert noted.startswith(f"gramlet: {complaint}")
    assert noted.count("\n") == 1
    assert not (tmp_path / "o.png").exists()


def test_a_wrong_command_line_is_exit_code_2(gramlet: Run) -> None:
    assert gramlet("stylize", "a", "b")[0] == 2
    assert gramlet("paint")[0] == 2
    assert gramlet()[0] == 2


def test_with_json_the_error_is_an_event_as_well(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    code, said, _ = gramlet("stylize", picture, "/nowhere.jpg", "-o", tmp_path / "o.png", "--json")
    assert code == 2
    assert events(said) == [
        {"event": "error", "code": "NOT_FOUND", "message": "there is no file /nowhere.jpg", "field": "style[0]"}
    ]


def test_no_server_is_one_line_and_exit_code_1(gramlet: Run) -> None:
    code, said, noted = gramlet("status", "--server", f"127.0.0.1:{free_port()}")
    assert (code, said) == (1, "")
    assert "start one with `gramlet-server all`" in noted
    assert noted.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["stylize", "{p}", "{p}", "-o", "o.png", "--size", "1e3"], "--size: must be a whole number, not '1e3'"),
        (["stylize", "{p}", "{p}", "-o", "o.png", "--style-weight", "x"], "--style-weight: must be a number, not 'x'"),
        (["stylize", "{p}", "{p}", "-o", "o.png", "--style-stages", ""], "--style-stages: must be names with commas"),
        (["stylize", "{p}", "{p}", "-o", "o.png", "--style-stages", "a=1,a=2"], "--style-stages: must be names with"),
        (
            ["stylize", "*.jpg", "--style", "{p}", "-o", "out"],
            "there is no file *.jpg: patterns are filled in",
        ),
        (["stylize", "{p}", "{p}", "-o", "o.png", "--compare", "gd=x"], "--compare: must be optimizers with commas"),
        (["runs", "list", "--limit", "-3"], "--limit: must be a whole number, 0 or more, not '-3'"),
        (["embed", "{p}", "--width", "5"], "--width: must be between 200 and 8000 pixels"),
        (["features", "{p}", "{p}", "--stages", "conv1", "-o", "out"], "pictures: {p} is given twice: name it once"),
        (["train", "x", "--name", "n", "--report", "{p}"], "--report: {p} is a file, not a folder"),
    ],
)
def test_a_wrong_value_is_answered_in_one_line_with_what_is_right(
    gramlet: Run, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, noted = gramlet(*(word.format(p=picture) for word in arguments))
    assert (code, said, noted.count("\n")) == (2, "", 1)
    assert line.format(p=picture) in noted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("stylize p.png p.png -o o.png --content-weight -1", "--content-weight: -1 is not between"),
        ("stylize p.png p.png -o o.png --size 0", "--size: must be a positive whole number"),
        ("stylize p.png p.png -o o.png --preset baroque", "--preset: "),
        ("stylize p.png p.png -o o.png --style-stages layer9", "--style-stages: "),
        ("stylize p.png none.png -o o.png", "style[0]: there is no file none.png"),
        ("stylize p.png --style none.png -o o.png", "--style: there is no file none.png"),
        ("stylize p.png p.png -o o.png --preview-every 0", "--preview-every: must be a whole number, 1 or more"),
        ("stylize p.png p.png -o o.png --preview-every 5", "--preview-every: goes with --preview"),
        ("stylize p.png p.png -o ''", "-o/--output: must be a path, not ''"),
        ("stylize --resume nobody -o o.png", "--resume: "),
        ("stylize p.png p.png -o o.png --run-id 'a b'", "--run-id: "),
        ("sweep p.png p.png -o o.png --deepest layer9", "--deepest: "),
        ("adjust nobody --content-weight 1", "run: "),
        ("see layer3:0-9999999999999 -o o.png", "what: layer3 has no channel 9999999999999"),
        ("see layer3:5-3 -o o.png", "what: layer3:5-3 runs backwards"),
        ("see layer1:5000 -o o.png", "what: layer1 has "),
        ("see layer1:1 -o o.png --in x --patches 0", "--patches: without patches no picture is looked at"),
        ("runs stop nobody -o o.png", "--output: goes with show and watch"),
        ("runs show nobody --limit 2", "--limit: goes with list"),
        ("heads list -o o.onnx", "--output: goes with export"),
        ("heads show bees --with-backbone", "--with-backbone: goes with export"),
        ("maps list nobody", "map: goes with show, draw, place and delete"),
        ("maps show nobody --title t", "--title: goes with draw"),
        ("maps place nobody p.png -o o.png", "--output: goes with draw"),
        ("maps show nobody p.png", "pictures: goes with place"),
        ("train x --name n --report x/report", "--report: x/report is in x, whose pictures are read"),
        ("predict bees x --heat-maps x", "--heat-maps: x is in x, whose pictures are read"),
        ("features p.png -o o.npz --stages layer9", "--stages: "),
        ("features p.png p2.png -o two.npz --stages conv1", "--output: two.npz is the name of a file: a folder"),
        ("features p.png x/p.png -o out --stages conv1", "pictures: p.png and x/p.png have one name, for one file in"),
        ("embed x -o z.html", "--output: z.html must end in one of .png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff; .html"),
        ("status --server 'host]:1'", "--server: host]:1 is not an address"),
        ("status --wait -1", "--wait: must be a number of seconds"),
    ],
)
def test_errors_name_what_was_typed(
    gramlet: Run, picture: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(picture.parent)
    (picture.parent / "x").mkdir()
    for name in ("p.png", "p2.png", "x/p.png"):
        (picture.parent / name).write_bytes(picture.read_bytes())
    code, _, noted = gramlet(*shlex.split(arguments))
    assert code in (1, 2)
    assert message in noted.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("stylise", "did you mean 'stylize'?"),
        ("stylise a b", "did you mean 'stylize'?"),
        ("stylize --iteratoins=3", "did you mean '--iterations'?"),
        ("stylize a b -o o.png --itertions 5", "unrecognized: --itertions 5: did you mean '--iterations'?"),
        ("stylize a b -o o.png --colors styel", "did you mean 'style'?"),
        ("stylize {picture} {picture} -o x.png --preset clasic", "did you mean 'classic'?"),
        ("features a -o o.npz --stages conv1 --element-type=float61", "did you mean 'float16'?"),
        ("features {picture} -o x.npz --stages layr1", "did you mean 'layer1'?"),
        ("embed {picture} --method tsn", "did you mean 'tsne'?"),
        ("train a --name n --kind mpl", "did you mean 'mlp'?"),
        ("train a --name n --kind cnn", "'cnn' is none of mlp, linear"),
    ],
)
def test_a_misspelled_word_is_answered_with_the_one_that_is_like_it(
    gramlet: Run, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, advice: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, noted = gramlet(*(word.format(picture=picture) for word in command.split()))
    assert (code, said, noted.count("\n")) == (2, "", 1)
    assert advice in noted


def test_a_run_is_no_filter_of_a_list(gramlet: Run) -> None:
    assert gramlet("runs", "list", "some")[0] == 2


@pytest.mark.parametrize("kind", [RunKind.EMBED, RunKind.TRAIN])
def test_a_run_without_a_picture_is_not_watched_for_one(kind: RunKind, tmp_path: Path) -> None:
    arguments = cli.make_parser().parse(["runs", "watch", "r", "-o", str(tmp_path / "o.png")])
    client: Any = SimpleNamespace(run=lambda *_: SimpleNamespace(info=lambda: SimpleNamespace(kind=kind)))
    with pytest.raises(InvalidInput, match=f"a run of {kind.value} has no picture as its result"):
        runs.run(arguments, client, Terminal())
