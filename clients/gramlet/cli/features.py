"""`gramlet features`: activations, Gram matrices and pooled features of pictures, as .npz files."""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np

from gramlet._sync.client import Client
from gramlet.cli.files import check_directory, check_output, write_atomically
from gramlet.cli.terminal import Terminal
from gramlet.errors import GramletError, InvalidInput
from gramlet.feature.inputs import make_extraction
from gramlet.feature.types import Features, GramNormalization
from gramlet.types import ElementType, Resize, ResizeMode

HELP = "write what the network sees in pictures to .npz files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the pictures, the output and what to extract."""
    parser.add_argument("pictures", nargs="+", type=Path, metavar="picture")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help=".npz file; for several pictures a directory of them"
    )
    parser.add_argument("--stages", required=True, metavar="STAGE,...", help="see `gramlet status`")
    parser.add_argument(
        "--activations", action="store_true", help="(C, H, W); the default if nothing else is asked for"
    )
    parser.add_argument("--gram", action="store_true", help="Gram matrices (C, C)")
    parser.add_argument("--pooled", action="store_true", help="means over positions (C,)")
    parser.add_argument("--gram-normalization", choices=[n.value for n in GramNormalization], default="none")
    parser.add_argument("--element-type", choices=["float32", "float16", "bfloat16"], default=ElementType.FLOAT32.value)
    parser.add_argument("--size", type=int, help="resize to this many pixels; default: pictures keep their size")
    parser.add_argument(
        "--resize",
        choices=[mode.value for mode in ResizeMode if mode is not ResizeMode.KEEP],
        default=ResizeMode.LONGEST_SIDE.value,
        help="what --size measures",
    )


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Extracts and writes; 1 if some of several pictures failed."""
    outputs = _outputs(arguments.pictures, arguments.output)
    extraction = make_extraction(
        stages=arguments.stages.split(","),
        activations=arguments.activations or None,
        gram=arguments.gram,
        pooled=arguments.pooled,
        gram_normalization=arguments.gram_normalization,
        element_type=arguments.element_type,
        resize=Resize(ResizeMode(arguments.resize), arguments.size) if arguments.size is not None else None,
    )
    failed = 0
    with terminal.log(), terminal.progress("extracting") as meter:
        outcomes = client.extract(arguments.pictures, extraction)
        for done, (picture, output, outcome) in enumerate(zip(arguments.pictures, outputs, outcomes, strict=True), 1):
            if isinstance(outcome, GramletError) and len(outputs) == 1:
                raise type(outcome)(outcome.message, field=str(picture))
            if isinstance(outcome, GramletError):
                failed += 1
                terminal.note(f"{picture}: {outcome.message}")
                terminal.event("error", picture=str(picture), code=outcome.code.name, message=outcome.message)
            else:
                _write(picture, output, outcome, terminal)
            meter.update(done, len(outputs), picture.name)
    return 1 if failed else 0


def _outputs(pictures: list[Path], output: Path) -> list[Path]:
    if len(pictures) == 1 and not output.is_dir():
        check_output(output, [".npz"], "--output")
        return [output]
    check_directory(output, "--output")
    outputs = [output / f"{picture.name}.npz" for picture in pictures]
    if len(set(outputs)) < len(outputs):
        raise InvalidInput("two pictures of the same name: extract them separately", field="pictures")
    return outputs


def _write(picture: Path, output: Path, features: Features, terminal: Terminal) -> None:
    arrays = {
        f"{stage}.{form}": array
        for form, by_stage in (
            ("activations", features.activations),
            ("gram", features.grams),
            ("pooled", features.pooled),
        )
        for stage, array in by_stage.items()
    }
    file = BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # the stubs take every keyword for allow_pickle
    write_atomically(output, file.getvalue())
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    terminal.event("features", picture=str(picture), path=str(output), arrays=shapes)
    terminal.say(f"{output}: " + ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items()))
