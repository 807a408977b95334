"""Files, functions and classes stay small enough to be read, and packages stay in rooms.

`python -m tests.guards.rows` prints what there is now. Where a limit is reached, find the second subject in the place
that has grown, and give it a name and a place of its own. The limits do not grow.
"""

from __future__ import annotations

import pytest

from tests.guards.rows import LONG_FUNCTION, Measured, largest, loose, sources

MOST_FILE_LINES = 380
MOST_CLASS_LINES = 260
MOST_FUNCTION_LINES = 40
MOST_LONG_FUNCTIONS = 8
MOST_LOOSE = {"clients/gramlet": 6, "services/gramlet_server": 4}
CODE = ("clients", "services")


def above(measured: list[Measured], most: int) -> list[str]:
    return [str(each) for each in measured if each.lines > most]


def test_no_file_is_too_long_to_be_read() -> None:
    assert above(largest(source.size() for source in sources(*CODE)), MOST_FILE_LINES) == []


def test_no_class_has_too_many_subjects() -> None:
    assert above(largest(each for source in sources(*CODE) for each in source.classes()), MOST_CLASS_LINES) == []


def test_few_functions_are_long_and_none_is_very_long() -> None:
    functions = largest(each for source in sources(*CODE) for each in source.functions())
    assert above(functions, MOST_FUNCTION_LINES) == []
    long = above(functions, LONG_FUNCTION)
    assert len(long) <= MOST_LONG_FUNCTIONS, "\n".join(long)


@pytest.mark.parametrize("package", MOST_LOOSE)
def test_modules_are_in_rooms(package: str) -> None:
    assert len(loose(package)) <= MOST_LOOSE[package], loose(package)
