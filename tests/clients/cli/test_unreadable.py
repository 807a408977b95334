"""Files that this user may not read are skipped and named, a line each; what can be read is not affected."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bound import run_bound

Bound = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pictures(tmp_path: Path, png: bytes) -> Iterator[Path]:
    """Folders of pictures: one of `a` cannot be read, nor can `closed`, nor what is in the folder of `c`."""
    names = ("a/1.png", "a/2.png", "b/1.png", "b/closed/1.png", "c/closed/1.png")
    for name in names:
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    closed = [tmp_path / "pictures" / name for name in ("a/2.png", "b/closed", "c/closed")]
    for path in closed:
        path.chmod(0)
    yield tmp_path / "pictures"
    for path in closed:
        path.chmod(0o700)  # so that pytest can delete it


@pytest.fixture
def bound(tmp_path: Path, address: str) -> Bound:
    """Runs `gramlet` as a user whom permissions bind."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gramlet.cli", *arguments, "--server", address]
        return run_bound(command, tmp_path)

    return run


def noted(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """The notes on stderr, without the lines of progress."""
    return [line for line in ended.stderr.splitlines() if line.startswith("gramlet")]


def test_unreadable_pictures_and_folders_are_named_once_and_the_others_are_read(pictures: Path, bound: Bound) -> None:
    ended = bound("features", "pictures", "--stages", "conv1", "--pooled", "-o", "out")
    assert noted(ended) == [
        "gramlet: left out of the pictures: pictures/b/closed, pictures/c/closed: cannot be read: Permission denied",
        "gramlet: pictures/a/2.png: cannot read pictures/a/2.png: Permission denied",
    ]
    assert ended.returncode == 1
    written = {line.partition(": ")[0] for line in ended.stdout.splitlines()}
    assert written == {"out/a/1.png.npz", "out/b/1.png.npz"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["features", "pictures/b/closed/1.png", "--stages", "conv1", "-o", "o.npz"],
            "gramlet: pictures/b/closed/1.png: cannot read pictures/b/closed/1.png: Permission denied",
        ),
        (
            ["features", "pictures/b/closed", "--stages", "conv1", "-o", "out"],
            "gramlet: pictures: there are no pictures below pictures/b/closed; left out of it: pictures/b/closed: "
            "cannot be read: Permission denied",
        ),
        (
            ["features", "pictures/a/1.png", "--stages", "conv1", "-o", "pictures/b/closed/o.npz"],
            "gramlet: --output: cannot write to pictures/b/closed: Permission denied",
        ),
        (
            ["features", "pictures/a/1.png", "--stages", "conv1", "-o", "pictures/b/closed/o"],
            "gramlet: --output: pictures/b/closed/o must end in one of .npz",
        ),
        (
            ["stylize", "pictures/a/1.png", "pictures/b/closed/1.png", "-o", "o.png"],
            "gramlet: style[0]: cannot read pictures/b/closed/1.png: Permission denied",
        ),
        (
            ["stylize", "pictures/a/1.png", "pictures/b/1.png", "-o", "pictures/b/closed/o.png"],
            "gramlet: --output: cannot write to pictures/b/closed: Permission denied",
        ),
        (["stylize", "pictures/a/2.png", "pictures/b/1.png", "-o", "o.png"], "gramlet: content: cannot read "),
        (["train", "pictures/c/closed", "--name", "x"], "gramlet: pictures: there are no pictures below "),
        (["train", "pictures/c/closed/below", "--name", "x"], "gramlet: pictures: cannot read "),
        (["embed", "pictures/c/closed/below", "-o", "o.png"], "gramlet: pictures: "),
    ],
)
def test_the_reason_is_that_it_cannot_be_read(pictures: Path, bound: Bound, arguments: list[str], line: str) -> None:
    ended = bound(*arguments)
    assert ended.returncode == 2
    (said,) = noted(ended)
    assert said.startswith(line)
