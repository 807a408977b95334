"""`gramlet stylize`: paints a picture in the style of another."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from gramlet._sync.calls import Events
from gramlet._sync.client import Client
from gramlet.cli.detaching import add_detach, detach
from gramlet.cli.files import PICTURES, check_directory, check_output, encode_picture_as, write_atomically
from gramlet.cli.terminal import Meter, Terminal
from gramlet.errors import GramletError, InvalidInput
from gramlet.feature.types import GramNormalization, StageBalance, Style
from gramlet.folders import read_folder
from gramlet.inputs import PictureInput
from gramlet.stylize.inputs import StylizeOptions
from gramlet.stylize.types import (
    Adjusted,
    Checkpoint,
    Colors,
    Iteration,
    LineSearch,
    Optimizer,
    Preview,
    Queued,
    Recovered,
    RemoteProgress,
    Result,
    ScaleStarted,
    Started,
    StylizeEvent,
    SweepEvent,
    SweepResult,
)

HELP = "paint a picture in the style of another"
_PREVIEW_EVERY = 10
_OPTIONS = tuple(StylizeOptions.__annotations__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the pictures, the output and every setting."""
    add_pictures(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="where to write the result: .png, .jpg, ...; of several, a folder",
    )
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
        "--frame-iterations", type=int, metavar="N", help="of each frame after the first; default: a quarter"
    )
    parser.add_argument("--previous", metavar="FILE", help="the frame before, of which --initial is the painting")
    parser.add_argument("--resume", metavar="RUN", help="go on with an interrupted run instead")
    parser.add_argument("--run-id", help="name of the run; default: a random one")
    add_detach(parser)
    parser.add_argument("--keep-inputs", action="store_true", help="keep the pictures in the server's store")
    parser.add_argument("--preview", type=Path, metavar="FILE", help="rewrite this picture as the run goes on")
    parser.add_argument(
        "--preview-every", type=int, metavar="N", help=f"iterations between previews ({_PREVIEW_EVERY})"
    )
    parser.add_argument("--state-seconds", type=float, metavar="S", help="seconds between checkpoints")
    add_settings(parser)


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Adds what is stylized, and with what."""
    parser.add_argument("content", nargs="?", help="the picture whose contents are kept")
    parser.add_argument("style", nargs="*", help="the picture whose style is taken; several are blended")
    parser.add_argument("--blend", type=numbers, metavar="W,W", help="shares of several styles; default: equal")
    for name, where in (("content", "of the result where a style rules"), ("style", "of a style picture that counts")):
        parser.add_argument(
            f"--{name}-region",
            action="append",
            metavar="MASK",
            help=f"the part {where}, white on black; once a style, in their order, '-' for all of it",
        )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds every setting of a stylization."""
    group = parser.add_argument_group("settings", "What is left out follows the preset.")
    group.add_argument("--preset", help="default, classic, ...: see `gramlet status`")
    group.add_argument("--size", type=int, help="longest side of the result, in pixels")
    group.add_argument("--iterations", type=int, help="iterations of the optimizer")
    group.add_argument("--content-stage", metavar="STAGE", help="where contents are compared")
    add_weights(group)
    group.add_argument("--gram-normalization", choices=_values(GramNormalization), help="divisor of Gram matrices")
    group.add_argument("--stage-balance", choices=_values(StageBalance), help="divisor of the losses")
    group.add_argument("--initial", help="where to start: content, style, noise, or a picture")
    group.add_argument("--seed", type=int, help="seed of all noise")
    group.add_argument("--optimizer", choices=_values(Optimizer))
    group.add_argument("--learning-rate", type=float, metavar="R")
    group.add_argument("--history-size", type=int, metavar="N", help="pairs of vectors that L-BFGS remembers")
    group.add_argument("--line-search", choices=_values(LineSearch))
    group.add_argument(
        "--antialiased",
        action=argparse.BooleanOptionalAction,
        help="no grid from a residual network, at twice the work",
    )
    group.add_argument("--scales", type=int, metavar="N", help="scales, coarse to fine, that share the iterations")
    group.add_argument("--style-size", type=int, metavar="N", help="longest side of the style: the larger, the strokes")
    group.add_argument("--colors", choices=_values(Colors), help="whose colors the result has")


def add_weights(group: argparse._ArgumentGroup) -> None:
    """Adds the weights, which can be changed in a run under way as well."""
    group.add_argument("--style-stages", type=_weights, metavar="STAGE[=W],...", help="where styles are compared")
    group.add_argument("--content-weight", type=float, metavar="W")
    group.add_argument("--style-weight", type=float, metavar="W")
    group.add_argument("--total-variation-weight", type=float, metavar="W")


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Runs or resumes a stylization, shows how it goes, and writes the result; 1 if some of several pictures failed."""
    is_folder = bool(arguments.content) and Path(arguments.content).is_dir()
    contents = contents_of(arguments)
    if arguments.sequence or is_folder or len(contents) > 1:
        return run_set(arguments, contents, client, terminal)
    if arguments.detach:
        return detach(_events(arguments, client), terminal)
    check_output(output_of(arguments), PICTURES, "--output")
    if arguments.preview:
        check_output(arguments.preview, PICTURES, "--preview")
    shown = Shown(terminal, arguments.output, arguments.preview)
    try:
        with _events(arguments, client) as events, terminal.log(), terminal.progress("stylizing") as meter:
            for event in events:
                shown.show(event, meter)
    except KeyboardInterrupt:
        if shown.checkpoint:
            terminal.note(f"go on with: gramlet stylize --resume {shown.run_id} -o {arguments.output}")
        raise
    return 0


def _events(arguments: argparse.Namespace, client: Client) -> Events[StylizeEvent, Result]:
    preview_every = (arguments.preview_every or _PREVIEW_EVERY) if arguments.preview else 0
    if check_pictures(arguments):
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


def output_of(arguments: argparse.Namespace) -> Path:
    """Where to write the result.

    Raises:
        InvalidInput: The command line does not say.
    """
    output: Path | None = arguments.output
    if output is None:
        raise InvalidInput("say where to write the result", field="--output")
    return output


def contents_of(arguments: argparse.Namespace) -> list[Path]:
    """The pictures to paint: those of a folder, or those before `--style`; the rest are styles from now on.

    Raises:
        InvalidInput: A folder without pictures.
    """
    given = [arguments.content] if arguments.content else []
    if arguments.styles:
        given, arguments.style = [*given, *arguments.style], arguments.styles
    contents = [path for each in map(Path, given) for path in (_pictures_in(each) if each.is_dir() else [each])]
    arguments.content = str(contents[0]) if len(contents) == 1 else arguments.content
    return contents


def _pictures_in(folder: Path) -> list[Path]:
    return [Path(path) for path in read_folder(folder, labels=False, field="content")]


def run_set(arguments: argparse.Namespace, contents: list[Path], client: Client, terminal: Terminal) -> int:
    """Paints several pictures into a folder; 1 if some failed."""
    check_pictures(arguments)
    check_directory(output_of(arguments), "--output")
    for option in ("resume", "run_id", "preview", "previous", "state_seconds", "detach", "keep_inputs"):
        if getattr(arguments, option) not in (None, False):
            raise InvalidInput("goes with one picture, not with several", field=f"--{option.replace('_', '-')}")
    outputs = [arguments.output / f"{content.stem}.png" for content in contents]
    if len(set(outputs)) < len(outputs):
        raise InvalidInput("two pictures of the same name: paint them separately", field="content")
    failed = 0
    with terminal.log(), terminal.progress("stylizing") as meter:
        events = client.stylize_set(
            contents,
            styles_of(arguments),
            sequence=arguments.sequence,
            frame_iterations=arguments.frame_iterations,
            initial=arguments.initial,
            **settings_of(arguments),
        )
        for step in events:
            content, event = contents[step.index], step.event
            if isinstance(event, GramletError):
                failed += 1
                terminal.note(f"{content}: {event.message}")
                terminal.event("error", picture=str(content), code=event.code.name, message=event.message)
                continue
            told = values_of(event)
            if isinstance(event, Result):
                write_picture(event, outputs[step.index])
                told["path"] = str(outputs[step.index])
                terminal.say(f"{outputs[step.index]}: {event.iteration} iterations, loss {event.loss:.4g}")
            done = step.index + isinstance(event, Result)
            meter.update(done, len(contents), f"{content.name}, iteration {event.iteration}")
            terminal.event(type(event).__name__.lower(), picture=str(content), **told)
    return 1 if failed else 0


def check_pictures(arguments: argparse.Namespace) -> bool:
    """Whether a run is to be resumed, rather than made of pictures.

    Raises:
        InvalidInput: Both, or neither.
    """
    if arguments.resume and arguments.content:
        raise InvalidInput("a resumed run has its pictures already: leave them out", field="--resume")
    if not (arguments.resume or arguments.style):
        raise InvalidInput("give a content picture and a style picture", field="style")
    return bool(arguments.resume)


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line gives."""
    return {name: getattr(arguments, name) for name in _OPTIONS}


def styles_of(arguments: argparse.Namespace) -> list[Style[PictureInput]]:
    """The styles, with their shares and regions."""
    styles: list[str] = arguments.style

    def one_each(values: list[Any] | None, default: Any, what: str, flag: str) -> list[Any]:
        if values is not None and len(values) != len(styles):
            raise InvalidInput(f"{len(values)} {what} for {len(styles)} styles", field=flag)
        return [default] * len(styles) if values is None else values

    def regions(name: str) -> list[str | None]:
        masks = one_each(getattr(arguments, f"{name}_region"), None, "masks", f"--{name}-region")
        return [None if mask == "-" else mask for mask in masks]

    shares = one_each(arguments.blend, 1.0, "shares", "--blend")
    return [Style(*parts) for parts in zip(styles, shares, regions("content"), regions("style"), strict=True)]


class Shown:
    """What of a run was shown; shows the next event."""

    def __init__(self, terminal: Terminal, output: Path | None, preview: Path | None) -> None:
        self._terminal = terminal
        self._output = output
        self._preview = preview
        self._total: int | None = None
        self.run_id = ""
        self.checkpoint = False

    def show(self, event: StylizeEvent, meter: Meter) -> None:
        """Writes pictures, prints what there is to print, moves the bar."""
        self.run_id = event.run_id
        extra: dict[str, Any] = {}
        match event:
            case Queued():
                meter.update(0, None, f"waiting, {event.position} before")
            case Started():
                self._total = event.settings.iterations
                meter.update(event.iteration, self._total)
            case ScaleStarted() if event.iteration:
                self._terminal.note(f"{event.width} x {event.height} px from iteration {event.iteration + 1} on")
            case Iteration():
                meter.update(event.iteration, self._total, f"loss {event.loss:.4g}, run {event.run_id}")
            case Preview() if self._preview:
                write_atomically(self._preview, encode_picture_as(event.image, self._preview))
                extra["path"] = str(self._preview)
            case Checkpoint():
                self.checkpoint = True
            case Adjusted():
                self._terminal.note(f"weights changed after iteration {event.iteration}")
            case Recovered():
                self._terminal.note(event.message or event.reason.value)
            case RemoteProgress():
                meter.update(event.iteration, event.total or None, f"loss {event.loss:.4g}, on another replica")
            case Result():
                if self._output:
                    write_picture(event, self._output)
                    extra["path"] = str(self._output)
                where = self._output or event.run_id
                self._terminal.say(f"{where}: {event.iteration} iterations, loss {event.loss:.4g}")
        self._terminal.event(type(event).__name__.lower(), **values_of(event), **extra)


def write_picture(result: Result | SweepResult, path: Path) -> None:
    """Writes the picture in the format that the path's extension names; a `.png` gets the very bytes that came."""
    is_png = path.suffix.lower() == ".png"
    write_atomically(path, result.png if is_png else encode_picture_as(result.image, path))


def values_of(event: StylizeEvent | SweepEvent) -> dict[str, Any]:
    """An event as JSON has it, without its pictures."""
    return {
        field.name: as_json(value)
        for field in dataclasses.fields(event)
        if not isinstance(value := getattr(event, field.name), bytes)
    }


def as_json(value: Any) -> Any:
    """A value of `gramlet.types` as JSON has it, without what is None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: as_json(item)
            for field in dataclasses.fields(value)
            if (item := getattr(value, field.name)) is not None
        }
    if isinstance(value, Enum):
        return value.value
    return dict(value) if isinstance(value, Mapping) else value


def _values(kind: type[Enum]) -> list[str]:
    return [member.value for member in kind]


def numbers(text: str) -> list[float]:
    """`1,2.5` as numbers."""
    return [float(part) for part in text.split(",")]


def _weights(text: str) -> dict[str, float]:
    pairs = (part.partition("=") for part in text.split(","))
    return {stage.strip(): float(weight) if weight else 1.0 for stage, _, weight in pairs}
