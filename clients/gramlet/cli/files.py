"""Files that commands write: checked before the work begins, and whole or not there at all."""

from __future__ import annotations

import os
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

from PIL import Image

from gramlet.errors import InvalidInput

PICTURES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_JPEG_QUALITY = 95


def check_output(path: Path, extensions: Collection[str], option: str) -> None:
    """Finds out whether a file can be written before anybody works for it.

    Raises:
        InvalidInput: An extension of no known format, a directory that does not exist, or one that is closed.
    """
    if path.suffix.lower() not in extensions:
        raise InvalidInput(f"{path} must end in one of {', '.join(extensions)}", field=option)
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory", field=option)
    check_directory(path.parent, option)


def check_directory(path: Path, option: str) -> None:
    """Finds out whether files can be written to a directory.

    Raises:
        InvalidInput: It does not exist, or is closed.
    """
    if not path.is_dir():
        raise InvalidInput(f"there is no directory {path}", field=option)
    if not os.access(path, os.W_OK | os.X_OK):
        raise InvalidInput(f"no permission to write to {path}", field=option)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that others see the old one or the new one, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def encode_picture_as(image: Image.Image, path: Path) -> bytes:
    """The picture as a file of the format that the path's extension names."""
    file = BytesIO()
    kind = PICTURES[path.suffix.lower()]
    image.save(file, format=kind, **({"quality": _JPEG_QUALITY} if kind in ("JPEG", "WEBP") else {}))
    return file.getvalue()
