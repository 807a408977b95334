"""`gramlet see`: what channels respond to, drawn with your own pictures.

For channels: their strongest patches, the projections of these back to pixels, and a picture optimized for the channel.
For a whole stage: a contact sheet with the patches of all of its channels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gramlet._sync.client import Client
from gramlet.cli.arguments import file_path, show_defaults, values_of
from gramlet.cli.files import PICTURES, check_output, encode_picture_as, write_atomically
from gramlet.cli.pictures import pictures_of, with_name
from gramlet.cli.sheets import channel_sheet, contact_sheet
from gramlet.cli.terminal import Meter, Terminal
from gramlet.errors import InvalidInput, counted
from gramlet.feature.see_inputs import SIZE, SeeOptions
from gramlet.feature.see_types import (
    Maximization,
    PatchField,
    Projection,
    SeeEvent,
    SeeOptimized,
    SeePatches,
    SeePreview,
    SeeProgress,
    SeeQueued,
    SeeReconnecting,
    SeeRefused,
    SeeResult,
    SeeStart,
    SeeStarted,
)
from gramlet.folders import Folder
from gramlet.json_codec import plain

FIELDS = {"resize": "size", "stage": "what", "channels": "what"}
_LAST_CHANNEL = 65_535  # of any network: a range is written out before the server has said how many a stage has
HELP = "draw what channels of the network respond to"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the channels, the pictures, the outputs and every setting."""
    parser.add_argument(
        "what", metavar="STAGE[:CHANNEL,...]", help="a stage, or channels of it: layer3:712 or layer3:0-15,712"
    )
    parser.add_argument(
        "--in", dest="pictures", nargs="+", type=file_path, metavar="PICTURE", help="folders of pictures, and files"
    )
    parser.add_argument("-o", "--output", type=file_path, required=True, help="the sheet: .png, .jpg, ...")
    parser.add_argument(
        "--preview", type=file_path, metavar="FILE", help="rewrite this picture as an optimized one forms"
    )
    _add_settings(parser.add_argument_group("settings", "With the defaults of a setting that is left out."))


def _add_settings(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--size", type=int, help=f"longest side of the pictures, in pixels ({SIZE})")
    group.add_argument("--patches", type=int, metavar="N", help="of each channel")
    group.add_argument(
        "--patch-size", type=int, metavar="PIXELS", help="longest side of a patch; larger ones are reduced"
    )
    group.add_argument(
        "--patch-field", choices=values_of(PatchField), help="what a patch shows: what a position sees, or can see"
    )
    group.add_argument(
        "--projection", choices=values_of(Projection), help="of patches back to pixels (guided; of a stage none)"
    )
    group.add_argument(
        "--optimize",
        action=argparse.BooleanOptionalAction,
        help="optimize a picture for each channel (yes; of a stage no)",
    )
    group.add_argument("--steps", type=int, metavar="N", help="of an optimized picture")
    group.add_argument("--optimized-size", type=int, metavar="PIXELS", help="its side (160)")
    group.add_argument("--seed", type=int, metavar="N", help="of its first noise")
    show_defaults(group, SeeStart(stage=""), Maximization(), size=None, projection=None)  # whose help names them


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Looks, and draws the sheet."""
    stage, channels = parse_what(arguments.what)
    pictures = pictures_of(arguments.pictures, terminal, "--in") if arguments.pictures else []
    sources = [picture.source for picture in pictures]
    check_output(arguments.output, PICTURES, "--output", sources)
    if arguments.preview:
        check_output(arguments.preview, PICTURES, "--preview", [*sources, arguments.output])
    folder = Folder("the pictures", tuple(pictures)) if pictures else None
    shown = Shown(terminal, len(channels), arguments.preview)
    with (
        client.see(stage, channels or None, folder, **_options(arguments)) as events,
        terminal.progress("seeing") as meter,
    ):
        for event in events:
            shown.show(event, meter)
    if isinstance(event, SeeResult):
        sheet = channel_sheet(event) if channels else contact_sheet(event)
        write_atomically(arguments.output, encode_picture_as(sheet, arguments.output))
        _report(event, arguments.output, terminal)
    return 0


def parse_what(text: str) -> tuple[str, list[int]]:
    """`layer3:712,5` or `layer3:0-15` as a stage and channels; no channels for `layer3`.

    Raises:
        InvalidInput: Anything else.
    """
    stage, colon, listed = text.partition(":")
    channels: list[int] = []
    for part in listed.split(",") if colon else ():
        first, dash, last = (each.strip() for each in part.partition("-"))
        if not (first.isdecimal() and (last.isdecimal() if dash else not last)):
            raise InvalidInput(
                f"{text!r}: channels are whole numbers or ranges of them with commas between, such as layer3:712 or "
                "layer3:0-15,712",
                field="what",
            )
        channels += _channels(stage.strip(), int(first), int(last if dash else first))
    if not stage.strip() or (colon and not channels):
        raise InvalidInput(f"{text!r}: name a stage, or channels of it, such as layer3 or layer3:712", field="what")
    return stage.strip(), channels


def _channels(stage: str, first: int, last: int) -> range:
    if last > _LAST_CHANNEL:
        raise InvalidInput(f"{stage} has no channel {last}", field="what")
    if first > last:
        raise InvalidInput(
            f"{stage}:{first}-{last} runs backwards: write the lower channel first, {stage}:{last}-{first}",
            field="what",
        )
    return range(first, last + 1)


def _options(arguments: argparse.Namespace) -> SeeOptions:
    given = {
        "resize": arguments.size,
        "patches": arguments.patches,
        "patch_field": arguments.patch_field,
        "patch_size": arguments.patch_size,
        "projection": arguments.projection,
        "optimize": arguments.optimize,
        "steps": arguments.steps,
        "optimized_size": arguments.optimized_size,
        "seed": arguments.seed,
    }
    options: Any = {name: value for name, value in given.items() if value is not None}
    return options  # type: ignore[no-any-return]


class Shown:
    """Shows event after event.

    Args:
        terminal: Where.
        channels: How many pictures are optimized, if any are.
        preview: The file that shows how they form.
    """

    def __init__(self, terminal: Terminal, channels: int, preview: Path | None) -> None:
        self._terminal = terminal
        self._channels = channels
        self._preview = preview
        self._optimized = 0

    def show(self, event: SeeEvent, meter: Meter) -> None:
        """Prints what there is to print, moves the bar, rewrites the preview."""
        values = plain(event) if not isinstance(event, SeeRefused | SeeResult) else {}
        match event:
            case SeeQueued():
                meter.update(0, None, f"waiting, {event.position} before")
            case SeeProgress():
                meter.update(event.pictures, event.total, "pictures")
            case SeeRefused():
                self._terminal.note(with_name(event.id, event.error.message))
                values = {"index": event.index, "id": event.id, "code": event.error.code.name}
                values["message"] = event.error.message
            case SeePreview():
                done, total = self._optimized * event.steps + event.step, self._channels * event.steps
                meter.update(done, total, f"steps, channel {event.channel}")
                if self._preview:
                    write_atomically(self._preview, encode_picture_as(event.image, self._preview))
            case SeeOptimized():
                self._optimized += 1
                if self._preview:
                    write_atomically(self._preview, encode_picture_as(event.image, self._preview))
        if not isinstance(event, SeeResult):  # that comes when the sheet is written
            self._terminal.event(_NAMES[type(event)], **values)


_NAMES: dict[type[Any], str] = {
    SeeQueued: "queued",
    SeeStarted: "started",
    SeeProgress: "progress",
    SeeRefused: "refused",
    SeePatches: "patches",
    SeePreview: "preview",
    SeeOptimized: "optimized",
    SeeReconnecting: "reconnecting",
}


def _report(result: SeeResult, output: Path, terminal: Terminal) -> None:
    refused = len(result.refused)
    terminal.event(
        "result",
        path=str(output),
        stage=result.stage,
        channels=sorted({*result.patches, *result.optimized}),
        pictures=result.pictures,
        refused=refused,
        timing=result.timing,
        weights_digest=result.weights_digest,
    )
    silent = [str(channel) for channel, patches in result.patches.items() if not patches]
    if silent:
        some = ", ".join(silent[:10]) + (", ..." if len(silent) > 10 else "")
        terminal.say(f"{result.stage}: {counted(len(silent), 'channel')} without a response to any picture: {some}")
    of_pictures = f" of {counted(result.pictures - refused, 'picture')}" if result.pictures else ""
    channels = counted(len({*result.patches, *result.optimized}), "channel")
    terminal.say(f"{output}: {channels} of {result.stage}{of_pictures}")
