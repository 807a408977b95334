"""`gramlet predict`: classifies pictures with a trained head."""

from __future__ import annotations

import argparse
from pathlib import Path

from gramlet._sync.client import Client
from gramlet.cli.pictures import pictures_of, show_failure
from gramlet.cli.terminal import Terminal
from gramlet.cli.training import as_json
from gramlet.errors import GramletError

HELP = "classify pictures with a trained head"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the head and the pictures."""
    parser.add_argument("head", help="name, or name/version; default: the newest version")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="picture", help="files, and folders of them")
    parser.add_argument(
        "--top", type=int, default=3, metavar="K", help="classes to show for each picture (%(default)s)"
    )


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Classifies; 1 if some of several pictures failed."""
    pictures = pictures_of(arguments.pictures, terminal)
    failed = 0
    outcomes = client.predict(arguments.head, [picture.source for picture in pictures], top_k=arguments.top)
    for picture, outcome in zip(pictures, outcomes, strict=True):
        if isinstance(outcome, GramletError):
            if len(pictures) == 1:
                raise outcome
            failed += 1
            show_failure(picture.source, outcome, terminal)
            continue
        terminal.event("prediction", picture=picture.source, label=outcome.label, **as_json(outcome))
        found = ", ".join(f"{item.label} {item.probability:.1%}" for item in outcome.classes)
        terminal.say(f"{picture.source}: {found}")
    return 1 if failed else 0
