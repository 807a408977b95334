"""`gramlet presets`: the presets of a stylization for the server's network, with the value of every setting."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from enum import Enum
from typing import Any

from rich.table import Table

from gramlet._sync.client import Client
from gramlet.cli.terminal import Terminal
from gramlet.errors import InvalidInput, NotFound, did_you_mean
from gramlet.json_codec import plain
from gramlet.stylize.types import StylizeSettings

HELP = "show the presets of stylizations with their values"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which preset to show."""
    parser.add_argument("preset", nargs="?", help="only this one; default: all")


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Shows the values of each preset, by the flags that set them."""
    status = client.status().stylize
    if status is None:
        raise NotFound("the server does not serve stylizations", field="presets")
    presets = dict(zip(status.presets, status.preset_settings, strict=False))
    if arguments.preset and arguments.preset not in presets:
        known = did_you_mean(arguments.preset, presets)
        raise InvalidInput(f"there is no preset {arguments.preset!r}, only {', '.join(presets)}{known}", field="preset")
    shown = {name: settings for name, settings in presets.items() if arguments.preset in (None, name)}
    for name, settings in shown.items():
        terminal.event("preset", name=name, settings=plain(settings))
    terminal.table(_table(shown))
    return 0


def _table(presets: Mapping[str, StylizeSettings]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("flag", *presets):
        table.add_column(column)
    for name in vars(StylizeSettings()):
        if name != "preset":
            values = (_text(getattr(settings, name)) for settings in presets.values())
            table.add_row(f"--{name.replace('_', '-')}", *values)
    return table


def _text(value: Any) -> str:
    """A value as its flag takes it."""
    if isinstance(value, Mapping):
        return ",\n".join(name if weight == 1 else f"{name}={weight:.3g}" for name, weight in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:g}" if isinstance(value, float) else str(value)
