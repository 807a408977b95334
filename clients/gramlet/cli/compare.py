"""`gramlet stylize --compare`: the losses of several optimizers by evaluations and by seconds, on one plot."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from gramlet._sync.client import Client
from gramlet.cli.files import PICTURES, check_output, encode_picture_as, write_atomically
from gramlet.cli.plot import COLORS, Line, draw_panel
from gramlet.cli.stylization import check_pictures, inputs_of, output_of, refuse_options, settings_of, styles_of
from gramlet.cli.terminal import Meter, Terminal
from gramlet.errors import InvalidInput, counted
from gramlet.json_codec import plain
from gramlet.stylize.optimizers import LossCurve, OptimizerEvent, OptimizerInput
from gramlet.stylize.types import Result, Started

_ONE_RUN = ("resume", "run_id", "preview", "previous", "state_seconds", "detach", "keep_inputs", "sequence")
_PANEL = (520, 360)
_CAPTION = 26


def optimizers(text: str) -> list[OptimizerInput]:
    """`lbfgs,adam,gd=0.01` as optimizers, each with its learning rate or without."""
    pairs = [part.strip().partition("=") for part in text.split(",")]
    return [(name, float(rate)) if equals else name for name, equals, rate in pairs]


def run_comparison(arguments: argparse.Namespace, contents: list[str], client: Client, terminal: Terminal) -> int:
    """Stylizes with each optimizer, and writes a plot of the losses with the pictures below."""
    refuse_options(arguments, _ONE_RUN, "does not go with --compare")
    for option in ("optimizer", "learning_rate"):
        if getattr(arguments, option) is not None:
            raise InvalidInput("--compare names the optimizers, with their rates: gd=0.01", field=option)
    if len(contents) > 1 or any(map(os.path.isdir, contents)):
        raise InvalidInput("optimizers are compared on one content picture: name one file", field="content")
    check_pictures(arguments)
    check_output(output_of(arguments), PICTURES, "--output", inputs_of(arguments))
    shown = _Shown(terminal, len(arguments.compare))
    steps = client.compare_optimizers(
        arguments.content,
        styles_of(arguments),
        optimizers=arguments.compare,
        initial=arguments.initial,
        **settings_of(arguments),
    )
    terminal.follow(steps, "comparing", shown.show, shown.note_left)
    write_atomically(arguments.output, encode_picture_as(draw(shown.curves, shown.pictures), arguments.output))
    terminal.table(table(shown.curves))
    terminal.say(str(arguments.output))
    terminal.event("compared", path=str(arguments.output), curves=[plain(curve) for curve in shown.curves])
    return 0


class _Shown:
    """The losses and pictures so far."""

    def __init__(self, terminal: Terminal, optimizers: int) -> None:
        self._terminal, self._optimizers, self._iterations = terminal, optimizers, 0
        self.curves: list[LossCurve] = []
        self.pictures: list[Image.Image] = []

    def show(self, step: OptimizerEvent, meter: Meter) -> None:
        """Takes note of an event, prints it, moves the bar."""
        event = step.event
        if not self.curves or self.curves[-1].choice != step.choice:
            self.curves.append(LossCurve(step.choice))
        self.curves[-1].add(event)
        if isinstance(event, Started):
            self._iterations = event.settings.iterations or 0
        if isinstance(event, Result):
            self.pictures.append(event.image)
        done = (len(self.curves) - 1) * self._iterations + event.iteration
        meter.update(done, self._iterations * self._optimizers or None, f"{step.choice.title}, loss {event.loss:.4g}")
        self._terminal.event(type(event).__name__.lower(), optimizer=step.choice.title, **plain(event, keep_none=False))

    def note_left(self) -> None:
        """Notes how far it is, for a command that is interrupted."""
        finished = f"{len(self.pictures)} of {counted(self._optimizers, 'optimizer')} had finished"
        self._terminal.note(f"{finished}; nothing is written before all have: the same command starts again")


def table(curves: list[LossCurve]) -> Table:
    """For each optimizer its lowest loss, and when it had the loss that all of them reach."""
    common = max(curve.lowest for curve in curves)
    found = Table("optimizer", "evaluations", "seconds", "lowest loss", f"evaluations to {common:.3g}", "seconds")
    for curve in curves:
        at = curve.first_at(common)
        reached = ("never", "never") if at is None else (str(curve.evaluations[at]), f"{curve.seconds[at]:.1f}")
        whole = (str(curve.evaluations[-1]), f"{curve.seconds[-1]:.1f}", f"{curve.lowest:.4g}")
        found.add_row(curve.choice.title, *whole, *reached)
    return found


def draw(curves: list[LossCurve], pictures: list[Image.Image]) -> Image.Image:
    """Loss against evaluations and against seconds side by side, and below what each optimizer made."""
    panels: list[tuple[str, str, list[Sequence[float]]]] = [
        ("loss by evaluations of loss and gradient", "evaluations", [curve.evaluations for curve in curves]),
        ("loss by seconds of computing", "seconds", [curve.seconds for curve in curves]),
    ]
    width, height = _PANEL
    tile = 2 * width // max(3, len(curves))
    small = [picture.convert("RGB") for picture in pictures]
    for picture in small:
        picture.thumbnail((tile - 12, tile - 12), Image.Resampling.LANCZOS)
    below = max((picture.height for picture in small), default=0) + 12
    sheet = Image.new("RGB", (2 * width, height + _CAPTION + below), "white")
    for number, (title, label, all_x) in enumerate(panels):
        lines = [Line(i, x, curve.losses) for i, (x, curve) in enumerate(zip(all_x, curves, strict=True))]
        sheet.paste(draw_panel(title, lines, label, _PANEL), (number * width, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (curve, picture) in enumerate(zip(curves, small, strict=True)):
        left, color = number * tile + 6, COLORS[number % len(COLORS)]
        pen.rectangle((left, height + 6, left + 14, height + 16), fill=color)
        pen.text((left + 20, height + 3), f"{curve.choice.title}: {curve.lowest:.4g}", fill="#222222", font=font)
        sheet.paste(picture, (left, height + _CAPTION))
    return sheet
