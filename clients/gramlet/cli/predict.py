"""`gramlet predict`: classifies pictures with a trained head."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from gramlet._sync.client import Client
from gramlet.cli.arguments import file_path
from gramlet.cli.files import PICTURES, check_apart, check_directory, check_output, write_atomically
from gramlet.cli.heat import overlay
from gramlet.cli.pictures import pictures_of, show_failure
from gramlet.cli.terminal import Terminal
from gramlet.errors import GramletError
from gramlet.folders import FolderPicture
from gramlet.json_codec import plain
from gramlet.train.predictions import Prediction

STRANGE = 0.05
"""A picture with this typicality or less is reported as unlike the training pictures."""

FIELDS = {"top_k": "top"}
HELP = "classify pictures with a trained head"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the head and the pictures."""
    parser.add_argument("head", help="name, or name/version; default: the newest version")
    parser.add_argument("pictures", nargs="+", type=file_path, metavar="picture", help="files, and folders of them")
    parser.add_argument(
        "--top", type=int, default=3, metavar="K", help="classes to show for each picture (%(default)s)"
    )
    parser.add_argument(
        "--coverage", type=float, default=0.9, metavar="C", help="how often the right class is plausible (%(default)s)"
    )
    parser.add_argument(
        "--heat-maps",
        type=file_path,
        metavar="DIR",
        help="write there where the most probable class is seen, as PNG files",
    )


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Classifies; 1 if some of several pictures failed."""
    pictures = pictures_of(arguments.pictures, terminal)
    failed = 0
    sources = [picture.source for picture in pictures]
    if arguments.heat_maps:
        check_apart(arguments.heat_maps, map(str, arguments.pictures), "--heat-maps")
        check_directory(arguments.heat_maps, "--heat-maps")
        for number, picture in enumerate(pictures, 1):
            check_output(_heat_map(arguments.heat_maps, number, picture), PICTURES, "--heat-maps", sources)
    outcomes = client.predict(
        arguments.head,
        sources,
        top_k=arguments.top,
        coverage=arguments.coverage,
        heat_maps=arguments.heat_maps is not None,
    )
    for number, (picture, outcome) in enumerate(zip(pictures, outcomes, strict=True), 1):
        if isinstance(outcome, GramletError):
            if len(pictures) == 1:
                raise outcome
            failed += 1
            show_failure(picture.source, outcome, terminal)
            continue
        values = {name: value for name, value in plain(outcome).items() if name != "heat_map"}
        terminal.event("prediction", picture=picture.source, label=outcome.label, **values)
        found = ", ".join(f"{item.label} {item.probability:.1%}" for item in outcome.classes)
        terminal.say(f"{picture.source}: {found}; {_doubts(outcome, arguments.coverage)}")
        if outcome.heat_map is not None:
            drawn = overlay(Image.open(picture.source), outcome.heat_map)
            write_atomically(_heat_map(arguments.heat_maps, number, picture), drawn)
    return 1 if failed else 0


def _heat_map(folder: Path, number: int, picture: FolderPicture) -> Path:
    return folder / f"{number:04d}-{Path(picture.name).stem}.png"


def _doubts(outcome: Prediction, coverage: float) -> str:
    """The prediction set, and whether the picture is unlike the training pictures."""
    plausible = ", ".join(outcome.prediction_set) or "no class"
    strange = f"; unlike the training pictures (p {outcome.typicality:.3f})" if outcome.typicality <= STRANGE else ""
    return f"plausible at {coverage:.0%}: {plausible}{strange}"
