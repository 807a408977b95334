"""The programs in examples/ do what they say, against a real server. `make lint` checks their types."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.cluster import free_port, wait_until
from tests.pictures.files import write_two_classes

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six tiny pictures: red/*.png and blue/*.png, each with noise of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    write_two_classes(folder, 6, (48, 64))
    return folder


def run(server: str, program: str, *arguments: object, **environ: str) -> str:
    """Runs an example in a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / program, *map(str, arguments)],
        env={**os.environ, "GRAMLET_SERVER": server, **environ},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def kind_and_size(path: Path) -> tuple[str | None, tuple[int, int]]:
    with Image.open(path) as picture:
        return picture.format, picture.size


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("stylize.py", ["PICTURE", "PICTURE", "out.png"], "no server at 127.0.0.1:1"),
        ("stylize.py", ["PICTURE", "PICTURE", "PICTURE"], "red0.png is one of the pictures"),
        ("async_streaming.py", ["0.png", "PICTURE", "."], "0.png is one of the pictures"),
        ("embed.py", ["EMPTY", "0.png", "map.html"], "0.png is one of the pictures"),
        ("async_streaming.py", ["PICTURE", "PICTURE", "out"], "no server at 127.0.0.1:1"),
        ("embed.py", ["EMPTY", "map.png", "map.html"], "items: there are no pictures below"),
        ("features_of_a_folder.py", ["EMPTY", "features.npz"], "no picture was read"),
        ("train_and_predict.py", ["EMPTY", "PICTURE"], "pictures: there are no pictures below"),
        ("train_and_predict.py", [], "Trains a head"),
    ],
)
def test_an_example_that_cannot_work_says_why_in_a_line(
    pictures: Path, tmp_path: Path, program: str, arguments: list[str], said: str
) -> None:
    paths = {"PICTURE": str(pictures / "red/red0.png"), "EMPTY": str(tmp_path)}
    if "0.png" in arguments:
        (tmp_path / "0.png").write_bytes((pictures / "red/red0.png").read_bytes())
    command = [sys.executable, EXAMPLES / program, *(paths.get(each, each) for each in arguments)]
    environ = {**os.environ, "GRAMLET_SERVER": "127.0.0.1:1"}
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert said in done.stderr


def test_stylize_reports_every_iteration_and_saves_the_picture(server: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    content, style = pictures / "red/red0.png", pictures / "blue/blue0.png"
    said = run(server, "stylize.py", content, style, out, SIZE="64", ITERATIONS="3")
    assert [line.split(":")[0] for line in said.splitlines() if "loss" in line] == [f"iteration {n}" for n in (1, 2, 3)]
    assert kind_and_size(out) == ("PNG", (64, 48))


def test_features_of_a_folder_leaves_out_what_is_no_picture(server: str, pictures: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "folder", tmp_path / "features.npz"
    folder.mkdir()
    for path in pictures.rglob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"not a picture")
    assert "12 of 13 pictures" in run(server, "features_of_a_folder.py", folder, out)
    with np.load(out) as saved:
        assert saved["embeddings"].shape == (12, 2048)
        assert "red0.png" in saved["names"]
        assert "broken.jpg" not in saved["names"]


def test_train_and_predict_stores_a_head_and_uses_it(server: str, pictures: Path) -> None:
    said = run(server, "train_and_predict.py", pictures, pictures / "blue/blue3.png").splitlines()
    assert "stored example/1, classes blue, red" in said
    assert {line.split()[-1] for line in said[-2:]} == {"blue", "red"}


def test_embed_draws_a_map_and_a_page(server: str, pictures: Path, tmp_path: Path) -> None:
    picture, page = tmp_path / "map.png", tmp_path / "map.html"
    assert "12 pictures on map" in run(server, "embed.py", pictures, picture, page)
    assert kind_and_size(picture)[0] == "PNG"
    assert page.read_text().startswith("<!doctype html>")


def test_async_streaming_paints_both_at_once(server: str, pictures: Path, tmp_path: Path) -> None:
    content, one, two = (pictures / name for name in ("red/red0.png", "blue/blue0.png", "blue/blue1.png"))
    run(server, "async_streaming.py", content, one, two, tmp_path / "out", SIZE="64", ITERATIONS="2")
    painted = {path.name: kind_and_size(path) for path in (tmp_path / "out").iterdir()}
    assert painted == {"0.png": ("PNG", (64, 48)), "1.png": ("PNG", (64, 48))}


def test_a_backend_dies_and_finds_its_pictures_again(server: str, pictures: Path) -> None:
    style = str(pictures / "blue/blue0.png")
    with backend(server, STYLE=style, SIZE="64", ITERATIONS="30") as (process, url):
        ordered = json.loads(call("POST", f"{url}/pictures", (pictures / "red/red0.png").read_bytes()))["id"]
        other = json.loads(call("POST", f"{url}/pictures", (pictures / "red/red1.png").read_bytes()))["id"]
        process.kill()
    with backend(server, STYLE=style) as (_, url):
        assert [run for run in listed(url) if run in (ordered, other)] == [other, ordered]
        with ThreadPoolExecutor() as pool:  # two watchers of one run
            watched = list(pool.map(lambda _: call("GET", f"{url}/pictures/{ordered}/events").decode(), range(2)))
        assert all(events.splitlines()[-2] == "data: Result 30" for events in watched)
        picture = call("GET", f"{url}/pictures/{ordered}")
        assert Image.open(io.BytesIO(picture)).size == (64, 48)
        for run_id in (ordered, other):
            call("DELETE", f"{url}/pictures/{run_id}")
        assert not {ordered, other} & set(listed(url))
        for method, path, body, code in (
            ("GET", f"/{ordered}", None, 404),
            ("GET", f"/{ordered}/events", None, 404),
            ("DELETE", f"/{ordered}", None, 404),
            ("GET", "/no%20id/events", None, 400),
            ("POST", "", b"no picture", 400),
            ("POST", "", b"", 400),
        ):
            with pytest.raises(urllib.error.HTTPError, match=str(code)):
                call(method, f"{url}/pictures{path}", body)


@contextmanager
def backend(server: str, **environ: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The backend in a process of its own. "backend.py" is an application, not a program."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "backend:app", "--app-dir", str(EXAMPLES), "--port", str(port)]
    environment = {**os.environ, "GRAMLET_SERVER": server, **environ}
    with subprocess.Popen([*command, "--log-level", "warning"], env=environment) as process:
        try:
            wait_until(lambda: is_listening(port))
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def listed(url: str) -> list[str]:
    """The runs that the backend lists: its own, and other tests' of the same server."""
    return [run["id"] for run in json.loads(call("GET", f"{url}/pictures"))]


def call(method: str, url: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=120) as answer:
        data: bytes = answer.read()
        return data


def test_every_example_is_run_here_and_listed() -> None:
    programs = sorted(path.name for path in EXAMPLES.glob("*.py"))
    here, listed = Path(__file__).read_text(), (EXAMPLES / "README.md").read_text()
    assert len(programs) == 6
    assert all(f'"{name}"' in here and f"({name})" in listed for name in programs)


@pytest.mark.parametrize("program", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_is_short(program: str) -> None:
    assert 20 <= len((EXAMPLES / program).read_text().splitlines()) <= 80
