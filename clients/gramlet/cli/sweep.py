"""`gramlet sweep`: stylizes with many ratios of content to style and many depths of style, into one labeled grid."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from gramlet._sync.calls import Events
from gramlet._sync.client import Client
from gramlet.cli.arguments import file_path, names, nonempty, numbers
from gramlet.cli.detaching import add_detach, detach, note_left
from gramlet.cli.files import PICTURES, check_directory, check_output, png_as, write_atomically
from gramlet.cli.stylization import (
    FIELDS as FIELDS,
)
from gramlet.cli.stylization import (
    add_pictures,
    add_settings,
    check_pictures,
    inputs_of,
    output_of,
    settings_of,
    styles_of,
)
from gramlet.cli.terminal import Meter, Terminal
from gramlet.errors import counted
from gramlet.json_codec import plain
from gramlet.run.types import RunKind
from gramlet.stylize.sweep_types import (
    SweepCell,
    SweepEvent,
    SweepQueued,
    SweepRemoteProgress,
    SweepResult,
    SweepStarted,
)
from gramlet.stylize.types import Result

WITH_RESUME = ("output", "cells", "detach")
HELP = "stylize with many ratios and depths, into one labeled grid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the pictures, the grid and every setting."""
    add_pictures(parser)
    parser.add_argument("-o", "--output", type=file_path, help="where to write the grid: .png, .jpg, ...")
    parser.add_argument("--cells", type=file_path, metavar="DIR", help="write every cell there as well")
    parser.add_argument(
        "--ratios", type=numbers, default=(), metavar="R,R,...", help="columns: content weight / style weight"
    )
    parser.add_argument(
        "--deepest", type=names, default=(), metavar="STAGE,...", help="rows: the deepest style stage that is used"
    )
    parser.add_argument("--resume", type=nonempty, metavar="RUN", help="go on with an interrupted sweep instead")
    parser.add_argument("--run-id", help="name of the sweep; default: a random one")
    add_detach(parser)
    parser.add_argument("--keep-inputs", action="store_true", help="keep the pictures in the server's store")
    add_settings(parser)


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Runs or resumes a sweep, shows how it goes, and writes the grid."""
    check_pictures(arguments)
    if arguments.detach:
        return detach(_events(arguments, client), arguments, terminal)
    check_output(output_of(arguments), PICTURES, "--output", inputs_of(arguments))
    if arguments.cells:
        check_directory(arguments.cells, "--cells")
    shown = Shown(terminal, arguments.output, arguments.cells, [*inputs_of(arguments), arguments.output])

    def left() -> None:
        if shown.run_id:
            note_left(arguments, client, terminal, RunKind.SWEEP, shown.run_id)

    with _events(arguments, client) as events:
        terminal.follow(events, "sweeping", shown.show, left)
    return 0


def _events(arguments: argparse.Namespace, client: Client) -> Events[SweepEvent, SweepResult]:
    if arguments.resume:
        return client.resume_sweep(arguments.resume, detached=arguments.detach)
    return client.sweep(
        arguments.content,
        styles_of(arguments),
        ratios=arguments.ratios,
        deepest_stages=arguments.deepest,
        initial=arguments.initial,
        run_id=arguments.run_id,
        detached=arguments.detach,
        keep_inputs=arguments.keep_inputs,
        **settings_of(arguments),
    )


class Shown:
    """Shows the events of a sweep.

    Args:
        terminal: Where.
        output: The file of the grid, if it is wanted.
        cells: The folder of the cells, if they are wanted.
        taken: Inputs and other outputs, which no cell may replace.
    """

    def __init__(
        self, terminal: Terminal, output: Path | None, cells: Path | None, taken: Sequence[str | Path] = ()
    ) -> None:
        self._terminal = terminal
        self._output = output
        self._cells = cells
        self._taken = taken
        self._columns = self._total = self._each = 0
        self.run_id = ""

    def show(self, event: SweepEvent, meter: Meter) -> None:
        """Writes pictures, prints what there is to print, moves the bar."""
        self.run_id = event.run_id
        values = plain(event, keep_none=False)
        values.pop("event", None)
        match event:
            case SweepQueued():
                meter.update(0, None, f"waiting, {event.position} before")
            case SweepStarted():
                self._columns, self._each = len(event.ratios), event.settings.iterations or 0
                self._total = len(event.deepest_stages) * self._columns * self._each
                self._check_cells(event)
            case SweepCell():
                before = (event.row * self._columns + event.column) * self._each
                meter.update(before + event.event.iteration, self._total, f"{event.deepest_stage}, {event.ratio:g}")
                values |= self._show_cell(event)
            case SweepRemoteProgress(progress=progress):
                meter.update(progress.done, progress.total or None, "cells, on another replica")
                values = {"run_id": event.run_id, **plain(progress)}
            case SweepResult():
                if self._output:
                    write_atomically(self._output, png_as(event.png, self._output))
                    values["path"] = str(self._output)
                cells = f": {counted(self._total // self._each, 'cell')}" if self._each else ""
                self._terminal.say(f"{self._output or event.run_id}{cells}")
        self._terminal.event(type(event).__name__.lower().removeprefix("sweep"), **values)

    def _check_cells(self, event: SweepStarted) -> None:
        if self._cells:
            for stage, ratio in product(event.deepest_stages, event.ratios):
                check_output(_cell(self._cells, stage, ratio), PICTURES, "--cells", self._taken)

    def _show_cell(self, cell: SweepCell) -> dict[str, Any]:
        """Shows the event of a cell; returns what `--json` prints of it: its name, and its values."""
        values = {"happened": type(cell.event).__name__.lower(), **plain(cell.event, keep_none=False)}
        if self._cells and isinstance(cell.event, Result):
            path = _cell(self._cells, cell.deepest_stage, cell.ratio)
            write_atomically(path, png_as(cell.event.png, path))
            values["path"] = str(path)
        return values | {"run_id": cell.run_id}


def _cell(folder: Path, stage: str, ratio: float) -> Path:
    return folder / f"{stage}-{ratio:g}.png"
