from __future__ import annotations

import array
import base64
import os
import urllib.parse
from collections.abc import Iterable
from contextlib import nullcontext
from datetime import timedelta
from io import BytesIO, StringIO, TextIOBase
from pathlib import Path
from typing import Any

import gramlet
import numpy as np
import pytest
import torch
from gramlet.embed.inputs import make_settings, read_items
from gramlet.embed.settings import Method
from gramlet.errors import GramletError, InvalidInput, NotFound
from gramlet.feature.inputs import make_extraction
from gramlet.feature.types import Form, GramNormalization, Style
from gramlet.inputs.pictures import is_one_picture, read_mask, read_picture, several_pictures, validate
from gramlet.inputs.values import seconds, several
from gramlet.stylize.inputs import make_stylization
from gramlet.stylize.types import Initial, Optimizer
from gramlet.train.configuration import HeadKind, Recipe
from gramlet.train.inputs import make_recipe, read_labelled
from gramlet.types import Limits, Picture, Resize, ResizeMode
from gramlet_server.pictures.masks import region
from gramlet_server.pictures.prepare import prepare, shape
from PIL import Image


def as_seen(picture: Picture) -> Any:
    """The picture as the server sees it, (3, H, W) in 0..1."""
    return prepare(picture, Resize(), Limits())


def test_a_path_bytes_a_pil_picture_and_an_array_are_the_same_picture(picture: Path, png: bytes, pixels: Any) -> None:
    floats = np.ascontiguousarray(pixels.transpose(2, 0, 1)) / np.float64(255)
    expected = floats.astype(np.float32)
    opened = Image.open(BytesIO(png))
    for value in (picture, str(picture), png, bytearray(png), memoryview(png), opened, pixels, floats):
        np.testing.assert_allclose(as_seen(read_picture(value)), expected, atol=1e-6)


def test_a_tensor_of_torch_is_an_array() -> None:
    read = read_picture(torch.full((3, 4, 5), 0.5))  # type: ignore[arg-type]
    assert isinstance(read, np.ndarray)
    assert read.dtype == np.float32


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F", "LAB"])
def test_every_mode_of_pil_is_seen_as_a_picture(mode: str) -> None:
    assert as_seen(read_picture(Image.new(mode, (7, 5)))).shape == (3, 5, 7)


@pytest.mark.parametrize("mode", ["I", "I;16"])
def test_sixteen_bits_are_scaled_not_clipped(mode: str) -> None:
    grey = Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).convert(mode)
    np.testing.assert_allclose(as_seen(read_picture(grey)), 0.5, atol=0.01)


def test_a_pil_picture_is_turned_as_its_file_would_be(pixels: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", exif=exif)
    of_pil, of_file = read_picture(Image.open(BytesIO(file.getvalue()))), read_picture(file.getvalue())
    assert as_seen(of_pil).shape == (3, 48, 64)
    np.testing.assert_array_equal(as_seen(of_pil), as_seen(of_file))


def shares_of(pixels: Any) -> Any:
    """The picture as floating point numbers, (H, W, 3) in 0..1."""
    return pixels / np.float64(255)


@pytest.mark.parametrize(
    "as_given",
    [
        lambda p: p.transpose(2, 0, 1),
        lambda p: np.asfortranarray(p),
        lambda p: p[::-1, ::-1].copy()[::-1, ::-1],
        lambda p: p.astype(np.int64),
        lambda p: p.astype(np.uint16) * 257,
        lambda p: p.astype(">u2") * 257,
        lambda p: shares_of(p),
        lambda p: shares_of(p).astype(np.float32).transpose(2, 0, 1),
        lambda p: shares_of(p).astype(">f8"),
        lambda p: torch.from_numpy(p.copy()),
        lambda p: torch.from_numpy(p.copy()).permute(2, 0, 1),
        lambda p: torch.from_numpy(shares_of(p)).requires_grad_(),
        lambda p: torch.from_numpy(shares_of(p)).permute(2, 0, 1).requires_grad_(),
        lambda p: np.dstack([p, np.full(p.shape[:2], 255, np.uint8)]),
        lambda p: np.dstack([shares_of(p), np.ones(p.shape[:2])]),
    ],
)
def test_pixels_of_any_layout_and_type_are_the_same_picture(pixels: Any, as_given: Any) -> None:
    expected = (pixels.transpose(2, 0, 1) / 255).astype(np.float32)
    np.testing.assert_allclose(as_seen(read_picture(as_given(pixels))), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_taken(pixels: Any, dtype: torch.dtype) -> None:
    given = torch.from_numpy(shares_of(pixels)).to(dtype)
    np.testing.assert_allclose(as_seen(read_picture(given)), shares_of(pixels).transpose(2, 0, 1), atol=4e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(6, 8), (1, 6, 8), (6, 8, 1)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.bool_])
def test_one_channel_is_gray(shape: tuple[int, ...], kind: type[Any]) -> None:
    given = np.ones(shape, kind) * (255 if kind is np.uint8 else 1)
    np.testing.assert_array_equal(as_seen(read_picture(given.astype(kind))), np.ones((3, 6, 8)))


def test_where_channels_may_be_first_or_last_the_type_decides() -> None:
    random = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    np.testing.assert_allclose(as_seen(read_picture(random)), random.transpose(2, 0, 1) / 255, atol=1e-6)
    np.testing.assert_allclose(as_seen(read_picture(random / 255.0)), random / 255, atol=1e-6)


def test_what_a_filter_overshoots_is_cut_and_what_is_not_scaled_is_refused(pixels: Any) -> None:
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    larger = torch.nn.functional.interpolate(planes / 255, size=(90, 130), mode="bicubic")[0]
    assert larger.min() < 0
    assert larger.max() > 1
    seen = as_seen(read_picture(larger))  # type: ignore[arg-type]
    np.testing.assert_allclose(seen, larger.clamp(0, 1), atol=1e-6)
    for wrong in (planes[0], planes[0] / 127.5 - 1):
        with pytest.raises(InvalidInput, match=r"floating point pixels are in 0\.\.1, these are in"):
            read_picture(wrong)


def test_transparent_floats_are_laid_on_white_as_the_service_lays_files() -> None:
    pixels = np.zeros((4, 6, 4))
    pixels[:, :3, 3] = 0.25
    seen = as_seen(read_picture(pixels))
    np.testing.assert_allclose(seen[:, :, :3], 0.75)
    np.testing.assert_array_equal(seen[:, :, 3:], 1)


@pytest.mark.parametrize(
    "as_given",
    [
        lambda data: BytesIO(data),
        lambda data: np.frombuffer(data, np.uint8),
        lambda data: np.frombuffer(data, np.uint8)[:, None],  # as cv2.imencode returns it
        lambda data: array.array("B", data),
        lambda data: "data:image/png;base64," + base64.b64encode(data).decode(),
        lambda data: "DATA:," + urllib.parse.quote_from_bytes(data),
    ],
)
def test_a_file_may_be_given_in_many_ways(png: bytes, as_given: Any) -> None:
    given = as_given(png)
    assert read_picture(given) == png
    assert is_one_picture(given) or isinstance(given, array.array)


def test_an_open_file_is_read_from_where_it_is_and_stays_there(picture: Path, png: bytes) -> None:
    with picture.open("rb") as file:
        assert read_picture(file) == read_picture(file) == png
        assert file.tell() == 0
    written = BytesIO()
    written.write(png)  # now at its end, as after Image.save
    assert read_picture(written) == png
    inside = BytesIO(b"header" + png)
    inside.seek(6)
    assert read_picture(inside) == png


class Asynchronous:
    """As aiofiles and Starlette have them."""

    async def read(self, size: int = -1) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (lambda path: path.open(), "opened as text: open it with mode 'rb'"),
        (lambda path: StringIO("text"), "opened as text"),
        (lambda path: Asynchronous(), "asynchronous"),
        (lambda path: BytesIO(), "empty, not a picture"),
        (lambda path: "a\0.jpg", "null byte"),
        (lambda path: "data:image/png;base64", "not a data: URI"),
        (lambda path: "https://example.org/a.jpg", "is an address"),
        (lambda path: "x" * 5000, r"^content: x+\.\.\. is no path: File name too long"),
        (lambda path: np.frombuffer(b"junk", np.uint8)[None, None, None], "an array of pixels is"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(picture: Path, given: Any, reason: str) -> None:
    value = given(picture)
    with value if isinstance(value, TextIOBase) else nullcontext(), pytest.raises(InvalidInput, match=reason):
        read_picture(value, "content")


def test_a_closed_file_and_a_pil_picture_of_one_are_refused(picture: Path, png: bytes) -> None:
    with picture.open("rb") as file:
        opened = Image.open(file)
    cut = Image.open(BytesIO(png[: len(png) // 2]))
    reasons = {"closed": file, "its file is closed: call load": opened, "cut short|truncated|broken": cut}
    for reason, value in reasons.items():
        with pytest.raises(InvalidInput, match=reason):
            read_picture(value)  # type: ignore[arg-type]


def test_an_array_of_no_memory_is_refused_before_it_is_copied() -> None:
    for axes in ((10**6, 10**6), (3, 10**5, 10**5)):
        for kind in (np.uint8, np.float64):
            with pytest.raises(InvalidInput, match="send it smaller"):
                read_picture(np.broadcast_to(np.zeros((), kind), axes))


@pytest.mark.parametrize(
    ("given", "resize", "size"),
    [
        (np.zeros((4800, 4800, 3), np.uint8), None, (4800, 4800)),  # small as a file
        (np.zeros((3, 2400, 2500), np.float32), Resize(ResizeMode.LONGEST_SIDE, 64), (127, 132)),
    ],
)
def test_an_array_too_large_for_a_message_is_sent_smaller(given: Any, resize: Resize | None, size: Any) -> None:
    sent = read_picture(given, "picture", resize)
    assert (len(sent) if isinstance(sent, bytes) else sent.nbytes) < 2**20
    assert shape(sent, Limits()) == size


def test_a_file_too_large_is_reduced_where_the_service_would_reduce_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "scan.bmp"
    noise = np.random.default_rng(0).integers(0, 256, (75, 75, 3), np.uint8)
    Image.fromarray(noise).resize((3600, 3600), Image.Resampling.NEAREST).save(path)
    with caplog.at_level("INFO", "gramlet"):
        sent = read_picture(path, "picture", Resize(ResizeMode.CENTER_CROP, 225))
    seen = as_seen(sent)
    assert seen.shape == (3, 450, 450)  # twice what the service needs
    np.testing.assert_allclose(seen[:, 2::6, 2::6], noise.transpose(2, 0, 1) / 255, atol=0.01)
    assert "scan.bmp has 38.9 MB: sent reduced, to" in caplog.text


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.bool_, np.float32, np.uint16])
@pytest.mark.parametrize("shape", [(6, 8), (1, 6, 8), (6, 8, 1)])
def test_masks_of_zero_and_one_are_outside_and_inside(kind: type[Any], shape: tuple[int, ...]) -> None:
    inside = np.tri(6, 8)
    most = 65535 if kind is np.uint16 else 1
    mask = (inside * most).astype(kind).reshape(shape)
    np.testing.assert_array_equal(region(read_mask(mask), Limits()), inside)


def test_a_file_with_levels_zero_and_one_is_such_a_mask_as_well() -> None:
    inside = np.tri(6, 8, dtype=np.uint8)
    for mode in ("L", "RGB"):
        np.testing.assert_array_equal(region(read_mask(Image.fromarray(inside).convert(mode)), Limits()), inside)
    gray = inside * np.uint8(2)
    np.testing.assert_allclose(region(read_mask(gray), Limits()), gray / 255, atol=1e-7)


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 4), (6, 8, 3)])
def test_grey_and_transparent_arrays_are_pictures(shape: tuple[int, ...]) -> None:
    assert as_seen(read_picture(np.full(shape, 255, np.uint8))).shape == (3, 6, 8)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        b"",
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 5, 2), np.uint8),
        np.full((4, 5, 3), 256),
        np.full((4, 5, 3), -1),
        np.zeros((4, 5, 3), np.complex64),
        np.zeros((4, 5, 3), object),
        np.full((3, 4, 5), 1.5),
        np.full((3, 4, 5), -0.1),
        np.full((3, 4, 5), np.nan),
        np.zeros((2, 3, 4, 5)),
    ],
    ids=lambda value: f"{type(value).__name__}{getattr(value, 'shape', '')}",
)
def test_what_is_no_picture_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_picture(value, "content")
    assert caught.value.field == "content"


def test_a_mask_is_a_picture_or_an_array_of_one_channel(tmp_path: Path) -> None:
    inside = np.tri(6, 8, dtype=bool)
    file = tmp_path / "mask.png"
    # Painted white on nothing: what is transparent is outside.
    Image.fromarray(np.dstack([np.full((6, 8, 3), 255, np.uint8), inside * np.uint8(255)])).save(file)
    gray = Image.fromarray(inside * np.uint8(255))
    for mask in (inside, inside * np.uint8(255), inside.astype(np.float64), gray, gray.convert("1"), file):
        np.testing.assert_array_equal(region(read_mask(mask), Limits()), inside.astype(np.float32))
    colors = np.stack([inside] * 3).astype(np.float32)
    np.testing.assert_allclose(region(read_mask(colors), Limits()), inside, atol=1e-6)
    for nothing in (np.zeros((6, 8), bool), Image.new("RGBA", (8, 6), (255, 255, 255, 0))):
        with pytest.raises(InvalidInput, match="black everywhere"):
            region(read_mask(nothing), Limits())
    with pytest.raises(InvalidInput, match=r"in 0\.\.1"):
        read_mask(np.full((6, 8), 1.5))


def test_styles_are_given_in_many_ways(png: bytes) -> None:
    style: Style[Any] = Style(png, 2.0, style_region=png)
    assert make_stylization(png, style, None, {}).styles == (style,)
    assert make_stylization(png, [png, (png, 3.0), style], None, {}).styles == (Style(png), Style(png, 3.0), style)
    with pytest.raises(NotFound) as caught:
        make_stylization(png, [Style("/nowhere.jpg")], None, {})
    assert caught.value.field == "style[0]"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"content: there is no file .*nowhere\.jpg"):
        read_picture(tmp_path / "nowhere.jpg", "content")


def test_a_directory_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        read_picture(tmp_path)


def test_a_file_too_large_for_a_message_is_refused_here(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(InvalidInput, match=r"large\.png has 68\.2 MB and does not fit a message"):
        read_picture(large)


@pytest.mark.parametrize(
    ("value", "one"),
    [
        ("a.jpg", True),
        (Path("a.jpg"), True),
        (b"x", True),
        (np.zeros((4, 5, 3)), True),
        (Image.new("RGB", (1, 1)), True),
        (["a.jpg"], False),
        (iter([]), False),
        (np.zeros((2, 4, 5, 3)), False),
    ],
)
def test_one_picture_is_told_from_many(value: Any, one: bool) -> None:
    assert is_one_picture(value) is one


def test_activations_are_left_out_where_something_else_is_asked_for() -> None:
    assert make_extraction(stages="conv1").forms == (Form.ACTIVATIONS,)
    assert make_extraction(stages="conv1", gram=True).forms == (Form.GRAM,)
    assert make_extraction(stages=["conv1"], gram=True, activations=True, pooled=True).forms == tuple(Form)


def test_options_are_given_by_value_or_member() -> None:
    extraction = make_extraction(stages=["a"], gram=True, gram_normalization="positions", resize=64)
    assert extraction.gram_normalization is GramNormalization.POSITIONS
    assert extraction.resize == Resize(ResizeMode.LONGEST_SIDE, 64)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"stages": []}, "stages"),
        ({"stages": "a", "activations": False}, "forms"),
        ({"stages": "a", "gram_normalization": "no"}, "gram_normalization"),
        ({"stages": "a", "element_type": "float64"}, "element_type"),
    ],
)
def test_a_wrong_option_of_extraction_is_named(options: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_extraction(**options)
    assert caught.value.field == field


def test_styles_come_alone_or_several_or_with_shares(png: bytes, pixels: Any) -> None:
    def shares(style: Any) -> list[float]:
        return [one.weight for one in make_stylization(png, style, None, {}).styles]

    assert shares(png) == [1.0]
    assert shares([png, pixels]) == [1.0, 1.0]
    assert shares([(png, 2.0), pixels]) == [2.0, 1.0]


@pytest.mark.parametrize(
    ("initial", "expected"),
    [(None, None), ("noise", Initial.NOISE), ("content", Initial.CONTENT), (Initial.STYLE, Initial.STYLE)],
)
def test_the_start_is_a_word(png: bytes, initial: Any, expected: Initial | None) -> None:
    assert make_stylization(png, png, initial, {}).settings.initial is expected


def test_the_start_is_a_picture(png: bytes, picture: Path) -> None:
    stylization = make_stylization(png, png, picture, {})
    assert stylization.settings.initial is Initial.GIVEN
    assert stylization.initial == png


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": 0}, "size"),
        ({"iterations": -1}, "iterations"),
        ({"seed": -1}, "seed"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"line_search": "golden"}, "line_search"),
    ],
)
def test_a_wrong_setting_is_named(png: bytes, options: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_stylization(png, png, None, options)
    assert caught.value.field == field


def test_settings_take_names_of_stages_and_of_members(png: bytes) -> None:
    settings = make_stylization(
        png, png, None, {"style_stages": ["a", "b"], "optimizer": "adam", "size": None}
    ).settings
    assert settings.style_stages == {"a": 1.0, "b": 1.0}
    assert settings.optimizer is Optimizer.ADAM


def test_an_unknown_setting_is_named_with_the_one_that_is_like_it(png: bytes) -> None:
    for make in (
        lambda: make_stylization(png, png, None, {"itterations": 3}),  # type: ignore[typeddict-unknown-key]
        lambda: make_settings({"itterations": 3}),  # type: ignore[typeddict-unknown-key]
        lambda: make_extraction(stages="a", resise=3),  # type: ignore[call-arg]
        lambda: make_recipe({"epoch": 3}),
    ):
        with pytest.raises(InvalidInput, match=r"there is no such option: did you mean '(iterations|resize|epochs)'"):
            make()


@pytest.mark.parametrize("start", ["contnet", "nois"])
def test_a_misspelled_start_is_named_with_the_one_that_is_like_it(png: bytes, start: str) -> None:
    with pytest.raises(NotFound, match=f"there is no file {start}: did you mean '(content|noise)'"):
        make_stylization(png, png, start, {})


@pytest.mark.parametrize("value", [64, 64.0, np.int64(64), np.float32(64), np.array(64), torch.tensor(64)])
def test_a_whole_number_may_be_of_any_type(png: bytes, value: Any) -> None:
    size = make_stylization(png, png, None, {"size": value}).settings.size
    assert (size, type(size)) == (64, int)


@pytest.mark.parametrize("value", [64.5, "64", (64, 64), True, float("nan"), 2**32, None.__class__, b"64", -1])
def test_what_is_not_a_whole_number_is_refused_by_its_name(png: bytes, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_stylization(png, png, None, {"size": value})
    assert caught.value.field == "size"


def test_a_seed_keeps_all_of_its_64_bits(png: bytes) -> None:
    assert make_stylization(png, png, None, {"seed": 2**64 - 1}).settings.seed == 2**64 - 1


def test_recipes_and_maps_take_the_same_types() -> None:
    recipe = make_recipe(
        {"epochs": 3.0, "stages": "layer4", "stage_rates": {"layer4": np.float64(0.5)}, "kind": "linear"}
    )
    assert recipe == Recipe(HeadKind.LINEAR, epochs=3, stages=("layer4",), stage_rates={"layer4": 0.5})
    settings = make_settings({"perplexity": 5, "resize": np.int64(96), "method": "pca"})
    assert (settings.tsne.perplexities, settings.resize.size, settings.method) == ((5.0,), 96, Method.PCA)
    for wrong in ({"calibrate": "no"}, {"stage_rates": [0.5]}, {"schedule": 3}):
        with pytest.raises(InvalidInput) as caught:
            make_recipe(wrong)
        assert caught.value.field == next(iter(wrong))


def test_bytes_that_are_no_picture_are_refused_before_any_call(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("notes")
    with pytest.raises(InvalidInput, match=r"^content: not a picture of a known format"):
        read_picture(b"<html>", "content")
    with pytest.raises(InvalidInput, match=r"notes\.png: not a picture of a known format"):
        read_picture(path)


def test_a_picture_is_validated_without_a_call(png: bytes, pixels: Any) -> None:
    assert validate(png) == (48, 64)
    assert validate(pixels) == (48, 64)
    assert validate(pixels / 255.0) == (48, 64)
    for broken, reason in ((png[:-60], "the file cannot be decoded"), (b"GIF89a", "cannot be decoded"), (b"", "empty")):
        with pytest.raises(InvalidInput, match=reason) as caught:
            validate(broken, "upload")
        assert caught.value.field == "upload"


def test_a_path_that_is_no_path_is_answered_with_the_reason(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png)
    for given, reason in (
        (base64.b64encode(png * 5).decode(), r"is no path: .* base64\.b64decode"),
        (str(path).encode(), "bytes are the content of a file"),
        ("~/nowhere.png", "expanduser"),
        ("*.png", "patterns are filled in by a shell"),
        ("-", "/dev/stdin"),
        (f"{path} ", r"no file '.*a\.png '"),
    ):
        with pytest.raises(GramletError, match=reason):
            read_picture(given)


def test_text_of_numpy_and_file_uris_are_paths(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "a b.png"
    path.write_bytes(png)
    assert read_picture(np.str_(path)) == read_picture(path.as_uri()) == png


def test_mappings_are_refused_where_their_values_would_be_lost() -> None:
    with pytest.raises(InvalidInput, match=r"list\(pictures\.values\(\)\)"):
        several_pictures({"a": b""}, Iterable)
    with pytest.raises(InvalidInput, match="mapping"):
        several({"style.png": 2.0}, "style")


@pytest.mark.parametrize("given", [np.uint16, "I;16", "I", ">u2"])
def test_eight_bit_levels_in_sixteen_bits_are_refused_instead_of_being_black(pixels: Any, given: Any) -> None:
    levels = pixels[:, :, 0].astype(np.uint16)
    value = Image.fromarray(levels).convert(given) if given in ("I;16", "I") else levels.astype(given)
    for read in (read_picture, read_mask)[: 1 if given == "I" else 2]:  # masks of 32 bits may have 8-bit levels
        with pytest.raises(InvalidInput, match=r"these end at 255, which is black: give 8-bit levels as uint8"):
            read(value)
    assert as_seen(read_picture(np.zeros((4, 4), np.uint16))).max() == 0  # black is black


def test_levels_that_hardly_use_their_scale_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="style: uint16 levels .* these end at 4000: a dark picture"):
        read_picture(np.full((4, 4), 4000, np.uint16), "style")
    for kind in (np.uint8, np.int64):
        with pytest.warns(UserWarning, match="levels go from 0 to 255, and these are 0 and 1: black. Give bool"):
            read_picture(np.eye(4, dtype=kind))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.full((4, 4), 300, np.int32), r"are in 300\.\.300: give 16 bits as uint16"),
        (np.full((4, 4), 70_000, np.int64), r"are in 70000\.\.70000: scale them"),
        (np.ma.masked_greater(np.arange(16, dtype=np.uint8).reshape(4, 4), 7), "a masked array: say what is in its"),
    ],
)
def test_arrays_whose_meaning_is_not_clear_are_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_picture(given)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64, np.float64, np.bool_, "I", "I;16"])
def test_masks_of_0_and_1_are_outside_and_inside_in_every_type(kind: Any) -> None:
    mask = np.eye(8)
    given = Image.fromarray(mask.astype(np.uint16)).convert(kind) if isinstance(kind, str) else mask.astype(kind)
    np.testing.assert_array_equal(region(read_mask(given), Limits()), mask)


def test_what_is_no_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a named pipe"), ("/dev/zero", "a device")):
        with pytest.raises(InvalidInput, match=f"{kind}, not a file"):
            read_picture(path)
    with open("/dev/zero", "rb") as endless, pytest.raises(InvalidInput, match="not a picture"):
        read_picture(endless)


def test_a_pipe_that_the_process_was_given_is_read(png: bytes) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write(png)
    assert read_picture(f"/dev/fd/{reader}") == png
    os.close(reader)


@pytest.mark.parametrize("kind", [gramlet.Client, gramlet.AsyncClient])
def test_arguments_that_do_not_exist_are_answered_with_those_that_do(kind: Any) -> None:
    client = kind("localhost:1")
    for call, message in {
        lambda: kind("localhost:1", tokn="x"): "tokn: there is no such argument: did you mean 'token'?",
        lambda: client.with_options(timeot=3): "timeot: there is no such argument: did you mean 'timeout'?",
        lambda: client.predict("bees", "a.jpg", topk=3): "topk: there is no such argument: did you mean 'top_k'?",
        lambda: client.stylize("a.jpg"): "stylize: missing a required argument: 'style'",
        lambda: Style(pictur="a.jpg"): "pictur: there is no such argument: did you mean 'picture'?",
    }.items():
        with pytest.raises(gramlet.InvalidCall) as caught:
            call()
        assert str(caught.value) == message
        assert isinstance(caught.value, TypeError)


def test_sets_are_named_as_people_write_them_and_misspelt_ones_are_refused(png: bytes) -> None:
    sets = ["Val", "TRAIN ", "validation", "Test", "holdout", "test2"]
    entries = read_labelled([(png, "a", name) for name in sets]).entries
    assert [entry.set for entry in entries] == ["val", "train", "val", "test", "holdout", "test2"]
    with pytest.raises(InvalidInput, match=r"pictures\[0\]\.set: 'trian' is no usual set: did you mean 'train'\?"):
        read_labelled([(png, "a", "trian")])


@pytest.mark.parametrize("names", [("Ant", "ant"), ("ant", "ant "), ("\u00e4", "a\u0308"), ("new york", "newyork")])
def test_classes_that_look_alike_are_warned_about(png: bytes, names: tuple[str, str]) -> None:
    for read in (lambda: read_labelled({name: [png] for name in names}), lambda: read_items([png, png], names)):
        with pytest.warns(UserWarning, match="look alike: are they one?"):
            read()


def test_labels_that_are_arrays_are_refused_and_empty_cells_are_none(png: bytes) -> None:
    for wrong in (np.zeros(0), np.zeros(2), np.zeros((1, 0), bool)):
        with pytest.raises(InvalidInput, match="a label is text or a number"):
            read_items([png], [wrong])
    assert [item.label for item in read_items([png] * 3, [None, np.nan, np.float64("nan")])] == ["", "", ""]


def test_vectors_of_one_number_and_numbers_that_are_too_large_are_answered() -> None:
    with pytest.raises(InvalidInput, match=r"vectors are numbers .* for N vectors of one"):
        read_items(np.arange(5.0))
    with pytest.raises(InvalidInput, match="there are no items"):
        read_items([])
    first, second = read_items(np.array([[1e300], [1.0]]))  # without a warning of NumPy
    assert first.error is not None
    assert first.error.message == "its numbers are beyond 3.4e38, the largest of float32: scale them"
    assert second.vector == [1.0]


def test_a_picture_that_is_given_twice_is_named(picture: Path) -> None:
    given = {"a": [picture], "b": [picture]}
    with pytest.raises(InvalidInput, match=r"is given twice as 'a' and 'b': leave it or pictures\[0\] out") as found:
        read_labelled(given)
    assert found.value.field == "pictures[1]"


def test_a_time_may_be_a_timedelta() -> None:
    assert seconds(timedelta(minutes=1), "timeout") == 60
