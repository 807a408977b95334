"""The flags of a command: the words that were typed, to be pasted again, and how errors name them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, TypeAlias

Fields: TypeAlias = Mapping[str, str | tuple[str, ...]]
"""For keywords of the SDK whose flags have other names: the flag, or several of which one was given."""


def given_words(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> dict[str, list[str]]:
    """The words of each flag that was given with another value than its default, by its destination."""
    return {
        action.dest: _words(action, getattr(parsed, action.dest))
        for action in parser._actions
        if action.option_strings
        and action.help != argparse.SUPPRESS
        and getattr(parsed, action.dest, action.default) != action.default
    }


def flag_of(parser: argparse.ArgumentParser, parsed: argparse.Namespace, field: str, fields: Fields) -> str:
    """What the caller typed for a field that an error names: `--size` for `size`; of pictures, `pictures[3]`."""
    path = re.sub(r"\[[^\]]*\]", "", field)
    for name in (path, path.partition(".")[0], path.rpartition(".")[2]):
        known = fields.get(name, name)
        wanted = (known,) if isinstance(known, str) else known
        actions = [action for dest in wanted for action in parser._actions if action.dest == dest]
        if actions:
            action = next((action for action in actions if action.dest in parsed.given), actions[-1])
            if action.option_strings:
                return action.option_strings[-1]
            return action.dest if action.nargs is None else field.replace(path.partition(".")[0], action.dest, 1)
    return field


def _words(action: argparse.Action, value: Any) -> list[str]:
    flag = action.option_strings[0]
    if isinstance(action, argparse.BooleanOptionalAction):
        return [action.option_strings[0 if value else -1]]
    if action.nargs == 0:
        return [flag]
    if isinstance(action, argparse._AppendAction):
        return [word for item in value for word in (flag, str(item))]
    return [flag, _text(value)]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}={number:g}" for name, number in value.items())
    if isinstance(value, Collection) and not isinstance(value, str):
        return ",".join(map(_text, value))
    return str(value.value if isinstance(value, Enum) else value)
