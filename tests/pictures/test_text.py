"""Text in drawings: every name is visible, none is markup, and none makes a drawing fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gramlet_server.pictures import text
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

SCRIPTS = (
    "Étoile",
    "Ελληνικά",
    "Русский",
    "العربية",
    "עברית",
    "हिन्दी",
    "தமிழ்",
    "ไทย",
    "蚂蚁",
    "ミツバチ",
    "한국어",
    "ქართული",
    "🐝",
)


def ink(line: Image.Image) -> np.ndarray:
    return np.asarray(line)[..., 3]


@pytest.mark.parametrize("name", SCRIPTS)
def test_names_in_every_script_are_visible_and_differ_from_others(name: str) -> None:
    line = text.render(name, 20)
    assert (ink(line) > 128).sum() > 20
    assert line.width >= text.width(name, 20)
    others = [ink(text.render(other, 20)) for other in SCRIPTS if other != name]
    assert not any(np.array_equal(ink(line), other) for other in others)


def test_without_a_font_a_character_is_its_code_point() -> None:
    np.testing.assert_array_equal(ink(text.render("\U000e1234", 20)), ink(text.render("‹E1234›", 20)))


def test_markup_is_text_and_line_breaks_are_spaces() -> None:
    assert text.width("$x^{$", 20) > text.width("x", 20) * 3
    np.testing.assert_array_equal(ink(text.render("a\nb\x00c", 20)), ink(text.render("a b c", 20)))


def test_shortened_text_ends_with_an_ellipsis_and_fits() -> None:
    assert text.shortened("short", 20, 200) == "short"
    found = text.shortened("a rather long name of a style", 20, 120)
    assert found.endswith("…")
    assert text.width(found, 20) <= 120
    assert text.width(found[:-1] + "xx…", 20) > 120


def test_a_damaged_font_does_not_end_a_drawing(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "DejaVuSans.ttf").write_bytes(b"no font")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    text._paths.cache_clear()
    text._path_for.cache_clear()
    try:
        assert (ink(text.render("still visible", 20)) > 128).sum() > 100
    finally:
        monkeypatch.undo()
        text._paths.cache_clear()
        text._path_for.cache_clear()


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=[]), max_size=30), st.integers(6, 40))
def test_any_text_is_drawn(anything: str, size: int) -> None:
    sheet = Image.new("RGB", (200, 80), "white")
    text.draw(sheet, (5, 5), text.shortened(anything, size, 150), size)
    assert text.render(anything, size).height == text.line_height(size)


def test_a_code_point_beside_arabic_keeps_the_order_of_its_digits() -> None:
    # Without the marks, the algorithm for text of both directions moves digits to the other side of the Arabic word.
    (piece,) = [part for _, part in text._runs("العربية \U000ff939")]
    assert piece == "العربية \u200e‹FF939›\u200e"


def test_fonts_of_installed_packs_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a_pack" / "fonts"
    folder.mkdir(parents=True)
    (tmp_path / "a_pack" / "__init__.py").write_text("raise RuntimeError('not to be executed')")
    (tmp_path / "a_pack-1.dist-info").mkdir()
    (tmp_path / "a_pack-1.dist-info" / "METADATA").write_text("Name: a-pack\nVersion: 1\n")
    (tmp_path / "a_pack-1.dist-info" / "entry_points.txt").write_text("[justmytype.packs]\nany = a_pack:get\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert folder in text._packs()
