"""What the tests of the command line share: how a command is run, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

Run = Callable[..., tuple[int, str, str]]
"""Runs a command line; returns exit code, stdout and stderr."""

SMALL = ("--size", 48, "--iterations", 1, "--scales", 1)


def events(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def format_of(path: Path) -> str | None:
    with Image.open(path) as image:
        return image.format
