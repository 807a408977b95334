"""Writes the bounds of requests into the comments of the protos: a sentence `Bounds: ...` at the end of each.

`python scripts/bounds.py` writes them; `--check` only compares. The table is gramlet_server/runtime/bounds.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from gramlet_server.runtime.bounds import ANY, BOUNDS

ROOT = Path(__file__).parents[1]
_OPENS = re.compile(r"^\s*(message|oneof|enum|service)\s+(\w+)\s*\{(.*\})?\s*$")
_FIELD = re.compile(r"^(\s*)(?:optional |repeated )?(?:map<[^>]*>|[\w.]+) (\w+) = \d+.*;\s*$")
_BOUNDS = re.compile(r"^\s*// Bounds: ")


def documented(text: str) -> Iterator[tuple[str, str]]:
    """The lines of a proto file, each with the full name of the field that it declares, if it does."""
    package = re.search(r"^package ([\w.]+);", text, re.M)
    scopes: list[tuple[str, str]] = []
    for line in text.splitlines():
        name = ""
        if opened := _OPENS.match(line):
            if not opened[3]:
                scopes.append((opened[1], opened[2]))
        elif line.strip().startswith("}"):
            scopes.pop()
        elif (field := _FIELD.match(line)) and scopes and all(kind in ("message", "oneof") for kind, _ in scopes):
            messages = [scope for kind, scope in scopes if kind == "message"]
            name = ".".join([package[1] if package else "", *messages, field[2]])
        yield line, name


def with_bounds(text: str) -> str:
    """A proto file whose comments have the bounds of the table, and no others."""
    lines: list[str] = []
    for line, name in documented(text):
        if _BOUNDS.match(line):
            continue
        message, _, field = name.rpartition(".")
        rule = BOUNDS.get(message, {}).get(field, ANY)
        if rule is not ANY:
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}// Bounds: {rule}.")
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Returns 1 if a file differs and `--check` was given."""
    different = []
    for path in sorted((ROOT / "protos").rglob("*.proto")):
        text = path.read_text()
        if (wanted := with_bounds(text)) != text:
            different.append(path.relative_to(ROOT))
            if "--check" not in sys.argv:
                path.write_text(wanted)
    for path in different if "--check" in sys.argv else ():
        print(f"{path}: its bounds are not those of runtime/bounds.py: run scripts/bounds.py, then make protos")
    return int(bool(different) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
