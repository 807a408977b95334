"""Draws a painting to take a style from: thick strokes that follow a windy sky, made from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[float, ...]

SKY: tuple[Color, ...] = ((18, 38, 92), (32, 74, 148), (62, 118, 186), (128, 176, 206), (214, 222, 190))
SUN: tuple[Color, ...] = ((250, 214, 84), (246, 178, 46), (238, 236, 172), (206, 120, 30))
FIELD: tuple[Color, ...] = ((38, 52, 34), (84, 104, 44), (150, 148, 62), (66, 40, 28), (196, 176, 96))

LAYERS = ((3_900, 2.2), (9_100, 1.3), (13_000, 1.0))
"""The number of strokes in each layer of paint, and their size."""


@dataclass(frozen=True)
class Whirl:
    """A vortex of the wind. Center and radius are shares of the canvas; `turn` is 1 or -1 for its direction."""

    x: float
    y: float
    radius: float
    turn: float = 1.0

    def distance(self, x: float, y: float) -> float:
        """The distance from the center, in radii."""
        return math.hypot(x - self.x, 0.8 * (y - self.y)) / self.radius


SUNS = (Whirl(0.56, 0.51, 0.11), Whirl(0.27, 0.24, 0.09), Whirl(0.09, 0.43, 0.08), Whirl(0.49, 0.2, 0.05))
SWIRLS = (Whirl(0.42, 0.34, 0.2), Whirl(0.72, 0.42, 0.13, -1.0), Whirl(0.14, 0.5, 0.12), Whirl(0.87, 0.15, 0.09, -1.0))


class Painter:
    """A canvas and a brush. Coordinates are shares of the width and the height."""

    def __init__(self, width: int, height: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.width, self.height = width, height
        self.canvas = Image.new("RGB", (width, height), tuple(int(value) for value in SKY[1]))
        self.brush = ImageDraw.Draw(self.canvas)

    def paint(self) -> Image.Image:
        """Paints all layers, the coarsest first, and returns the picture."""
        for strokes, size in LAYERS:
            for _ in range(strokes):
                self.stroke(self.random.uniform(-0.02, 1.02), self.random.uniform(-0.02, 1.02), size)
        return self.canvas

    def stroke(self, x: float, y: float, size: float) -> None:
        """Paints a curved stroke with a dark and a light edge, like a brush full of paint."""
        color = self.color(x, y)
        step = size * self.random.uniform(0.02, 0.045) / 6
        thick = max(2, round(size * self.random.uniform(0.0045, 0.0085) * self.width))
        points = []
        for _ in range(6):
            points.append((x * self.width, y * self.height))
            angle = wind(x, y) + self.random.normal(0, 0.05)
            x, y = x + math.cos(angle) * step, y + math.sin(angle) * step * self.width / self.height
        for shift, light in ((0.35 * thick, -38), (-0.35 * thick, 34), (0.0, 0)):
            shade = tuple(int(min(255, max(0, value + light))) for value in color)
            line = [(px, py + shift) for px, py in points]
            self.brush.line(line, fill=shade, width=max(1, thick - 2 * (light != 0)), joint="curve")

    def color(self, x: float, y: float) -> Color:
        """A random color for a stroke that begins at this point."""
        near = min(sun.distance(x, y) for sun in SUNS)
        if y > horizon(x):
            palette, place = FIELD, self.random.uniform(0, 0.7) + 0.3 * abs(math.sin(11 * x + 14 * y))
        elif near < self.random.uniform(0.55, 1.0):
            palette, place = SUN, near
        else:
            ring = min(swirl.distance(x, y) for swirl in SWIRLS)
            palette, place = SKY, 0.5 + 0.4 * math.sin(9 * ring) * math.exp(-ring / 3) + self.random.normal(0, 0.16)
        chosen = palette[int(min(0.999, max(0.0, place)) * len(palette))]
        return tuple(value + self.random.normal(0, 9) for value in chosen)


def wind(x: float, y: float) -> float:
    """The direction of the strokes at a point, in radians."""
    if y > horizon(x):
        return 0.35 * math.sin(9 * x) - 1.1 * (y - 0.7)
    u, v = 1.0, 0.25 * math.sin(7 * x + 3 * y)
    for whirl in (*SWIRLS, *SUNS):
        dx, dy = x - whirl.x, 0.8 * (y - whirl.y)
        pull = 3.0 * whirl.turn * math.exp(-(whirl.distance(x, y) ** 2)) / (math.hypot(dx, dy) + 1e-6)
        u, v = u - pull * dy, v + pull * dx
    return math.atan2(v, u)


def horizon(x: float) -> float:
    """The height of the line between the hills and the sky."""
    return 0.76 - 0.06 * math.sin(4.3 * x + 0.6) - 0.05 * math.sin(9.1 * x)


def paint(width: int = 768, height: int = 608, seed: int = 7) -> Image.Image:
    """Returns the painting, an RGB picture of `width` x `height` pixels."""
    return Painter(width, height, seed).paint()
