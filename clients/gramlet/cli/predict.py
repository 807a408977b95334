"""`gramlet predict`: classifies pictures with a trained head."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
from gramlet.train.predictions import TAIL, Prediction, group_typicality
from gramlet.train.types import Head

STRANGE = 0.05
"""A picture with this typicality or less is reported as unlike the training pictures."""
STRANGE_GROUP = 0.01
"""Pictures whose p-value is this or less are reported as unlike the training pictures, taken together."""

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
    sources = [picture.source for picture in pictures]
    if arguments.heat_maps:
        _check_heat_maps(arguments, pictures)
    outcomes = client.predict(
        arguments.head,
        sources,
        top_k=arguments.top,
        coverage=arguments.coverage,
        heat_maps=arguments.heat_maps is not None,
    )
    typicality = []
    for number, (picture, outcome) in enumerate(zip(pictures, outcomes, strict=True), 1):
        if isinstance(outcome, GramletError):
            if len(pictures) == 1:
                raise outcome
            show_failure(picture.source, outcome, terminal)
            continue
        typicality.append(outcome.typicality)
        _show(picture, outcome, arguments.coverage, terminal)
        if outcome.heat_map is not None:
            drawn = overlay(Image.open(picture.source), outcome.heat_map)
            write_atomically(_heat_map(arguments.heat_maps, number, picture), drawn)
    if len(typicality) > 1:
        _show_group(typicality, client.head(arguments.head).head, terminal)
    return 1 if len(typicality) < len(pictures) else 0


def _check_heat_maps(arguments: argparse.Namespace, pictures: Sequence[FolderPicture]) -> None:
    check_apart(arguments.heat_maps, map(str, arguments.pictures), "--heat-maps")
    check_directory(arguments.heat_maps, "--heat-maps")
    for number, picture in enumerate(pictures, 1):
        output = _heat_map(arguments.heat_maps, number, picture)
        check_output(output, PICTURES, "--heat-maps", [each.source for each in pictures])


def _show(picture: FolderPicture, outcome: Prediction, coverage: float, terminal: Terminal) -> None:
    values = {name: value for name, value in plain(outcome).items() if name != "heat_map"}
    terminal.event("prediction", picture=picture.source, label=outcome.label, **values)
    found = ", ".join(f"{item.label} {item.probability:.1%}" for item in outcome.classes)
    terminal.say(f"{picture.source}: {found}; {_doubts(outcome, coverage)}")


def _show_group(typicality: list[float], head: Head, terminal: Terminal) -> None:
    """Whether all pictures, taken together, are like the training pictures."""
    report = head.outcome.report()
    found = group_typicality(typicality, report.pictures if report else 0)
    terminal.event("typicality", **plain(found))
    if found.p_value <= STRANGE_GROUP:
        terminal.say(
            f"together unlike the training pictures: {found.atypical} of {found.pictures} pictures have a typicality "
            f"of {TAIL} or less, where {found.expected:.1f} are expected (p {found.p_value:.1g}). They come from "
            "another source, or mostly from one class"
        )


def _heat_map(folder: Path, number: int, picture: FolderPicture) -> Path:
    return folder / f"{number:04d}-{Path(picture.name).stem}.png"


def _doubts(outcome: Prediction, coverage: float) -> str:
    """The prediction set, and whether the picture is unlike the training pictures."""
    plausible = ", ".join(outcome.prediction_set) or "no class"
    strange = f"; unlike the training pictures (p {outcome.typicality:.3f})" if outcome.typicality <= STRANGE else ""
    return f"plausible at {coverage:.0%}: {plausible}{strange}"
