"""The sizes of what is written by hand: files, functions, classes, loose modules, and imports between rooms.

`python -m tests.guards.rows` prints them, the largest first. Generated code does not count: `v1/`, and the `_sync/`
folders that scripts/unasync.py writes. test_rows.py holds the limits.

A function's lines are those from its `def` to its end without its docstring; a class's lines are all of them. A loose
module is one that is directly in a package's folder, in no room; `__init__` and `__main__` are not counted. An arrow
between two rooms stands for all imports of the one from the other; a loose module is a room of its own.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("clients/gramlet", "services/gramlet_server")
GENERATED = {"v1", "_sync"}
LONG_FUNCTION = 30
"""Most functions are shorter; the table lists those that are not."""
MOST_SHOWN = 12

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Measured:
    """How many lines something has, and where it is: `clients/gramlet/health.py` or `.../health.py ServerStatus`."""

    lines: int
    name: str

    def __str__(self) -> str:
        return f"{self.lines:5} {self.name}"


@dataclass(frozen=True)
class Source:
    """A file that is written by hand, from the repository's root."""

    path: Path

    @cached_property
    def text(self) -> str:
        return (ROOT / self.path).read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def size(self) -> Measured:
        return Measured(len(self.text.splitlines()), str(self.path))

    def functions(self) -> Iterator[Measured]:
        """Its functions and methods, without their docstrings."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Measured(_lines(node) - _docstring_lines(node), f"{self.path} {node.name}")

    def classes(self) -> Iterator[Measured]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef):
                yield Measured(_lines(node), f"{self.path} {node.name}")

    def imported(self) -> Iterator[str]:
        """The modules that it imports, and the names in them: `gramlet.errors.NotFound`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """The files of some folders that git knows, generated ones left out."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "--", *folders], cwd=ROOT, text=True).split("\0")
    paths = [Path(name) for name in listed if name.endswith(".py") and (ROOT / name).exists()]
    return tuple(Source(path) for path in paths if not GENERATED & set(path.parts))


def loose(package: str) -> list[str]:
    """The modules of a package that are in none of its rooms."""
    files = [source.path for source in sources(package)]
    return [path.stem for path in files if path.parent == Path(package) and not path.stem.startswith("__")]


def arrows(package: str) -> set[tuple[str, str]]:
    """Which room of a package imports from which other one."""
    name = Path(package).name
    found = set()
    for source in sources(package):
        room = source.path.relative_to(package).parts[0].removesuffix(".py")
        imported = [module.split(".") for module in source.imported()]
        found |= {(room, parts[1]) for parts in imported if parts[0] == name and len(parts) > 1 and parts[1] != room}
    return found


def largest(measured: Iterator[Measured]) -> list[Measured]:
    """The largest first."""
    return sorted(measured, key=lambda each: (-each.lines, each.name))


def _lines(node: Definition) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _docstring_lines(node: Definition) -> int:
    if ast.get_docstring(node, clean=False) is None:
        return 0
    first = node.body[0]
    return (first.end_lineno or first.lineno) - first.lineno + 1


def table() -> str:
    """Every row, as text."""
    code, tests = sources("clients", "services"), sources("tests")
    functions = largest(each for source in code for each in source.functions())
    long = [each for each in functions if each.lines > LONG_FUNCTION]
    return "\n".join(
        [
            *(
                f"{package}: {len(names)} loose modules: {', '.join(names)}"
                for package in PACKAGES
                if (names := loose(package))
            ),
            *(f"{package}: {len(arrows(package))} arrows between rooms" for package in PACKAGES),
            *_listed("largest files", largest(source.size() for source in code)),
            *_listed("largest files of tests", largest(source.size() for source in tests)),
            *_listed("largest classes", largest(each for source in code for each in source.classes())),
            *_listed(f"functions of more than {LONG_FUNCTION} lines: {len(long)}", long, most=len(long)),
        ]
    )


def _listed(title: str, rows: list[Measured], most: int = MOST_SHOWN) -> list[str]:
    return ["", title, *map(str, rows[:most])]


if __name__ == "__main__":
    print(table())
