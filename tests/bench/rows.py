"""What benchmarks of several parts share: each part yields rows of its measurements."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Cluster

Row = dict[str, Any]
Part = Callable[[Cluster, argparse.Namespace], Iterator[Row]]


def add_parts(parser: argparse.ArgumentParser, parts: Mapping[str, object]) -> None:
    """Adds the parts to run; all of them, unless some are named."""

    def part(name: str) -> str:
        if name not in parts:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(parts)}")
        return name

    parser.add_argument("parts", nargs="*", type=part, default=list(parts), help=", ".join(parts))


def measured(parts: Mapping[str, Part], chosen: argparse.Namespace) -> list[Row]:
    """Runs the chosen parts with a cluster of their own, prints each row, and returns them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        for part in chosen.parts:
            for row in parts[part](cluster, chosen):
                print(json.dumps(row), flush=True)
                rows.append(row)
    return rows
