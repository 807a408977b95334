"""`gramlet features`: activations, Gram matrices and pooled features of pictures, as .npz files."""

from __future__ import annotations

import argparse
import os
from io import BytesIO
from pathlib import Path

import numpy as np

from gramlet._sync.client import Client
from gramlet.cli.arguments import file_path, names, values_of
from gramlet.cli.files import check_directory, check_output, outputs_of, write_atomically
from gramlet.cli.pictures import pictures_of, show_failure, with_name
from gramlet.cli.terminal import Terminal
from gramlet.errors import GramletError
from gramlet.feature.inputs import make_extraction
from gramlet.feature.types import Extraction, Features, GramNormalization
from gramlet.folders import FolderPicture
from gramlet.types import ElementType, Resize, ResizeMode

FIELDS = {"resize": "size"}
HELP = "write what the network sees in pictures to .npz files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the pictures, the output and what to extract."""
    parser.add_argument("pictures", nargs="+", type=file_path, metavar="picture", help="files, and folders of them")
    parser.add_argument(
        "-o", "--output", type=file_path, required=True, help=".npz file; for several pictures a folder of them"
    )
    parser.add_argument("--stages", type=names, required=True, metavar="STAGE,...", help="see `gramlet status`")
    parser.add_argument(
        "--activations", action="store_true", help="(C, H, W); the default if nothing else is asked for"
    )
    parser.add_argument("--gram", action="store_true", help="Gram matrices (C, C)")
    parser.add_argument("--pooled", action="store_true", help="means over positions (C,)")
    parser.add_argument(
        "--gram-normalization",
        choices=values_of(GramNormalization),
        default=GramNormalization.NONE.value,
        help="divisor of Gram matrices (%(default)s)",
    )
    parser.add_argument(
        "--element-type",
        choices=["float32", "float16", "bfloat16"],
        default=ElementType.FLOAT32.value,
        help="type in which numbers travel; files hold float32 (%(default)s)",
    )
    parser.add_argument("--size", type=int, help="resize to this many pixels; default: pictures keep their size")
    parser.add_argument(
        "--resize",
        choices=[mode for mode in values_of(ResizeMode) if mode != ResizeMode.KEEP.value],
        default=ResizeMode.LONGEST_SIDE.value,
        help="what --size measures (%(default)s)",
    )


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Extracts and writes; 1 if some of several pictures failed."""
    pictures = pictures_of(arguments.pictures, terminal)
    outputs = _outputs(arguments, pictures)
    outcomes = client.extract([picture.source for picture in pictures], _extraction(arguments))
    failed = 0
    with terminal.progress("extracting") as meter:
        for done, (picture, output, outcome) in enumerate(zip(pictures, outputs, outcomes, strict=True), 1):
            try:
                if isinstance(outcome, GramletError):
                    raise type(outcome)(with_name(picture.source, outcome.message))
                _write(picture.source, output, outcome, terminal)
            except (GramletError, OSError) as error:
                if len(outputs) == 1:
                    raise
                failed += 1
                show_failure(picture.source, error, terminal)
            meter.update(done, len(outputs), picture.name)
    return 1 if failed else 0


def _extraction(arguments: argparse.Namespace) -> Extraction:
    return make_extraction(
        stages=arguments.stages,
        activations=arguments.activations or None,
        gram=arguments.gram,
        pooled=arguments.pooled,
        gram_normalization=arguments.gram_normalization,
        element_type=arguments.element_type,
        resize=Resize(ResizeMode(arguments.resize), arguments.size) if arguments.size is not None else None,
    )


def _outputs(arguments: argparse.Namespace, pictures: list[FolderPicture]) -> list[Path]:
    output: Path = arguments.output
    is_one = len(arguments.pictures) == 1 and not os.path.isdir(arguments.pictures[0])
    if is_one and not os.path.isdir(output):
        check_output(output, [".npz"], "--output", [picture.source for picture in pictures])
        return [output]
    check_directory(output, "--output")
    outputs = outputs_of(pictures, output, ".npz", replace=False)
    for folder in dict.fromkeys(path.parent for path in outputs):
        check_directory(folder, "--output")
    return outputs


def _write(picture: str, output: Path, features: Features, terminal: Terminal) -> None:
    by_form = {"activations": features.activations, "gram": features.grams, "pooled": features.pooled}
    arrays = {f"{stage}.{form}": array for form, by_stage in by_form.items() for stage, array in by_stage.items()}
    file = BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # the stubs take every keyword for allow_pickle
    write_atomically(output, file.getvalue())
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    terminal.event("features", picture=picture, path=str(output), arrays=shapes)
    terminal.say(f"{output}: " + ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items()))
