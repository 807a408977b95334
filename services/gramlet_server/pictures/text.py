"""Text in drawings: in any script that a font of this system has, and with a visible substitute otherwise.

Class names and titles are what users write: Chinese, Arabic, emoji, markup. A character is drawn in the first font that
has it; a character that no font has is drawn as its code point, ‹8682›, so that two names never look alike. Nothing in
a text is markup, and no text makes a drawing fail.

Fonts are searched where fontconfig searches them, and in the font packs of Python that are installed: the extra `fonts`
brings Chinese, Japanese, Korean and the scripts of South and Southeast Asia. DejaVu Sans, which matplotlib brings, has
Latin, Greek, Cyrillic, Arabic, Hebrew, Armenian and Georgian. On Debian, fonts-noto-cjk adds Chinese, Japanese and
Korean, fonts-noto-core the other scripts, fonts-noto-color-emoji emoji; fonts-unifont (2 MB) has almost every letter,
as a bitmap.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont, features

_log = logging.getLogger(__name__)

_PREFERRED = ("DejaVuSans.", "NotoSans-Regular.", "NotoSansCJK-Regular.", "DroidSansFallbackFull.", "NotoColorEmoji.")
"""The first fonts to try, by the beginning of their file names. Then other upright sans-serif fonts, then the rest."""
_VARIANTS = ("Bold", "Italic", "Oblique", "Condensed", "Mono", "Light", "Thin", "Black", "Medium", "Display", "UI-")
_NOT_LETTERS = ("LastResort", "AdobeBlank")
"""Fonts that have every character, but not its letter."""
_SUFFIXES = (".ttf", ".otf", ".ttc")
_EMOJI_SIZE = 109
"""The only size of the pictures in a color font."""
_LONGEST = 512
_JOINERS = {0x200C, 0x200D, 0xFE0E, 0xFE0F, *range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080)}
_ELLIPSIS = "…"
_LEFT_TO_RIGHT = "\u200e"
"""An invisible mark: without it the digits of a code point would change their order beside Arabic or Hebrew."""

Color = tuple[int, int, int] | str
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def render(text: str, size: int, color: Color = "black") -> Image.Image:
    """A text in one line as a picture: RGBA, as high as a line of that size.

    Args:
        text: Any text. Line breaks and other control characters become spaces.
        size: Of the font, in pixels.
        color: Of the letters; emoji have their own.
    """
    runs = [(part, path, _length(part, path, size)) for path, part in _runs(_cleaned(text))]
    picture = Image.new("RGBA", (max(1, round(sum(length for *_, length in runs))), line_height(size)))
    pen, left = ImageDraw.Draw(picture), 0.0
    baseline = round(size * 1.05)
    # Pieces are laid from left to right; within one, Arabic and Hebrew still run from right to left.
    direction = "ltr" if len(runs) > 1 and features.check("raqm") else None
    for part, path, length in runs:
        if _is_color(path):
            picture.alpha_composite(_emoji(part, path, size), (round(left), max(0, baseline - round(size * 0.95))))
        else:
            pen.text(
                (left, baseline), part, color, _font(path, size), anchor="ls" if path else None, direction=direction
            )
        left += length
    return picture


def width(text: str, size: int) -> int:
    """The width in pixels of a text in one line."""
    return max(1, round(sum(_length(part, path, size) for path, part in _runs(_cleaned(text)))))


def line_height(size: int) -> int:
    """The height in pixels of a line."""
    return round(size * 1.45)


def shortened(text: str, size: int, room: int) -> str:
    """The text, or its beginning and an ellipsis, so that it is at most `room` pixels wide."""
    if width(text, size) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width(text[:middle] + _ELLIPSIS, size) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low] + _ELLIPSIS


def draw(sheet: Image.Image, point: tuple[float, float], text: str, size: int, color: Color = "black") -> None:
    """Draws a text onto a picture, with its top left corner at a point."""
    line = render(text, size, color)
    sheet.paste(line, (round(point[0]), round(point[1])), line)


def _cleaned(text: str) -> str:
    """Without characters that are no text: control characters, surrogates, and those that turn the direction."""
    kept = (" " if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") else one for one in text[:_LONGEST])
    return "".join(one for one in kept if one not in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """The text in pieces of one font each: its path, "" for Pillow's own, and the piece."""
    current, piece = "", ""
    for character in text:
        path = _stays(current, character) if piece else None
        if path is None:
            path = _path_for(ord(character))
        if path is None:
            if ord(character) in _JOINERS:
                continue
            path = _path_for(ord("0")) or ""
            mark = _LEFT_TO_RIGHT if _covers(path, ord(_LEFT_TO_RIGHT)) else ""
            character = f"{mark}‹{ord(character):X}›{mark}"
        if path != current and piece:
            yield current, piece
            piece = ""
        current, piece = path, piece + character
    if piece:
        yield current, piece


def _stays(current: str, character: str) -> str | None:
    """The font of the characters before, if this one belongs to them: marks, joiners, spaces and punctuation."""
    code, color = ord(character), _is_color(current)
    if code in _JOINERS:
        return current if color or _covers(current, code) else None
    mark = unicodedata.category(character).startswith("M")
    common = not color and not character.isalnum()
    return current if (mark or common) and _covers(current, code) else None


@cache
def _path_for(code: int) -> str | None:
    """The first font that has a character; None if no font has it."""
    return next((path for path in _paths() if _covers(path, code)), None)


def _covers(path: str, code: int) -> bool:
    return code in _characters(path)


@lru_cache(maxsize=64)
def _characters(path: str) -> frozenset[int]:
    """The characters of a font. Pillow's own font is counted as one of printable ASCII."""
    if not path:
        return frozenset(range(32, 127))
    try:
        with open(path, "rb") as file, TTFont(file, fontNumber=0, lazy=True) as font:
            return frozenset(font.getBestCmap() or ())
    except Exception as error:  # a damaged font must not end a drawing; fontTools raises many kinds of errors
        _log.warning("the font %s cannot be read: %s", path, error)
        return frozenset()


@cache
def _paths() -> tuple[str, ...]:
    """The fonts of this system in the order in which they are tried; last Pillow's own."""
    home = Path.home()
    places = [
        Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share") / "fonts",
        home / ".fonts",
        Path("/usr/local/share/fonts"),
        Path("/usr/share/fonts"),
    ]
    if (matplotlib := find_spec("matplotlib")) is not None and matplotlib.origin:
        places.append(Path(matplotlib.origin).parent / "mpl-data/fonts/ttf")
    places += _packs()
    found: dict[str, Path] = {}
    for place in places:
        for folder, _, names in os.walk(place, followlinks=True):
            for name in names:
                if name.lower().endswith(_SUFFIXES) and not name.startswith(_NOT_LETTERS):
                    found.setdefault(name, Path(folder, name))
    return (*(str(found[name]) for name in sorted(found, key=_rank)), "")


def _packs() -> list[Path]:
    """The folders of the font packs that are installed, by the entry points of justmytype. None of them is executed."""
    packages = [entry.module.partition(".")[0] for entry in entry_points(group="justmytype.packs")]
    specs = [find_spec(name) for name in sorted(packages)]
    return [Path(spec.origin).parent / "fonts" for spec in specs if spec is not None and spec.origin]


def _rank(name: str) -> tuple[int, str]:
    for number, begin in enumerate(_PREFERRED):
        if name.startswith(begin):
            return number, name
    upright = not any(variant in name for variant in _VARIANTS)
    return len(_PREFERRED) + (not upright) * 2 + ("Sans" not in name), name


@lru_cache(maxsize=256)
def _font(path: str, size: int) -> _Font:
    if not path:
        return ImageFont.load_default(size)
    font = ImageFont.truetype(path, _EMOJI_SIZE if _is_color(path) else size)
    with suppress(OSError, ValueError):  # of a variable font, which else begins with its thinnest letters
        font.set_variation_by_name("Regular")
    return font


def _is_color(path: str) -> bool:
    return "ColorEmoji" in Path(path).name


def _length(part: str, path: str, size: int) -> float:
    length = _font(path, size).getlength(part)
    return length * size * 0.95 / _EMOJI_SIZE if _is_color(path) else length


def _emoji(part: str, path: str, size: int) -> Image.Image:
    font = _font(path, size)
    large = Image.new("RGBA", (max(1, round(font.getlength(part))), round(_EMOJI_SIZE * 1.2)))
    ImageDraw.Draw(large).text((0, 0), part, font=font, embedded_color=True)
    scale = size * 0.95 / _EMOJI_SIZE
    reduced = (max(1, round(large.width * scale)), max(1, round(large.height * scale)))
    return large.resize(reduced, Image.Resampling.LANCZOS)
