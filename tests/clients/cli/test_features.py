"""`gramlet features` against the real service, and what every command says of folders and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients.cli.commands import Run, events


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
