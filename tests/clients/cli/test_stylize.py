"""`gramlet stylize`, `sweep`, `adjust` and `presets` against the real services."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from gramlet.cli import stylize
from gramlet.stylize.inputs import StylizeOptions
from gramlet.stylize.types import StylizeSettings
from PIL import Image

from tests.clients.cli.commands import Run, events, format_of


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
