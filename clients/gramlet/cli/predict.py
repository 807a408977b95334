"""`gramlet predict`: classifies pictures with a trained head."""

from __future__ import annotations

import argparse
from pathlib import Path

from gramlet._sync.client import Client
from gramlet.cli.terminal import Terminal
from gramlet.cli.training import as_json
from gramlet.errors import GramletError

HELP = "classify pictures with a trained head"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the head and the pictures."""
    parser.add_argument("head", help="name, or name/version; default: the newest version")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="picture")
    parser.add_argument(
        "--top", type=int, default=3, metavar="K", help="classes to tell for each picture (%(default)s)"
    )


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Classifies; 1 if some of several pictures failed."""
    failed = 0
    outcomes = client.predict(arguments.head, arguments.pictures, top_k=arguments.top)
    for picture, outcome in zip(arguments.pictures, outcomes, strict=True):
        if isinstance(outcome, GramletError):
            if len(arguments.pictures) == 1:
                raise outcome
            failed += 1
            terminal.note(f"{picture}: {outcome.message}")
            terminal.event("error", picture=str(picture), code=outcome.code.name, message=outcome.message)
            continue
        terminal.event("prediction", picture=str(picture), label=outcome.label, **as_json(outcome))
        found = ", ".join(f"{item.label} {item.probability:.1%}" for item in outcome.classes)
        terminal.say(f"{picture}: {found}")
    return 1 if failed else 0
