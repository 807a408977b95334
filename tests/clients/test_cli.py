"""The command line against the real services."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gramlet.cli import __main__ as cli
from gramlet.cli import runs, stylize, stylize_set
from gramlet.cli.arguments import resume_line
from gramlet.cli.files import write_atomically
from gramlet.cli.terminal import Terminal
from gramlet.errors import InvalidInput, Unavailable
from gramlet.run.types import RunKind
from gramlet.stylize.inputs import StylizeOptions
from gramlet.stylize.types import Checkpoint, Iteration, Result, Started, StylizeSettings
from gramlet.stylize.v1 import stylize_pb2
from gramlet.stylize.wire import encode_event
from PIL import Image

from tests.clients.servers import STYLIZE, Script, free_port, serving
from tests.ctrl_c import GRAMLET

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


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


def events(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def format_of(path: Path) -> str | None:
    with Image.open(path) as image:
        return image.format


def test_stylize_writes_the_picture_and_shows_how_it_goes(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    code, said, noted = gramlet("stylize", picture, picture, "-o", out, "--size", 64, "--iterations", 4)
    assert code == 0
    with Image.open(out) as image:
        assert image.size == (48, 64)
    assert said.startswith(f"{out}: 4 iterations, loss ")
    assert "stylizing 4/4 48 x 64 px, loss " in noted


def test_json_is_one_object_an_event_and_nothing_else(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    out, preview, style = tmp_path / "out.webp", tmp_path / "preview.png", tmp_path / "style.png"
    with Image.open(picture) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(style)
    code, said, noted = gramlet(
        *("stylize", picture, style, "-o", out, "--size", 64, "--iterations", 6, "--json", "--preset", "classic"),
        *("--preview", preview, "--preview-every", 2, "--state-seconds", 1),
    )
    told = events(said)
    iterations = [event for event in told if event["event"] == "iteration"]
    assert (code, noted) == (0, "")
    assert [event["iteration"] for event in iterations] == [1, 2, 3, 4, 5, 6]
    assert all(event.keys() >= {"loss", "style_loss", "content_loss"} for event in iterations)
    assert told[0]["event"] == "started"
    assert told[0]["settings"]["preset"] == "classic"
    assert told[0]["loss"] is None  # JSON has no NaN
    assert told[-1]["event"] == "result"
    assert told[-1]["path"] == str(out)
    assert [event["path"] for event in told if event["event"] == "preview"][-1] == str(preview)
    assert (format_of(preview), format_of(out)) == ("PNG", "WEBP")
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_every_setting_is_a_flag(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    flags = {
        "preset": "classic",
        "size": 64,
        "iterations": 1,
        "content-stage": "layer1",
        "style-stages": "conv1=0.5,layer1",
        "content-weight": 2,
        "style-weight": 3,
        "total-variation-weight": 0.5,
        "gram-normalization": "positions",
        "stage-balance": "content",
        "seed": 7,
        "optimizer": "lbfgs",
        "learning-rate": 0.5,
        "history-size": 9,
        "line-search": "none",
        "scales": 1,
        "style-size": 48,
        "colors": "content-histogram",
        "momentum": 0.5,
    }
    arguments = [text for name, value in flags.items() for text in (f"--{name}", value)]
    code, said, _ = gramlet(
        *("stylize", picture, picture, "-o", tmp_path / "o.png", "--json", "--initial", "noise", "--antialiased"),
        *arguments,
    )
    assert code == 0
    settings = events(said)[0]["settings"]
    assert settings.pop("style_stages") == {"conv1": 0.5, "layer1": 1.0}
    assert settings.pop("initial") == "noise"
    assert settings.pop("antialiased") is True
    assert settings == {name.replace("-", "_"): value for name, value in flags.items() if name != "style-stages"}
    parser = argparse.ArgumentParser()
    stylize.add_arguments(parser)
    assert set(StylizeOptions.__annotations__) <= {action.dest for action in parser._actions}


def test_a_run_is_adjusted_by_its_name(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    base = ("stylize", picture, picture, "-o", tmp_path / "o.png", "--size", 64, "--iterations", 1)
    assert gramlet(*base, "--run-id", "to-adjust")[0] == 0
    code, _, noted = gramlet("adjust", "to-adjust", "--content-weight", 2)
    assert (code, noted.partition(":")[0]) == (1, "gramlet")
    assert "to-adjust is done" in noted
    assert gramlet("adjust", "to-adjust")[0] == 2
    assert gramlet("adjust", "nobodys", "--style-stages", "conv1=2")[0] == 2


def test_of_several_contents_each_has_its_file_and_a_bad_one_fails_alone(
    gramlet: Run, picture: Path, tmp_path: Path
) -> None:
    frames, out = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    out.mkdir()
    for name in ("a.png", "c.png"):
        (frames / name).write_bytes(picture.read_bytes())
    (frames / "b.png").write_bytes(b"no picture")
    how = ("--size", 64, "--iterations", 4, "--scales", 1, "--json")
    code, said, noted = gramlet("stylize", frames, picture, "-o", out, "--sequence", *how)
    assert code == 1
    assert "b.png: " in noted
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "c.png"]
    started = {Path(e["picture"]).name: e["settings"] for e in events(said) if e["event"] == "started"}
    assert [started[name]["initial"] for name in ("a.png", "c.png")] == ["content", "given"]
    code, _, _ = gramlet("stylize", frames / "a.png", picture, "--style", picture, "-o", out, *how)
    assert code == 0
    assert (out / "picture.png").exists()


def test_optimizers_are_compared_on_one_plot(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "curves.png"
    how = ("--preset", "classic", "--size", 64, "--iterations", 3, "--initial", "noise")
    code, said, _ = gramlet("stylize", picture, picture, "-o", out, "--compare", "lbfgs,gd=0.02,gd", *how, "--json")
    told = events(said)
    curves = told[-1]["curves"]
    assert (code, told[-1]["event"]) == (0, "compared")
    assert [curve["choice"] for curve in curves] == [
        {"optimizer": "lbfgs", "learning_rate": None},
        {"optimizer": "gd", "learning_rate": 0.02},
        {"optimizer": "gd", "learning_rate": None},
    ]
    for curve in curves:
        assert curve["evaluations"][0] == 1
        assert len(set(curve["evaluations"])) == len(curve["losses"]) == 3
        assert curve["losses"][0] == pytest.approx(curves[0]["losses"][0])  # all start at one picture
        assert curve["seconds"] == sorted(curve["seconds"])
    assert [event["optimizer"] for event in told if event["event"] == "result"] == ["lbfgs", "gd 0.02", "gd"]
    assert format_of(out) == "PNG"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--compare", "lbfgs,newton"], "--compare: 'newton' is none of lbfgs, adam, gd"),
        (["--compare", "lbfgs,lbfgs"], "--compare: lbfgs: named twice"),
        (["--compare", "lbfgs,gd=0"], "--compare: 0 is no learning rate: more than 0 and at most 1,000,000"),
        (["--compare", "lbfgs,gd=1e9"], "--compare: 1e+09 is no learning rate"),
        (["--compare", "lbfgs,gd=nan"], "--compare: nan is no learning rate"),
        (
            ["--compare", "adam", "--optimizer", "lbfgs"],
            "--optimizer: --compare names the optimizers",
        ),
        (["--compare", "adam", "--scales", "3"], "--scales: optimizers are compared at one scale"),
        (["--detach"], "--output: does not go with --detach"),
        (["--compare", "adam", "--detach"], "--detach: does not go with --compare"),
        (["--optimizer", "gd", "--momentum", "1"], "--momentum: a momentum is 0 or more"),
    ],
)
def test_what_cannot_be_compared_is_said(
    gramlet: Run, picture: Path, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    code, said, noted = gramlet("stylize", picture, picture, "-o", tmp_path / "o.png", *arguments)
    assert (code, said, noted.count("\n")) == (2, "", 1)
    assert noted.startswith(f"gramlet: {complaint}")


def test_a_sweep_writes_its_grid_and_its_cells(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    grid, cells = tmp_path / "grid.png", tmp_path / "cells"
    cells.mkdir()
    how = ("--size", 64, "--iterations", 1, "--scales", 1, "--ratios", "0.1,10", "--deepest", "maxpool,layer1")
    code, said, _ = gramlet(
        "sweep", picture, picture, "-o", grid, "--cells", cells, "--run-id", "swept", *how, "--json"
    )
    assert code == 0
    told = events(said)
    assert [event["event"] for event in (told[0], told[1], told[-1])] == ["started", "cell", "result"]
    assert told[1]["happened"] == "started"
    names = {f"{stage}-{ratio}.png" for stage in ("maxpool", "layer1") for ratio in ("0.1", "10")}
    assert {path.name for path in cells.iterdir()} == names
    first = grid.read_bytes()
    assert gramlet("sweep", "--resume", "swept", "-o", grid)[0] == 0
    assert grid.read_bytes() == first
    assert gramlet("sweep", picture, picture, "-o", grid, "--deepest", "layer9")[0] == 2


def test_styles_are_blended(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    base = ("stylize", picture, picture, picture, "-o", tmp_path / "o.png", "--size", 64, "--iterations", 1)
    assert gramlet(*base, "--blend", "2,1")[0] == 0
    assert gramlet(*base, "--blend", "2")[::2] == (2, "gramlet: --blend: 1 share for 2 styles\n")


def test_styles_have_regions(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    Image.fromarray(np.tri(8, 6, dtype=bool)).save(mask)
    base = ("stylize", picture, picture, picture, "-o", tmp_path / "o.png", "--size", 64, "--iterations", 1)
    both = ("--content-region", mask, "--content-region", "-", "--style-region", "-", "--style-region", mask)
    assert gramlet(*base, *both)[0] == 0
    assert gramlet(*base, *both[:2])[::2] == (2, "gramlet: --content-region: 1 mask for 2 styles\n")
    Image.new("L", (8, 8), 255).save(mask)
    assert "--content-region: the mask is 8 x 8" in gramlet(*base, *both)[2]


def test_a_run_is_resumed_by_its_name(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.png"
    base = ("stylize", picture, picture, "-o", out, "--size", 64, "--iterations", 3)
    assert gramlet(*base, "--run-id", "by-its-name")[0] == 0
    first = out.read_bytes()
    code, said, _ = gramlet("stylize", "--resume", "by-its-name", "-o", out, "--json")
    assert code == 0
    assert [event["event"] for event in events(said) if event["event"] == "iteration"] == []
    assert out.read_bytes() == first


def test_a_run_is_no_filter_of_a_list(gramlet: Run) -> None:
    assert gramlet("runs", "list", "some")[0] == 2


@pytest.mark.parametrize("kind", [RunKind.EMBED, RunKind.TRAIN])
def test_a_run_without_a_picture_is_not_watched_for_one(kind: RunKind, tmp_path: Path) -> None:
    arguments = cli.make_parser().parse(["runs", "watch", "r", "-o", str(tmp_path / "o.png")])
    client: Any = SimpleNamespace(run=lambda *_: SimpleNamespace(info=lambda: SimpleNamespace(kind=kind)))
    with pytest.raises(InvalidInput, match=f"a run of {kind.value} has no picture as its result"):
        runs.run(arguments, client, Terminal())


@pytest.mark.parametrize("command", ["stylize", "embed", "train"])
def test_settings_beside_resume_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([command, "--resume", "mine", "--size", "64", "--seed", "3", "--server", "localhost:1"])
    assert "--resume: the run keeps its own settings: leave out --size, --seed" in capsys.readouterr().err


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


def test_a_closed_directory_is_found_out_before_work_begins(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    code, _, noted = gramlet("stylize", picture, picture, "-o", tmp_path / "o.png")
    assert code == 2
    assert "no permission to write" in noted


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


def test_features_are_written_as_arrays(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.npz"
    code, said, _ = gramlet("features", picture, "--stages", "conv1,layer1", "--gram", "--pooled", "-o", out)
    assert code == 0
    assert said == (f"{out}: conv1.gram (64, 64), layer1.gram (256, 256), conv1.pooled (64,), layer1.pooled (256,)\n")
    with np.load(out) as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {
            "conv1.gram": (64, 64),
            "layer1.gram": (256, 256),
            "conv1.pooled": (64,),
            "layer1.pooled": (256,),
        }


def test_of_several_pictures_each_has_its_file_and_a_bad_one_fails_alone(
    gramlet: Run, picture: Path, tmp_path: Path
) -> None:
    bad, out = tmp_path / "bad.png", tmp_path / "out"
    bad.write_bytes(b"no picture")
    out.mkdir()
    code, said, noted = gramlet("features", bad, picture, "--stages", "conv1", "--size", 32, "-o", out, "--json")
    assert code == 1
    assert [event["event"] for event in events(said)] == ["error", "features"]
    assert f"{bad}: not a picture" in noted
    assert [path.name for path in out.iterdir()] == ["picture.png.npz"]


def test_of_one_bad_picture_the_error_is_the_commands(gramlet: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    code, _, noted = gramlet("features", bad, "--stages", "conv1", "-o", tmp_path / "f.npz")
    assert code == 2
    assert noted.startswith(f"gramlet: {bad}: not a picture")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"junk", "is not a file that numpy.save wrote"),
        (np.zeros(30), "must hold an array of numbers (N, n), not float64 (30,)"),
        (np.array([["a"]]), "must hold an array of numbers (N, n), not <U1 (1, 1)"),
    ],
)
def test_a_file_that_holds_no_vectors_is_refused_with_the_reason(
    gramlet: Run, tmp_path: Path, value: Any, reason: str
) -> None:
    path = tmp_path / "v.npy"
    if isinstance(value, bytes):
        path.write_bytes(value)
    else:
        np.save(path, value)
    assert gramlet("embed", path, "-o", tmp_path / "m.png") == (2, "", f"gramlet: pictures: {path} {reason}\n")


def test_what_a_folder_holds_beside_pictures_is_said_by_every_command(
    gramlet: Run, picture: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "0.png").write_bytes(picture.read_bytes())
    (folder / "a" / "notes.txt").write_text("notes")
    for command in (
        ["train", folder, "--name", "n"],
        ["embed", folder, "--size", 64],
        ["features", folder, "--stages", "conv1", "--pooled", "-o", tmp_path / "f"],
        ["stylize", folder, "--style", picture, "-o", tmp_path / "o", "--size", 64, "--iterations", 1],
    ):
        _, _, noted = gramlet(*command)
        assert "a/notes.txt" in noted, command[0]


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
        (["train", ".", "--name", "n", "--report", "{p}"], "--report: {p} is a file, not a folder"),
    ],
)
def test_a_wrong_value_is_answered_in_one_line_with_what_is_right(
    gramlet: Run, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, noted = gramlet(*(word.format(p=picture) for word in arguments))
    assert (code, said, noted.count("\n")) == (2, "", 1)
    assert line.format(p=picture) in noted


def test_status_shows_services_network_and_load(gramlet: Run) -> None:
    code, said, _ = gramlet("status")
    assert code == 0
    for word in ("feature", "stylize", "serving", "not offered", "resnet50", "random:0", "classic", "queued"):
        assert word in said
    code, said, _ = gramlet("status", "--json")
    status = events(said)[0]
    assert status["services"] == {
        "feature": "serving",
        "stylize": "serving",
        "train": "not offered",
        "embed": "not offered",
    }
    assert status["model"]["backbone"] == "resnet50"


def test_status_waits_until_every_service_serves(gramlet: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Any] = []

    def lack(report: Any) -> None:
        report(Unavailable("the store fails"))
        reports.append(report)

    script = Script(GetStatus=[lambda *_: stylize_pb2.GetStatusResponse()])
    with serving({STYLIZE: script}, on_readiness=lack) as server:
        address = f"127.0.0.1:{server.port}"
        code, said, _ = gramlet("status", "--server", address)
        assert code == 1
        assert "not serving" in said
        assert "the store fails" in said
        assert gramlet("status", "--server", address, "--wait", "0")[0] == 1
        monkeypatch.setattr("gramlet.cli.status.time.sleep", lambda _: reports[0](None))
        assert gramlet("status", "--server", address, "--wait")[0] == 0


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "o.png"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_mode_that_any_new_file_has(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.png", b"new")
    (tmp_path / "b.png").write_bytes(b"new")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b.png").stat().st_mode


SMALL = ("--size", 48, "--iterations", 1, "--scales", 1)


def test_the_longest_name_that_the_file_system_takes_is_written(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / ("x" * 251 + ".png")
    assert gramlet("stylize", picture, picture, "-o", out, *SMALL)[0] == 0
    assert out.exists()


def test_a_result_is_as_transparent_as_its_content_and_on_white_where_the_format_is_opaque(
    gramlet: Run, picture: Path, tmp_path: Path
) -> None:
    with Image.open(picture) as image:
        logo = image.convert("RGBA")
    logo.paste((0, 0, 0, 0), (0, 0, 24, 64))
    logo.save(tmp_path / "logo.png")
    for name in ("out.png", "out.jpg"):
        assert (
            gramlet("stylize", tmp_path / "logo.png", picture, "-o", tmp_path / name, "--size", 64, *SMALL[2:])[0] == 0
        )
    with Image.open(tmp_path / "out.png") as image:
        assert (image.mode, image.size) == ("RGBA", (48, 64))
        np.testing.assert_array_equal(np.asarray(image)[:, :, 3], np.asarray(logo)[:, :, 3])
    with Image.open(tmp_path / "out.jpg") as image:
        assert np.asarray(image)[:, :16].min() > 240


def test_the_folder_of_an_output_is_made(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "a/b/out.png"
    assert gramlet("stylize", picture, picture, "-o", out, *SMALL)[0] == 0
    assert out.exists()


def test_an_input_is_never_overwritten(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    before = picture.read_bytes()
    link, style = tmp_path / "link.png", tmp_path / "style.png"
    link.symlink_to(picture)
    style.write_bytes(before)
    for out in (picture, link):
        code, _, noted = gramlet("stylize", picture, style, "-o", out, *SMALL)
        assert (code, "is one of the inputs or another output: choose another name" in noted) == (2, True)
    code, _, noted = gramlet("stylize", picture, style, "-o", tmp_path / "o.png", "--preview", style, *SMALL)
    assert (code, "is one of the inputs" in noted) == (2, True)
    code, _, noted = gramlet("stylize", picture, style, "--style", style, "-o", tmp_path, *SMALL)
    assert code == 1
    assert noted.count("is one of the inputs") == 2
    for flag in ("--content-region", "--style-region", "--initial"):
        for output in ("-o", "--preview"):
            code, _, noted = gramlet("stylize", picture, picture, "-o", tmp_path / "o.png", flag, style, output, style)
            assert (code, "is one of the inputs" in noted) == (2, True)
    assert picture.read_bytes() == style.read_bytes() == before


def test_no_picture_of_a_folder_is_overwritten_and_no_output_by_another(gramlet: Run, picture: Path) -> None:
    folder, before = picture.parent, picture.read_bytes()
    new = folder / "new.png"
    for outputs in (("-o", picture), ("--grid", picture), ("-o", new, "--grid", new)):
        code, _, noted = gramlet("embed", folder, *outputs)
        assert (code, "is one of the inputs or another output: choose another name" in noted) == (2, True)
    heat_map = folder / f"0001-{picture.stem}.png"
    heat_map.write_bytes(before)
    code, _, noted = gramlet("predict", "head", picture, heat_map, "--heat-maps", folder)
    assert (code, "is one of the inputs" in noted) == (2, True)
    cell = folder / "layer1-1.png"
    cell.write_bytes(before)
    of_cell = ("--cells", folder, "--ratios", 1, "--deepest", "layer1", "--size", 64, "--iterations", 1)
    for content, output in ((cell, new), (picture, cell)):
        code, _, noted = gramlet("sweep", content, picture, "-o", output, *of_cell)
        assert (code, "--cells: " in noted, "is one of the inputs" in noted) == (2, True, True)
    assert picture.read_bytes() == heat_map.read_bytes() == cell.read_bytes() == before


@pytest.mark.parametrize("out", ["folder", "folder/out", "link"])
def test_a_folder_is_not_painted_into_itself(gramlet: Run, picture: Path, tmp_path: Path, out: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture.read_bytes())
    (tmp_path / "link").symlink_to(folder)
    code, _, noted = gramlet("stylize", folder, picture, "-o", tmp_path / out, *SMALL)
    assert (code, "whose pictures are read: choose a folder outside of it" in noted) == (2, True)
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_results_lie_as_their_pictures_do_and_differ_as_they_do(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "b/1.jpeg"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.read_bytes())
    assert gramlet("stylize", tmp_path / "in", picture, "-o", tmp_path / "out", *SMALL)[0] == 0
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["a/1.png", "b/1.jpeg.png", "b/1.png.png"]
    assert gramlet("features", tmp_path / "in", "-o", tmp_path / "npz", "--stages", "conv1", "--pooled")[0] == 0
    assert len(list((tmp_path / "npz").rglob("*.npz"))) == 3


def test_a_result_that_cannot_be_written_costs_one_picture(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    long, short = tmp_path / ("x" * 254), tmp_path / "short.png"
    for path in (long, short):
        path.write_bytes(picture.read_bytes())
    out = tmp_path / "out"
    code, said, noted = gramlet("stylize", long, short, "--style", picture, "-o", out, *SMALL, "--json")
    assert code == 1
    assert "File name too long" in noted
    assert [path.name for path in out.iterdir()] == ["short.png"]
    assert events(said)[0]["event"] == "error"
    (out / "short.png").unlink()
    (out / "short.png").mkdir()
    code, said, noted = gramlet("stylize", long, short, "--style", picture, "-o", out, *SMALL)
    assert (code, "short.png is a folder" in noted) == (1, True)


def test_what_is_left_out_of_a_folder_is_said(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "scan.jfif").write_bytes(picture.read_bytes())
    (folder / "notes.txt").write_text("notes")
    (folder / "._scan.jfif").write_bytes(b"junk")
    code, said, noted = gramlet("features", folder, "-o", tmp_path / "out", "--stages", "conv1", "--pooled")
    assert (code, said.count("\n")) == (0, 1)
    assert f"left out of {folder}: notes.txt: not a picture" in noted or "notes.txt: not a picture" in noted
    assert "._scan.jfif: hidden" in noted


# --- words of users on a terminal ---


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
    ("arguments", "advice"),
    [
        (("stylise", "a", "b"), "did you mean 'stylize'?"),
        (
            ("stylize", "a", "b", "-o", "o.png", "--itertions", "5"),
            "unrecognized: --itertions 5: did you mean '--iterations'?",
        ),
        (("stylize", "a", "b", "-o", "o.png", "--colors", "styel"), "did you mean 'style'?"),
        (("features", "a", "-o", "o.npz", "--stages", "conv1", "--element-type=float61"), "did you mean 'float16'?"),
        (("train", "a", "--name", "n", "--kind", "mpl"), "did you mean 'mlp'?"),
        (("train", "a", "--name", "n", "--kind", "cnn"), "'cnn' is none of mlp, linear"),
    ],
)
def test_a_misspelled_word_is_answered_with_the_one_that_is_like_it(
    gramlet: Run, arguments: tuple[str, ...], advice: str
) -> None:
    code, said, noted = gramlet(*arguments)
    assert (code, said) == (2, "")
    assert advice in noted
    assert noted.count("\n") == 1


def endless(request: Any, context: Any) -> Iterator[Any]:
    """A run that has a checkpoint, and goes on until it is cancelled."""
    yield encode_event(Started(height=4, width=4, settings=StylizeSettings(iterations=999)), request.run_id)
    yield encode_event(Checkpoint(iteration=1), request.run_id)
    number = 0
    while context.is_active():
        number += 1
        event = Iteration(iteration=number, loss=1.0, style_loss=0.0, content_loss=0.0)
        yield encode_event(event, request.run_id)


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


def test_presets_are_shown_with_the_value_of_every_setting(gramlet: Run) -> None:
    code, said, _ = gramlet("presets")
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.startswith("--")}
    assert rows.keys() == {f"--{name.replace('_', '-')}" for name in vars(StylizeSettings())} - {"--preset"}
    assert rows["--style-weight"] == ["1", "1000"]
    assert rows["--antialiased"] == ["yes", "no"]
    code, said, _ = gramlet("presets", "classic", "--json")
    (event,) = events(said)
    assert (event["name"], event["settings"]["iterations"]) == ("classic", 300)
    code, _, noted = gramlet("presets", "clasic")
    assert (code, "did you mean 'classic'?" in noted) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["stylise"], "stylize"),
        (["stylize", "--iteratoins=3"], "--iterations"),
        (["stylize", "{picture}", "{picture}", "-o", "x.png", "--preset", "clasic"], "classic"),
        (["features", "{picture}", "-o", "x.npz", "--stages", "layr1"], "layer1"),
        (["embed", "{picture}", "--method", "tsn"], "tsne"),
    ],
)
def test_a_wrong_word_is_answered_with_what_may_be_meant(
    gramlet: Run, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, noted = gramlet(*(word.format(picture=picture) for word in arguments))
    assert (code, said) == (2, "")
    assert noted.count("\n") == 1
    assert f"did you mean '{meant}'?" in noted


def test_a_scale_and_its_previews_are_told_by_their_size(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    arguments = ["stylize", picture, picture, "-o", tmp_path / "o.png", "--size", 128, "--iterations", 6]
    code, _, noted = gramlet(*arguments, "--scales", 2)
    assert code == 0
    assert [line for line in noted.splitlines() if line.startswith("gramlet:")] == [
        "gramlet: 48 x 64 px from iteration 1 on",
        "gramlet: 96 x 128 px from iteration 5 on, where the loss jumps",
    ]
    _, said, _ = gramlet(*arguments, "--scales", 2, "--preview", tmp_path / "p.png", "--preview-every", 1, "--json")
    previews = {(event["width"], event["height"]) for event in events(said) if event["event"] == "preview"}
    assert previews <= {(48, 64), (96, 128)}
    assert previews


def test_the_flag_of_0_1_for_checkpoints_is_answered(gramlet: Run, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.png"
    code, _, noted = gramlet(
        "stylize", picture, picture, "-o", out, "--size", 64, "--iterations", 1, "--checkpoint-every", 5
    )
    assert code == 0
    assert "--checkpoint-every has no effect any more: checkpoints go by time, see --state-seconds" in noted


def command(server: Any, picture: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    arguments = ["stylize", str(picture), str(picture), "-o", str(out), "--server", f"127.0.0.1:{server.port}"]
    return subprocess.Popen(
        [*GRAMLET, *arguments, "--run-id", "mine", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_ends_with_130_and_the_way_to_go_on(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.png"
    with serving({STYLIZE: Script(Stylize=[endless])}) as server, command(server, picture, out, "--json") as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["event"] != "iteration":
            pass
        process.send_signal(signal.SIGINT)
        _, noted = process.communicate(timeout=60)
    assert process.returncode == 130
    assert noted.splitlines() == [
        f"gramlet: go on with: gramlet stylize --resume mine -o {out} --json --server 127.0.0.1:{server.port}",
        "gramlet: interrupted",
    ]
    assert not out.exists()


def test_ctrl_c_among_several_pictures_says_which_are_painted(
    gramlet: Run, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for name in ("a.png", "b.png"):
        (frames / name).write_bytes(picture.read_bytes())
    show = stylize_set._Painting.show

    def interrupted(self: Any, step: Any, meter: Any) -> None:
        if step.index:
            raise KeyboardInterrupt
        show(self, step, meter)

    monkeypatch.setattr(stylize_set._Painting, "show", interrupted)
    code, _, noted = gramlet("stylize", frames, picture, "-o", tmp_path / "out", "--sequence", *SMALL)
    assert (code, noted.splitlines()[-1]) == (130, "gramlet: interrupted")
    painted = tmp_path / "out" / "a.png"
    assert f"1 of 2 pictures painted, the last is {painted}: go on with the frames after it and --initial" in noted


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(picture: Path, tmp_path: Path) -> None:
    with (
        serving({STYLIZE: Script(Stylize=[endless])}) as server,
        command(server, picture, tmp_path / "o.png", "--json") as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""


def test_a_lost_server_is_told_on_stderr_and_the_run_goes_on(
    gramlet: Run, picture: Path, tmp_path: Path, png: bytes
) -> None:
    def broken(request: Any, context: Any) -> Iterator[Any]:
        yield encode_event(Started(height=4, width=4, settings=StylizeSettings(iterations=1)), request.run_id)
        raise Unavailable("going away")

    def resumed(request: Any, context: Any) -> Iterator[Any]:
        yield encode_event(Result(iteration=1, loss=1.0, png=png), request.resume_run_id)

    with serving({STYLIZE: Script(Stylize=[broken, resumed])}) as server:
        code, said, noted = gramlet(
            *("stylize", picture, picture, "-o", tmp_path / "o.png", "--server", f"127.0.0.1:{server.port}", "--json")
        )
    assert code == 0
    assert [event["event"] for event in events(said)] == ["started", "reconnecting", "result"]
    assert "lost its server: going away" in noted


def test_the_wait_for_something_that_accepts_and_says_nothing_ends(gramlet: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system accepts for it
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        code, _, noted = gramlet("status", "--wait", 1, "--server", address)
    assert (code, noted) == (1, f"gramlet: no answer from {address} in 1 s\n")


@pytest.mark.parametrize("program", ["clients/gramlet_program.py", "services/gramlet_server_program.py"])
def test_ctrl_c_while_a_program_is_imported_prints_no_traceback(program: str, tmp_path: Path) -> None:
    package = tmp_path / Path(program).stem.removesuffix("_program")
    package.mkdir()
    (package / "__init__.py").write_text("import os\nos.kill(os.getpid(), 2)\nprint('went on')\n")
    start = (
        "import runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"runpy.run_path({str(ROOT / program)!r})['main']()\n"
    )
    ended = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")
