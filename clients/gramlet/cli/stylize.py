"""`gramlet stylize`: paints a picture in the style of another."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from gramlet._sync.calls import Events
from gramlet._sync.client import Client
from gramlet.cli.arguments import file_path, nonempty, positive
from gramlet.cli.compare import optimizers, run_comparison
from gramlet.cli.detaching import add_detach, detach, note_left
from gramlet.cli.files import PICTURES, check_output, encode_picture_as, png_as, write_atomically
from gramlet.cli.stylization import (
    FIELDS as FIELDS,
)
from gramlet.cli.stylization import (
    add_pictures,
    add_settings,
    check_pictures,
    contents_of,
    inputs_of,
    output_of,
    settings_of,
    styles_of,
)
from gramlet.cli.stylize_set import run_set
from gramlet.cli.terminal import Meter, Terminal
from gramlet.errors import InvalidInput, counted
from gramlet.json_codec import plain
from gramlet.run.types import RunKind
from gramlet.stylize.types import (
    Adjusted,
    Checkpoint,
    Iteration,
    Preview,
    Queued,
    Recovered,
    RemoteProgress,
    Result,
    ScaleStarted,
    Started,
    StylizeEvent,
)

WITH_RESUME = ("output", "preview", "preview_every", "state_seconds", "detach", "checkpoint_every")
HELP = "paint a picture in the style of another"
_PREVIEW_EVERY = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the pictures, the output and every setting."""
    add_pictures(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=file_path,
        help="where to write the result: .png, .jpg, ...; of several, a folder",
    )
    _add_several(parser)
    _add_run(parser)
    add_settings(parser)


def _add_several(parser: argparse.ArgumentParser) -> None:
    """Adds what makes several pictures instead of one: contents, frames of a sequence, optimizers."""
    parser.add_argument(
        "--style",
        action="append",
        dest="styles",
        metavar="FILE",
        help="a style; all pictures before are contents then, and each is painted",
    )
    parser.add_argument(
        "--sequence", action="store_true", help="the contents are frames: each starts from the last result"
    )
    parser.add_argument(
        "--frame-iterations", type=positive, metavar="N", help="of each frame after the first; default: a quarter"
    )
    parser.add_argument("--previous", metavar="FILE", help="the frame before, of which --initial is the painting")
    parser.add_argument(
        "--compare",
        type=optimizers,
        metavar="OPTIMIZER[=RATE],...",
        help="stylize with each, such as lbfgs,adam,gd, and write a plot of their losses",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    """Adds the name of the run, how it is reported, and what the server keeps of it."""
    parser.add_argument("--resume", type=nonempty, metavar="RUN", help="go on with an interrupted run instead")
    parser.add_argument("--run-id", help="name of the run; default: a random one")
    add_detach(parser)
    parser.add_argument("--keep-inputs", action="store_true", help="keep the pictures in the server's store")
    parser.add_argument("--preview", type=file_path, metavar="FILE", help="rewrite this picture as the run goes on")
    parser.add_argument(
        "--preview-every", type=positive, metavar="N", help=f"iterations between previews ({_PREVIEW_EVERY})"
    )
    parser.add_argument(
        "--state-seconds", type=float, metavar="S", help="seconds between checkpoints; default: the server's, 10"
    )
    parser.add_argument("--checkpoint-every", help=argparse.SUPPRESS)  # of 0.1, in iterations


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Runs or resumes a stylization, shows how it goes, and writes the result; 1 if some of several pictures failed."""
    contents = contents_of(arguments)
    for option, of in {"preview_every": "preview", "frame_iterations": "sequence"}.items():
        if getattr(arguments, option) is not None and not getattr(arguments, of):
            raise InvalidInput(f"goes with --{of}", field=option)
    if arguments.compare:
        return run_comparison(arguments, contents, client, terminal)
    if arguments.sequence or len(contents) > 1 or os.path.isdir(contents[0] if contents else ""):
        return run_set(arguments, contents, client, terminal)
    if arguments.checkpoint_every is not None:
        terminal.note("--checkpoint-every has no effect any more: checkpoints go by time, see --state-seconds")
    inputs = inputs_of(arguments)
    check_pictures(arguments)
    if arguments.detach:
        return detach(_events(arguments, client), arguments, terminal)
    check_output(output_of(arguments), PICTURES, "--output", inputs)
    if arguments.preview:
        check_output(arguments.preview, PICTURES, "--preview", [*inputs, arguments.output])
    shown = Shown(terminal, arguments.output, arguments.preview)

    def left() -> None:
        if shown.run_id:
            has_state = shown.checkpoint or arguments.resume
            hint = "" if has_state else ", from its first iteration, as it had no checkpoint yet"
            note_left(arguments, client, terminal, RunKind.STYLIZE, shown.run_id, hint=hint)

    with _events(arguments, client) as events:
        terminal.follow(events, "stylizing", shown.show, left)
    return 0


def _events(arguments: argparse.Namespace, client: Client) -> Events[StylizeEvent, Result]:
    preview_every = (arguments.preview_every or _PREVIEW_EVERY) if arguments.preview else 0
    if arguments.resume:
        return client.resume(
            arguments.resume,
            preview_every=preview_every,
            state_seconds=arguments.state_seconds,
            detached=arguments.detach,
        )
    return client.stylize(
        arguments.content,
        styles_of(arguments),
        initial=arguments.initial,
        previous=arguments.previous,
        preview_every=preview_every,
        state_seconds=arguments.state_seconds,
        run_id=arguments.run_id,
        detached=arguments.detach,
        keep_inputs=arguments.keep_inputs,
        **settings_of(arguments),
    )


class Shown:
    """Shows the events of a stylization: the bar, notes, pictures; and remembers how to go on."""

    def __init__(self, terminal: Terminal, output: Path | None, preview: Path | None) -> None:
        self._terminal = terminal
        self._output = output
        self._preview = preview
        self._total: int | None = None
        self._size = ""
        self.run_id = ""
        self.checkpoint = False

    def show(self, event: StylizeEvent, meter: Meter) -> None:
        """Moves the bar, writes pictures, prints what there is to print."""
        self.run_id = event.run_id
        self.checkpoint = self.checkpoint or isinstance(event, Checkpoint)
        self._advance(event, meter)
        written = self._write(event)
        self._say(event)
        self._terminal.event(type(event).__name__.lower(), **plain(event, keep_none=False), **written)

    def _advance(self, event: StylizeEvent, meter: Meter) -> None:
        match event:
            case Queued():
                meter.update(0, None, f"waiting, {event.position} before")
            case Started():
                self._total = event.settings.iterations
                self._size = f"{event.width} x {event.height} px"
                meter.update(event.iteration, self._total)
            case Iteration():
                meter.update(event.iteration, self._total, f"{self._size}, loss {event.loss:.4g}, run {event.run_id}")
            case RemoteProgress():
                meter.update(event.iteration, event.total or None, f"loss {event.loss:.4g}, on another replica")

    def _write(self, event: StylizeEvent) -> dict[str, Any]:
        """Writes the picture of an event; returns what `--json` says of the file."""
        match event:
            case Preview() if self._preview:
                write_atomically(self._preview, encode_picture_as(event.image, self._preview))
                width, height = event.image.size
                return {"path": str(self._preview), "width": width, "height": height}
            case Result() if self._output:
                write_atomically(self._output, png_as(event.png, self._output))
                return {"path": str(self._output)}
        return {}

    def _say(self, event: StylizeEvent) -> None:
        match event:
            case ScaleStarted():
                whole, self._size = self._size, f"{event.width} x {event.height} px"
                if event.iteration or self._size != whole:
                    jump = ", where the loss jumps" if event.iteration else ""
                    self._terminal.note(f"{self._size} from iteration {event.iteration + 1} on{jump}")
            case Adjusted():
                self._terminal.note(f"weights changed after iteration {event.iteration}")
            case Recovered():
                self._terminal.note(event.message or event.reason.value)
            case Result():
                where = self._output or event.run_id
                self._terminal.say(f"{where}: {counted(event.iteration, 'iteration')}, loss {event.loss:.4g}")
