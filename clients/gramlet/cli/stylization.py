"""What `stylize`, `adjust` and `sweep` have in common: their arguments, and how pictures are written."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gramlet.cli.arguments import numbers, values_of, weights
from gramlet.errors import InvalidInput, counted
from gramlet.feature.types import GramNormalization, StageBalance, Style
from gramlet.inputs.pictures import PictureInput, existing
from gramlet.stylize.inputs import StylizeOptions
from gramlet.stylize.types import Colors, LineSearch, Optimizer

FIELDS = {
    "style": ("styles", "style"),
    "style.weight": "blend",
    "style.content_region": "content_region",
    "style.style_region": "style_region",
    "run_id": ("resume", "run_id"),
    "deepest_stages": "deepest",
    "optimizers": "compare",
}
"""The flags for keywords of `stylize` and `sweep` that have other names."""

_OPTIONS = tuple(StylizeOptions.__annotations__)


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
    group = parser.add_argument_group(
        "settings", "What is left out follows the preset, whose values `gramlet presets` shows."
    )
    group.add_argument("--preset", help="complete settings: default, classic, ...: see `gramlet presets` (default)")
    group.add_argument("--size", type=int, help="longest side of the result, in pixels")
    group.add_argument("--iterations", type=int, help="iterations of the optimizer")
    group.add_argument("--content-stage", metavar="STAGE", help="where contents are compared")
    add_weights(group)
    group.add_argument("--gram-normalization", choices=values_of(GramNormalization), help="divisor of Gram matrices")
    group.add_argument("--stage-balance", choices=values_of(StageBalance), help="divisor of the losses")
    group.add_argument("--initial", help="where to start: content, style, noise, or a picture")
    group.add_argument("--seed", type=int, help="seed of all noise")
    group.add_argument("--optimizer", choices=values_of(Optimizer), help="of the picture")
    group.add_argument("--learning-rate", type=float, metavar="R", help="of the optimizer (lbfgs 1, adam and gd 0.02)")
    group.add_argument("--history-size", type=int, metavar="N", help="pairs of vectors that L-BFGS remembers")
    group.add_argument("--line-search", choices=values_of(LineSearch), help="of L-BFGS")
    group.add_argument("--momentum", type=float, metavar="M", help="of gradient descent, 0 to less than 1")
    group.add_argument(
        "--antialiased",
        action=argparse.BooleanOptionalAction,
        help="no grid from a residual network, at twice the work",
    )
    group.add_argument("--scales", type=int, metavar="N", help="scales, coarse to fine, that share the iterations")
    group.add_argument("--style-size", type=int, metavar="N", help="longest side of the style: the larger, the strokes")
    group.add_argument("--colors", choices=values_of(Colors), help="whose colors the result has")


def add_weights(group: argparse._ArgumentGroup) -> None:
    """Adds the weights, which can be changed in a run under way as well."""
    group.add_argument("--style-stages", type=weights, metavar="STAGE[=W],...", help="where styles are compared")
    group.add_argument("--content-weight", type=float, metavar="W", help="of the content loss")
    group.add_argument("--style-weight", type=float, metavar="W", help="of the style loss")
    group.add_argument("--total-variation-weight", type=float, metavar="W", help="of the total variation: smoothness")


def contents_of(arguments: argparse.Namespace) -> list[str]:
    """The contents that are given: all pictures before `--style`. The rest of the command then knows them as styles."""
    contents = [arguments.content] if arguments.content else []
    if arguments.styles:
        contents, arguments.style = [*contents, *arguments.style], arguments.styles
    return contents


def inputs_of(arguments: argparse.Namespace) -> list[str]:
    """The files that a stylization reads."""
    masks = [*(arguments.content_region or ()), *(arguments.style_region or ())]
    given = [arguments.content, getattr(arguments, "previous", None), arguments.initial, *arguments.style, *masks]
    return [path for path in given if path is not None]


def refuse_options(arguments: argparse.Namespace, options: Iterable[str], reason: str) -> None:
    """Refuses options that were given, for a reason.

    Raises:
        InvalidInput: One was given.
    """
    for option in options:
        if getattr(arguments, option) not in (None, False):
            raise InvalidInput(reason, field=f"--{option.replace('_', '-')}")


def check_existing(arguments: argparse.Namespace) -> None:
    """Finds out whether the pictures exist, before anything is said of the output.

    Raises:
        NotFound: One does not exist.
    """
    styles = {f"style[{number}]": path for number, path in enumerate(arguments.style)}
    for field, path in {"content": arguments.content, **styles}.items():
        if path is not None:
            existing(path, field)


def output_of(arguments: argparse.Namespace) -> Path:
    """Where to write the result.

    Raises:
        InvalidInput: The command line does not say.
    """
    output: Path | None = arguments.output
    if output is None:
        raise InvalidInput("say where to write the result", field="--output")
    return output


def check_pictures(arguments: argparse.Namespace) -> None:
    """Finds out whether there is what a run needs, before anything is said of the output: pictures, or a run to resume.

    Raises:
        InvalidInput: Both, or neither.
        NotFound: A picture does not exist.
    """
    if arguments.resume and arguments.content:
        raise InvalidInput("a resumed run has its pictures already: leave them out", field="--resume")
    if not (arguments.resume or arguments.style):
        raise InvalidInput("give a content picture and a style picture", field="style")
    check_existing(arguments)


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line gives."""
    return {name: getattr(arguments, name) for name in _OPTIONS}


def styles_of(arguments: argparse.Namespace) -> list[Style[PictureInput]]:
    """The styles, with their shares and regions."""
    styles: list[str] = arguments.style

    def one_each(values: list[Any] | None, default: Any, what: str, flag: str) -> list[Any]:
        if values is not None and len(values) != len(styles):
            raise InvalidInput(f"{counted(len(values), what)} for {counted(len(styles), 'style')}", field=flag)
        return [default] * len(styles) if values is None else values

    def regions(name: str) -> list[str | None]:
        masks = one_each(getattr(arguments, f"{name}_region"), None, "mask", f"--{name}-region")
        return [None if mask == "-" else mask for mask in masks]

    shares = one_each(arguments.blend, 1.0, "share", "--blend")
    return [Style(*parts) for parts in zip(styles, shares, regions("content"), regions("style"), strict=True)]
