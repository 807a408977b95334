"""Pictures are written as PNG and JPEG files without metadata."""

from __future__ import annotations

import io

import numpy as np
from gramlet.types import Resize
from gramlet_server.pictures.encode import encode_jpeg, encode_png
from gramlet_server.pictures.prepare import prepare
from gramlet_server.pictures.resize import to_float
from PIL import Image

from .files import LIMITS, decoded, distance, file, scene

KEEP = Resize()


def test_png_keeps_every_level_and_jpeg_the_picture() -> None:
    assert np.array_equal(decoded(encode_png(scene())), scene())
    assert np.array_equal(decoded(encode_png(to_float(scene()))), scene())
    assert distance(decoded(encode_jpeg(scene(), quality=95)), scene()) < 3
    assert len(encode_jpeg(scene(), quality=20)) < len(encode_jpeg(scene(), quality=95))


def test_results_do_not_contain_the_metadata_of_a_photograph() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 31.0, 12.0)})
    exif[0x010F] = "a camera of mine"
    data = file(scene(), "JPEG", exif=exif)
    assert b"a camera of mine" in data
    picture = prepare(data, KEEP, LIMITS)
    for result in (encode_png(picture), encode_jpeg(picture)):
        assert b"a camera of mine" not in result
        assert b"Exif" not in result
        assert not Image.open(io.BytesIO(result)).getexif()
