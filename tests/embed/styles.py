"""Three labeled sets of styles that this script draws: the default descriptor of a map was chosen on them.

    textures    shapes filled with one of ten patterns, of random scale, direction and colors
    renditions  crops of scikit-image's photographs, each rendered in one of eight ways
    painters    drawn landscapes, each painted in one of eight ways

Contents, colors and sizes are random, so that they say nothing about the label. `python -m tests.embed.styles FOLDER`
writes the sets as folders of pictures, one sub-folder for each label.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from scipy import ndimage

SIDE = 224
EACH = 24

Picture = Image.Image
Random = np.random.Generator


def color(random: Random, low: int = 20, high: int = 236) -> tuple[int, ...]:
    """A random color."""
    return tuple(random.integers(low, high, 3).tolist())


# --- textures: a pattern (SIDE, SIDE) in 0..1 ---


def _coordinates(random: Random) -> tuple[np.ndarray, np.ndarray]:
    """Turned, scaled and shifted coordinates of the pixels."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(float)
    angle, scale = random.uniform(0, np.pi), random.uniform(0.6, 1.7)
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    return x * cos - y * sin + random.uniform(0, 40), x * sin + y * cos + random.uniform(0, 40)


def _noise(random: Random, blur: float | tuple[float, float]) -> np.ndarray:
    smooth = ndimage.gaussian_filter(random.normal(size=(SIDE, SIDE)), blur, mode="wrap")
    return np.clip(0.5 + smooth / (4 * smooth.std()), 0, 1)


PATTERNS: dict[str, Callable[[Random, np.ndarray, np.ndarray], np.ndarray]] = {
    "stripes": lambda random, x, y: (x % 9 < 4.5).astype(float),
    "dots": lambda random, x, y: ((x % 12 - 6) ** 2 + (y % 12 - 6) ** 2 < 14).astype(float),
    "bricks": lambda random, x, y: 1.0 - ((y % 9 < 1.5) | ((x + 9 * (y // 9 % 2)) % 18 < 1.5)),
    "waves": lambda random, x, y: 0.5 + 0.5 * np.sin((y + 4 * np.sin(x / 6)) / 2.2),
    "checks": lambda random, x, y: ((x // 7 + y // 7) % 2).astype(float),
    "rings": lambda random, x, y: 0.5 + 0.5 * np.sin(np.hypot(x % 40 - 20, y % 40 - 20)),
    "speckles": lambda random, x, y: random.random((SIDE, SIDE)),
    "clouds": lambda random, x, y: _noise(random, random.uniform(4, 9)),
    "fibres": lambda random, x, y: _noise(random, (0.6, random.uniform(6, 12))),
    "cells": lambda random, x, y: np.clip(np.abs(_noise(random, random.uniform(3, 6)) - 0.5) * 8, 0, 1),
}


def texture(label: str, random: Random) -> Picture:
    """A few shapes in random colors, all filled with one pattern of random contrast."""
    light = PATTERNS[label](random, *_coordinates(random))[..., None]
    shapes = np.asarray(_shapes(random).filter(ImageFilter.GaussianBlur(1)))
    contrast = random.uniform(0.3, 0.8)
    noisy = shapes * (1 - contrast + contrast * light * 1.4) + random.normal(0, 6, shapes.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _shapes(random: Random, count: int = 5) -> Picture:
    picture = Image.new("RGB", (SIDE, SIDE), color(random, 70))
    pen = ImageDraw.Draw(picture)
    for _ in range(count):
        x, y, width, height = random.integers([0, 0, 30, 30], [SIDE, SIDE, 140, 140]).tolist()
        shape = pen.ellipse if random.random() < 0.5 else pen.rectangle
        shape((x - width // 2, y - height // 2, x + width // 2, y + height // 2), fill=color(random, 70))
    return picture


# --- renditions of photographs ---

_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")


@cache
def _photo(name: str) -> Picture:
    from skimage import data

    return Image.fromarray(getattr(data, name)()[..., :3])


def photograph(random: Random) -> Picture:
    """A random crop of a random photograph, in random light and colors."""
    picture = _photo(_PHOTOS[random.integers(len(_PHOTOS))])
    side = int(min(picture.size) * random.uniform(0.4, 0.9))
    left, top = (int(random.integers(0, free - side + 1)) for free in picture.size)
    cropped = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(cropped)[..., random.permutation(3)] * random.uniform(0.6, 1.2, 3) + random.uniform(-20, 30)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _oil(picture: Picture, random: Random) -> Picture:
    return picture.filter(ImageFilter.ModeFilter(int(random.choice([5, 7, 9]))))


def _points(picture: Picture, random: Random) -> Picture:
    sheet = Image.new("RGB", picture.size, color(random, 180))
    pen, pixels, radius = ImageDraw.Draw(sheet), np.asarray(picture), random.uniform(1.8, 4.0)
    for x, y in random.uniform(0, SIDE, (int(SIDE * SIDE / radius**2 / 2.2), 2)):
        dab = np.clip(pixels[int(y), int(x)] + random.normal(0, 25, 3), 0, 255).astype(int)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(dab.tolist()))
    return sheet


def _hatched(picture: Picture, random: Random) -> Picture:
    gray = np.asarray(ImageOps.autocontrast(ImageOps.grayscale(picture))) / 255
    (x, y), pitch = _coordinates(random), random.uniform(4, 7)
    lines = [(x % pitch < 1.2, 0.75), (y % pitch < 1.2, 0.5), ((x + y) % pitch < 1.2, 0.3)]
    inked = np.zeros((SIDE, SIDE), bool)
    for line, darker in lines:
        inked |= line & (gray < darker + random.normal(0, 0.05, gray.shape))
    ink, paper = np.array(color(random, 0, 100)), np.array(color(random, 180))
    return Image.fromarray(np.where(inked[..., None], ink, paper).astype(np.uint8))


def _mosaic(picture: Picture, random: Random) -> Picture:
    tiles = int(random.integers(18, 36))
    small = picture.resize((tiles, tiles), Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST)
    grid = np.arange(SIDE) * tiles / SIDE % 1 < 0.12
    pixels = np.asarray(small).copy()
    pixels[grid[:, None] | grid[None, :]] = color(random, 20, 120)
    return Image.fromarray(pixels)


def _wash(picture: Picture, random: Random) -> Picture:
    flat = ImageOps.posterize(picture.filter(ImageFilter.GaussianBlur(random.uniform(3, 6))), 3)
    soft = np.asarray(flat.filter(ImageFilter.GaussianBlur(1.5))) * (0.8 + 0.3 * _noise(random, 3))[..., None]
    return Image.fromarray(np.clip(soft * 0.75 + 60, 0, 255).astype(np.uint8))


def _halftone(picture: Picture, random: Random) -> Picture:
    x, y = _coordinates(random)
    pitch = random.uniform(4, 7)
    screen = 0.5 + 0.25 * (np.cos(x * 2 * np.pi / pitch) + np.cos(y * 2 * np.pi / pitch))
    return Image.fromarray(((np.asarray(picture) / 255 > screen[..., None]) * 255).astype(np.uint8))


def _relief(picture: Picture, random: Random) -> Picture:
    gray = ndimage.gaussian_filter(np.asarray(ImageOps.grayscale(picture)).astype(float), 1.2)
    angle = random.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * ndimage.sobel(gray, 0) + np.sin(angle) * ndimage.sobel(gray, 1)
    tone = np.array(color(random, 80, 200))
    return Image.fromarray(np.clip(tone + slope[..., None] * random.uniform(0.5, 1.0), 0, 255).astype(np.uint8))


RENDITIONS: dict[str, Callable[[Picture, Random], Picture]] = {
    "photograph": lambda picture, random: picture,
    "oil": _oil,
    "points": _points,
    "hatched": _hatched,
    "mosaic": _mosaic,
    "wash": _wash,
    "halftone": _halftone,
    "relief": _relief,
}


def rendition(label: str, random: Random) -> Picture:
    """A photograph rendered in one way."""
    return RENDITIONS[label](photograph(random), random)


# --- painters of drawn landscapes ---


def landscape(random: Random) -> Picture:
    """Sky, hills, water and a few things on them, in flat random colors."""
    picture = Image.new("RGB", (SIDE, SIDE), color(random, 80))
    pen = ImageDraw.Draw(picture)
    for number in range(int(random.integers(2, 5))):
        height, xs = 60 + 40 * number, np.linspace(0, SIDE, 9)
        ridge = height + random.normal(0, 18, 9)
        pen.polygon([*zip(xs.tolist(), ridge.tolist(), strict=True), (SIDE, SIDE), (0, SIDE)], fill=color(random))
    for _ in range(int(random.integers(2, 7))):
        x, y, size = random.integers([0, 0, 10], [SIDE, SIDE, 60]).tolist()
        shape = pen.ellipse if random.random() < 0.6 else pen.rectangle
        shape((x - size // 2, y - size // 2, x + size // 2, y + size // 2), fill=color(random))
    return picture


def _strokes(random: Random, *, length: float, width: float, count: int, wander: float, jitter: float) -> Picture:
    """A landscape painted with strokes along a field of directions that turns by `wander`."""
    model = np.asarray(landscape(random).filter(ImageFilter.GaussianBlur(2)))
    field = (_noise(random, random.uniform(15, 30)) * 2 - 1) * wander + random.uniform(0, np.pi)
    sheet = Image.fromarray(model)
    pen = ImageDraw.Draw(sheet)
    for x, y in random.uniform(0, SIDE, (count, 2)):
        points, (px, py) = [], (x, y)
        for _ in range(5):
            points.append((px, py))
            angle = field[int(np.clip(py, 0, SIDE - 1)), int(np.clip(px, 0, SIDE - 1))]
            px, py = px + np.cos(angle) * length / 4, py + np.sin(angle) * length / 4
        dab = np.clip(model[int(y), int(x)] + random.normal(0, jitter, 3), 0, 255).astype(int)
        pen.line(points, fill=tuple(dab.tolist()), width=max(1, round(width * random.uniform(0.7, 1.3))))
    return sheet


def _facets(random: Random) -> Picture:
    model, sheet = np.asarray(landscape(random)), Image.new("RGB", (SIDE, SIDE), color(random))
    pen = ImageDraw.Draw(sheet)
    for x, y in random.uniform(0, SIDE, (int(random.integers(150, 260)), 2)):
        angles = np.sort(random.uniform(0, 2 * np.pi, 4))
        size = random.uniform(12, 34)
        corners = np.column_stack([x + size * np.cos(angles), y + size * np.sin(angles)])
        shade = np.clip(model[int(y), int(x)] + random.normal(0, 30), 0, 255).astype(int)
        pen.polygon([tuple(corner) for corner in corners.tolist()], fill=tuple(shade.tolist()))
    return sheet


def _outlined(random: Random) -> Picture:
    flat = landscape(random)
    edges = np.asarray(ImageOps.grayscale(flat.filter(ImageFilter.FIND_EDGES)).filter(ImageFilter.MaxFilter(3))) > 12
    pixels = np.asarray(flat).copy()
    pixels[edges] = color(random, 0, 60)
    return Image.fromarray(pixels)


def _drips(random: Random) -> Picture:
    sheet = landscape(random).filter(ImageFilter.GaussianBlur(12))
    pen = ImageDraw.Draw(sheet)
    for _ in range(int(random.integers(30, 70))):
        steps = ndimage.gaussian_filter1d(random.normal(0, 14, (60, 2)), 3, axis=0)
        points = random.uniform(0, SIDE, 2) + steps.cumsum(axis=0)
        pen.line(
            [tuple(point) for point in points.tolist()], fill=color(random, 0, 256), width=int(random.integers(1, 4))
        )
    return sheet


def _fields(random: Random) -> Picture:
    sheet = Image.new("RGB", (SIDE, SIDE), color(random))
    pen, top = ImageDraw.Draw(sheet), 10
    while top < SIDE - 30:
        height = int(random.integers(30, 90))
        pen.rectangle((12, top, SIDE - 12, min(top + height, SIDE - 10)), fill=color(random))
        top += height + int(random.integers(4, 12))
    soft = np.asarray(sheet.filter(ImageFilter.GaussianBlur(random.uniform(2, 5))))
    return Image.fromarray(np.clip(soft * (0.9 + 0.2 * _noise(random, 1.5))[..., None], 0, 255).astype(np.uint8))


def _sfumato(random: Random) -> Picture:
    soft = np.asarray(landscape(random).filter(ImageFilter.GaussianBlur(random.uniform(5, 10)))).astype(float)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    light = 1.15 - 1.2 * (x**2 + y**2)
    return Image.fromarray(np.clip(soft * light[..., None] + random.normal(0, 3, soft.shape), 0, 255).astype(np.uint8))


PAINTERS: dict[str, Callable[[Random], Picture]] = {
    "long strokes": lambda random: _strokes(random, length=34, width=4, count=2600, wander=4, jitter=22),
    "short strokes": lambda random: _strokes(random, length=11, width=4, count=5000, wander=1, jitter=30),
    "dry brush": lambda random: _strokes(random, length=60, width=1, count=2600, wander=1.5, jitter=18),
    "facets": _facets,
    "outlines": _outlined,
    "drips": _drips,
    "fields": _fields,
    "sfumato": _sfumato,
}


def painting(label: str, random: Random) -> Picture:
    """A drawn landscape by one painter."""
    return PAINTERS[label](random)


SETS: dict[str, tuple[tuple[str, ...], Callable[[str, Random], Picture]]] = {
    "textures": (tuple(PATTERNS), texture),
    "renditions": (tuple(RENDITIONS), rendition),
    "painters": (tuple(PAINTERS), painting),
}


def drawn(name: str, each: int = EACH) -> list[tuple[str, np.ndarray]]:
    """A set as (label, pixels (SIDE, SIDE, 3)), `each` pictures of every label."""
    labels, draw = SETS[name]
    return [
        (label, np.asarray(draw(label, np.random.default_rng([list(SETS).index(name), number, seed]))))
        for number, label in enumerate(labels)
        for seed in range(each)
    ]


def main(folder: Path) -> None:
    """Writes every set."""
    for name in SETS:
        for number, (label, pixels) in enumerate(drawn(name)):
            path = folder / name / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
