"""Outputs are written whole, where they were asked for, and never over an input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramlet.cli.files import write_atomically
from gramlet.embed.v1.embed_pb2 import DrawMapResponse
from gramlet.stylize.types import Result
from gramlet.stylize.wire import encode_event
from PIL import Image

from tests.clients.cli.commands import SMALL, Run, events
from tests.clients.servers import EMBED, STYLIZE, Script, serving


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


@pytest.mark.parametrize("name", ["o.png", "o.jpg"])
def test_what_a_server_sends_in_place_of_a_picture_is_not_written(
    gramlet: Run, picture: Path, tmp_path: Path, name: str
) -> None:
    def answer(request: Any, context: Any) -> Iterator[Any]:
        yield encode_event(Result(iteration=1, loss=1.0, png=b"#!/bin/sh"), request.run_id)

    out = tmp_path / "out" / name
    with serving({STYLIZE: Script(Stylize=[answer])}) as server:
        code, _, noted = gramlet("stylize", picture, picture, "-o", out, "--server", f"127.0.0.1:{server.port}")
    assert code != 0
    assert "the server sent a picture that" in noted or "9 bytes that are no PNG file in place of a picture" in noted
    assert not list(out.parent.iterdir())


def test_a_drawing_that_is_no_picture_is_not_written(gramlet: Run, tmp_path: Path) -> None:
    def answer(request: Any, context: Any) -> Iterator[Any]:
        yield DrawMapResponse(content_type="image/png", total_bytes=9, chunk=b"#!/bin/sh")

    out = tmp_path / "map.png"
    with serving({EMBED: Script(DrawMap=[answer])}) as server:
        code, _, noted = gramlet("maps", "draw", "m", "-o", out, "--server", f"127.0.0.1:{server.port}")
    assert code != 0
    assert "the server sent 9 bytes that are no PNG file" in noted
    assert not out.exists()


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
