"""`gramlet stylize` of several pictures, or of the frames of a sequence, into a folder."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from gramlet._sync.client import Client
from gramlet.cli.files import check_apart, check_directory, check_output, outputs_of, png_as, write_atomically
from gramlet.cli.pictures import pictures_of, show_failure
from gramlet.cli.stylization import inputs_of, output_of, refuse_options, settings_of, styles_of
from gramlet.cli.terminal import Meter, Terminal
from gramlet.errors import GramletError, InvalidInput, counted
from gramlet.folders import FolderPicture
from gramlet.json_codec import plain
from gramlet.stylize.sets import SetEvent
from gramlet.stylize.types import Result

_OF_ONE_PICTURE = ("resume", "run_id", "preview", "previous", "state_seconds", "detach", "keep_inputs")
_SUFFIX = ".png"


def run_set(arguments: argparse.Namespace, given: list[str], client: Client, terminal: Terminal) -> int:
    """Paints the pictures of files and folders into a folder; 1 if some failed."""
    refuse_options(arguments, _OF_ONE_PICTURE, "goes with one picture, not with several")
    if not arguments.style:
        raise InvalidInput("give a content picture and a style picture", field="style")
    pictures = pictures_of(given, terminal, "content")
    check_apart(output_of(arguments), given, "--output")
    check_directory(arguments.output, "--output")
    painting = _Painting(arguments, pictures, terminal)
    events = client.stylize_set(
        [picture.source for picture, _ in painting.todo],
        styles_of(arguments),
        sequence=arguments.sequence,
        frame_iterations=arguments.frame_iterations,
        initial=arguments.initial,
        **settings_of(arguments),
    )
    terminal.follow(events, "stylizing", painting.show, lambda: terminal.note(painting.so_far(arguments.sequence)))
    return 1 if painting.failed else 0


class _Painting:
    """The pictures that are to be painted, and how many failed.

    A picture whose result cannot be written is not painted: it fails at once, alone.
    """

    def __init__(self, arguments: argparse.Namespace, pictures: list[FolderPicture], terminal: Terminal) -> None:
        self._terminal = terminal
        self._inputs = [*(picture.source for picture in pictures), *inputs_of(arguments)]
        self.failed = 0
        self._painted: list[Path] = []
        outputs = outputs_of(pictures, arguments.output, _SUFFIX)
        self.todo = [pair for pair in zip(pictures, outputs, strict=True) if self._is_writable(*pair)]

    def show(self, step: SetEvent, meter: Meter) -> None:
        """Writes a picture, prints what there is to print, moves the bar."""
        picture, output = self.todo[step.index]
        event = step.event
        extra: dict[str, Any] = {}
        try:
            if isinstance(event, GramletError):
                raise event
            if isinstance(event, Result):
                write_atomically(output, png_as(event.png, output))
                extra["path"] = str(output)
                self._painted.append(output)
                self._terminal.say(f"{output}: {counted(event.iteration, 'iteration')}, loss {event.loss:.4g}")
        except (GramletError, OSError) as error:
            self._fail(picture, error)
            return
        done = step.index + isinstance(event, Result)
        meter.update(done, len(self.todo), f"{picture.name}, iteration {event.iteration}")
        values = plain(event, keep_none=False)
        self._terminal.event(type(event).__name__.lower(), picture=picture.source, **values, **extra)

    def so_far(self, sequence: bool) -> str:
        """What is painted, and how to go on, for a command that is interrupted."""
        done = f"{len(self._painted)} of {counted(len(self.todo), 'picture')} painted"
        if not self._painted:
            return f"{done}: the same command starts again"
        if sequence:
            last = self._painted[-1]
            return f"{done}, the last is {last}: go on with the frames after it and --initial {shlex.quote(str(last))}"
        return f"{done}: go on with the others alone, as this command paints all of them again"

    def _is_writable(self, picture: FolderPicture, output: Path) -> bool:
        try:
            check_output(output, [_SUFFIX], "--output", self._inputs)
        except InvalidInput as error:
            self._fail(picture, error)
            return False
        return True

    def _fail(self, picture: FolderPicture, error: GramletError | OSError) -> None:
        self.failed += 1
        show_failure(picture.source, error, self._terminal)
