"""`gramlet see`: how channels are named, and the sheets."""

from __future__ import annotations

import io

import pytest
from gramlet.cli.pictures import with_name
from gramlet.cli.see import parse_what
from gramlet.cli.sheets import channel_sheet, contact_sheet
from gramlet.errors import InvalidInput
from gramlet.feature.see_types import Box, Patch, SeeOptimized, SeeResult
from PIL import Image


def file_of(color: str, size: tuple[int, int] = (8, 6)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def patch(color: str) -> Patch:
    where = {"box": Box(0, 0, 8, 6), "height": 6, "width": 8, "row": 0, "column": 0}
    return Patch(index=0, id="a", activation=1.0, jpeg=file_of(color), projection=file_of("gray"), **where)  # type: ignore[arg-type]


def colors(image: Image.Image) -> set[tuple[int, ...]]:
    return {color for _, color in image.getcolors(1 << 24)}  # type: ignore[misc, union-attr]


RED, BLUE, LIME = (255, 0, 0), (0, 0, 255), (0, 255, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layer3", ("layer3", [])),
        ("layer3:712", ("layer3", [712])),
        ("relu3_1:0-2, 7", ("relu3_1", [0, 1, 2, 7])),
    ],
)
def test_channels_are_named_on_the_command_line(text: str, expected: object) -> None:
    assert parse_what(text) == expected


@pytest.mark.parametrize("text", ["", ":5", "layer3:", "layer3:x", "layer3:5-", "layer3:-5", "layer3:5,,6"])
def test_a_wrong_name_is_explained(text: str) -> None:
    with pytest.raises(InvalidInput, match="layer3:712") as error:
        parse_what(text)
    assert error.value.field == "what"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("not a picture", "a.png: not a picture"),
        ("a.png: not a picture", "a.png: not a picture"),
        ("pics/a.png: not a picture", "pics/a.png: not a picture"),
        ("pics/ba.png: not a picture", "a.png: pics/ba.png: not a picture"),
    ],
)
def test_a_refused_picture_is_named_once(message: str, shown: str) -> None:
    assert with_name("a.png", message) == shown


def test_a_sheet_has_a_row_for_each_channel() -> None:
    optimized = SeeOptimized(channel=7, activation=1.0, png=file_of("lime", (16, 16)))
    one = channel_sheet(SeeResult(stage="layer1", patches={5: (patch("red"),)}, optimized={}))
    two = channel_sheet(SeeResult(stage="layer1", patches={5: (patch("red"),), 7: ()}, optimized={7: optimized}))
    assert two.height == 2 * one.height
    assert {RED} == colors(one) & {RED, LIME}
    assert {RED, LIME} == colors(two) & {RED, LIME}
    alone = channel_sheet(SeeResult(stage="layer1", patches={}, optimized={7: optimized}))
    assert LIME in colors(alone)


def test_a_contact_sheet_has_every_channel() -> None:
    patches = {channel: (patch("red" if channel < 5 else "blue"),) * (channel % 3) for channel in range(10)}
    sheet = contact_sheet(SeeResult(stage="layer1", patches=patches, optimized={}))
    assert {RED, BLUE} <= colors(sheet)
    assert contact_sheet(SeeResult(stage="layer1", patches={3: ()}, optimized={})).width > 40
