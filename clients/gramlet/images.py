"""Pictures that a server sends as PNG or JPEG files, decoded when they are looked at."""

from __future__ import annotations

import os
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from gramlet.errors import InternalError, InvalidInput, shown
from gramlet.types import Limits

if TYPE_CHECKING:
    from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"


def open_image(data: bytes) -> Image.Image:
    """The picture in a PNG or JPEG file.

    Raises:
        InternalError: The server sent something else, or too many pixels.
    """
    from PIL import Image  # only those who look at a picture pay for the import

    try:
        image = Image.open(BytesIO(data), formats=("PNG", "JPEG"))  # others may start other programs
        if image.width * image.height > Limits.decoded_pixels:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        image.load()
    except Exception as error:  # broken files make decoders raise nearly anything
        raise InternalError(f"the server sent a picture that cannot be decoded: {error}") from None
    return image


def checked_png(data: bytes) -> bytes:
    """The bytes of a server's PNG file, to be kept as they came.

    Raises:
        InternalError: The server sent something else.
    """
    if not data.startswith(_PNG):
        raise InternalError(f"the server sent {len(data):,} bytes that are no PNG file in place of a picture")
    return data


class PngFile:
    """Base of results and events that hold a picture as a PNG file, `png`."""

    png: bytes

    @cached_property
    def image(self) -> Image.Image:
        """The picture, decoded when first asked for."""
        return open_image(self.png)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the picture in the format that the path's extension names; a `.png` gets the very bytes that came.

        In formats without transparency it is laid on white.

        Raises:
            InvalidInput: No known extension, or a file that cannot be written.
            InternalError: The server sent no picture.
        """
        try:
            target = Path(path)
            if target.suffix.lower() == ".png":
                target.write_bytes(checked_png(self.png))
            else:
                _opaque(self.image, target).save(target)
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidInput(f"cannot write {shown(path)}: {shown(str(reason))}", field="path") from None


def _opaque(image: Image.Image, path: Path) -> Image.Image:
    """The picture as the format of the path can hold it."""
    if image.mode != "RGBA" or path.suffix.lower() not in (".jpg", ".jpeg", ".bmp"):
        return image
    white: Image.Image = image.copy()
    white.paste("white", (0, 0, *image.size))
    white.alpha_composite(image)
    return white.convert("RGB")
