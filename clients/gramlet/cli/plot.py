"""Plots of loss curves, drawn with Pillow: the client has no matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLORS = ("#1f6fb4", "#d9541e", "#3b8f3e", "#8c4fa8", "#8a6d3b", "#444444")
_FINE = 2
"""Everything is drawn so many times larger and then reduced, because Pillow's lines have hard edges."""
_LEFT, _RIGHT, _TOP, _BOTTOM, _TEXT = 64, 20, 40, 46, 13
_MOST_TICKS = 6


@dataclass(frozen=True)
class Line:
    """A curve: one of `COLORS` by its number, x from 0 on, and y above 0."""

    number: int
    x: Sequence[float]
    y: Sequence[float]


def draw_panel(title: str, lines: Sequence[Line], x_label: str, size: tuple[int, int]) -> Image.Image:
    """Lines in a frame, the y axis logarithmic, as a picture of that width and height."""
    image = Image.new("RGB", (size[0] * _FINE, size[1] * _FINE), "white")
    _Panel(image, lines).draw(title, x_label)
    return image.resize(size, Image.Resampling.LANCZOS)


class _Panel:
    def __init__(self, image: Image.Image, lines: Sequence[Line]) -> None:
        self._pen = ImageDraw.Draw(image)
        self._font = ImageFont.load_default(_TEXT * _FINE)
        self._lines = lines
        self._left, self._top = _LEFT * _FINE, _TOP * _FINE
        self._right, self._bottom = image.width - _RIGHT * _FINE, image.height - _BOTTOM * _FINE
        levels = [math.log10(y) for line in lines for y in line.y]
        margin = 0.04 * (max(levels) - min(levels)) or 0.1
        self._low, self._high = min(levels) - margin, max(levels) + margin
        self._most = max(x for line in lines for x in line.x) or 1.0

    def draw(self, title: str, x_label: str) -> None:
        """Frame, ticks, lines and texts."""
        for x in linear_ticks(self._most):
            self._tick((self._x(x), self._bottom), f"{x:g}", "ma", (0, 5 * _FINE))
        for y in logarithmic_ticks(self._low, self._high):
            self._tick((self._left, self._y(y)), tick_text(y), "rm", (-6, 0))
        self._pen.rectangle((self._left, self._top, self._right, self._bottom), outline="#888888", width=_FINE)
        for line in self._lines:
            points = [(self._x(x), self._y(y)) for x, y in zip(line.x, line.y, strict=True)]
            self._pen.line(points, fill=COLORS[line.number % len(COLORS)], width=2 * _FINE, joint="curve")
        middle = (self._left + self._right) / 2
        self._text((self._left, self._top - 10 * _FINE), title, "ls", "#222222")
        self._text((middle, self._bottom + (_BOTTOM - 8) * _FINE), x_label, "ms", "#444444")

    def _tick(self, at: tuple[float, float], text: str, anchor: str, away: tuple[int, int]) -> None:
        x, y = at
        end = (x, self._top) if anchor == "ma" else (self._right, y)
        self._pen.line([at, end], fill="#e4e4e4", width=_FINE)
        self._text((x + away[0], y + away[1]), text, anchor, "#444444")

    def _text(self, at: tuple[float, float], text: str, anchor: str, color: str) -> None:
        self._pen.text(at, text, fill=color, font=self._font, anchor=anchor)

    def _x(self, value: float) -> float:
        return self._left + (self._right - self._left) * value / self._most

    def _y(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._bottom - (self._bottom - self._top) * share


def linear_ticks(most: float) -> list[float]:
    """Round numbers from 0 to that one, at most `_MOST_TICKS` steps."""
    power = 10.0 ** math.floor(math.log10(most / _MOST_TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= _MOST_TICKS)
    return [step * number for number in range(int(most / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    """A round number, as people write it: 0.01, 2, 500, and 2e4 where that is shorter."""
    return (
        f"{value:g}"
        if 1e-3 <= value < 1e4
        else f"{value:.0e}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
    )


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """Round numbers between 10^low and 10^high: 1, 2 and 5 of each power of ten, or fewer if those are many."""
    for factors in ((1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(low), math.ceil(high) + 1)
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        within = [tick for tick in ticks if low <= math.log10(tick) <= high]
        if len(within) <= _MOST_TICKS + 2:
            return within
    return within[:: math.ceil(len(within) / _MOST_TICKS)]
