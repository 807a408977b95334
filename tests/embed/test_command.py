from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gramlet.cli.__main__ import main

from tests.embed.conftest import SIDE, clusters


def test_a_folder_becomes_drawings_and_events(
    server: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    png, html, grid = (tmp_path / name for name in ("map.png", "map.html", "grid.jpg"))
    command = ["embed", str(folder), "-o", str(png), "--html", str(html), "--grid", str(grid), "--json"]
    options = ["--map-id", "m", "--stages", "conv1", "--size", str(SIDE), "--iterations", "40", "--width", "300"]
    assert main([*command, *options, "--server", server]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "started"
    assert names[-4:] == ["result", "drawing", "drawing", "drawing"]
    last_described = [event for event in events if event["event"] == "described"][-1]
    assert (last_described["described"], last_described["refused"]) == (8, 1)
    (refused,) = [event for event in events if event["event"] == "refused"]
    assert refused["refused"]["id"] == "red/broken.png"
    assert "coordinates" not in next(event for event in events if event["event"] == "iteration")
    result = events[-4]
    assert len(result["layouts"][0]["coordinates"]) == 8
    assert {place["label"] for place in result["places"]} == {"red", "blue"}
    assert (png.read_bytes()[:4], html.read_text()[:15], grid.read_bytes()[:2]) == (
        b"\x89PNG",
        "<!doctype html>",
        b"\xff\xd8",
    )


def test_maps_are_listed_shown_drawn_used_and_deleted(
    server: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = tmp_path / "vectors.npy"
    np.save(vectors, clusters(20)[0])
    assert main(["embed", str(vectors), "--map-id", "v", "--iterations", "40", "--server", server]) == 0
    pictures = [str(folder), "--map-id", "m", "--method", "pca", "--stages", "conv1", "--size", str(SIDE)]
    assert main(["embed", *pictures, "--server", server]) == 0
    capsys.readouterr()

    def printed(*arguments: str) -> str:
        assert main(["maps", *arguments, "--server", server]) == 0
        return capsys.readouterr().out

    assert [line.split(":")[0] for line in printed().splitlines()] == ["m", "v"]
    assert "8 items by pca of gram (conv1)" in printed("show", "m")
    again = tmp_path / "again.png"
    assert main(["embed", "--from-map", "m", "--map-id", "m2", "-o", str(again), "--server", server]) == 0
    assert "8 items by tsne of gram (conv1)" in capsys.readouterr().out
    assert again.read_bytes()[:4] == b"\x89PNG"
    printed("delete", "m2")
    page = tmp_path / "map.html"
    printed("draw", "m", "-o", str(page))
    assert page.read_text().startswith("<!doctype html>")
    picture = next((folder / "blue").iterdir())
    assert f"nearest blue/{picture.name}" in printed("place", "m", str(picture))
    assert "m deleted" in printed("delete", "m")
    assert printed().startswith("v:")


def test_descriptors_are_compared_in_a_table(server: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--size", str(SIDE), "--iterations", "40", "--map-id", "m"]
    assert main(["embed", str(folder), "--compare", *options, "--server", server]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(lines) if "10-NN label accuracy" in line)
    assert any("--descriptor gram --stages layer3" in line for line in lines[head + 1 :])
    assert any("--stages conv1,maxpool,layer1,layer2 --no-balance-stages" in line for line in lines[head + 1 :])
    assert main(["maps", "show", "m", "--server", server]) == 0
    assert "10-NN label accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed"],
        ["embed", "/nowhere"],
        ["embed", "pictures", "-o", "map.txt"],
        ["embed", "pictures", "--resume", "m"],
        ["embed", "pictures", "--from-map", "m"],
        ["embed", "--from-map", "nowhere"],
        ["maps", "show"],
        ["maps", "show", "nowhere"],
        ["maps", "draw", "m"],
    ],
)
def test_wrong_command_lines_end_with_2_and_one_line(
    server: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--server", server]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
