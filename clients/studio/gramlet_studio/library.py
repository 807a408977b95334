"""What the studio keeps on disk: pictures by their hash, and the orders of runs, so that any window can open them.

    pictures/<sha256>           a file as it was uploaded; served only as a JPEG that is made here
    orders/<kind>/<run id>.json what the page ordered; beside it, <kind>-events: what happened, once the run has ended
    folders/<id>.json           a folder: the names of its files, and which pictures they are
    thumbs/<name>.jpg           thumbnails, which can be made again

Names of uploads are data in these files, and never part of a path.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from gramlet.errors import InvalidInput, NotFound
from gramlet.types import check_name

MOST_PIXELS = 64_000_000
_ID = re.compile(r"[0-9a-f]{64}")
_KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class StoredPicture:
    """A picture of the library: its id, and its size in pixels as it is seen (EXIF orientation applied)."""

    id: str
    width: int
    height: int


class Library:
    """The files below a folder. Methods block: call them in a thread.

    Args:
        root: The folder; made if it is not there.

    Raises:
        InvalidInput: The folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            for name in ("pictures", "orders", "folders", "thumbs"):
                (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        except (FileExistsError, NotADirectoryError):
            file = next(path for path in (root / name, root, *root.parents) if path.exists() and not path.is_dir())
            raise InvalidInput(f"{file} is a file, not a folder", field="--data") from None
        except OSError as error:
            raise InvalidInput(f"cannot make {error.filename}: {error.strerror}", field="--data") from None

    # --- pictures ---

    def add_file(self, data: bytes) -> str:
        """Keeps a file of any content; returns its id."""
        identifier = hashlib.sha256(data).hexdigest()
        path = self._root / "pictures" / identifier
        if path.exists():
            os.utime(path)  # used just now: not to be cleaned up
        else:
            _write(path, data)
        return identifier

    def add_picture(self, data: bytes, field: str = "picture") -> StoredPicture:
        """Keeps a picture.

        Raises:
            InvalidInput: Not a picture, or one of too many pixels.
        """
        with _opened(io.BytesIO(data), field) as image:
            width, height = _seen_size(image)
        return StoredPicture(self.add_file(data), width, height)

    def path(self, identifier: str, field: str = "picture") -> Path:
        """Where a picture is.

        Raises:
            NotFound: The library has no such picture.
        """
        path = self._root / "pictures" / identifier
        if not _ID.fullmatch(identifier) or not path.exists():
            raise NotFound("the studio does not have this picture any more: choose it again", field=field)
        return path

    def describe(self, identifier: str) -> StoredPicture:
        """A picture's size; errors as of `path` and `add_picture`."""
        with _opened(self.path(identifier), "picture") as image:
            return StoredPicture(identifier, *_seen_size(image))

    def thumbnail(self, identifier: str, side: int) -> bytes:
        """A picture as a JPEG of at most `side` pixels; errors as of `describe`."""
        kept = self._root / "thumbs" / f"{identifier}-{side}.jpg"
        path = self.path(identifier)
        if not kept.exists():
            _write(kept, smaller(path, side))
        return kept.read_bytes()

    # --- documents ---

    def save(self, group: str, name: str, value: Mapping[str, Any]) -> None:
        """Keeps a JSON document."""
        _write(self._document(group, name), json.dumps(value).encode())

    def load(self, group: str, name: str) -> dict[str, Any] | None:
        """A document, or None."""
        try:
            value: dict[str, Any] = json.loads(self._document(group, name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return value

    def forget(self, group: str, name: str) -> None:
        """Removes a document and the thumbnail of the same name."""
        self._document(group, name).unlink(missing_ok=True)
        self._run_thumbnail(f"{group}-{name}").unlink(missing_ok=True)

    def names(self, group: str) -> list[str]:
        """The documents of a group, newest first."""
        paths = (self._root / group).glob("*.json")
        return [path.stem for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)]

    def run_thumbnail(self, kind: str, run_id: str) -> bytes | None:
        """The thumbnail kept for a run's result, or None."""
        path = self._run_thumbnail(f"orders/{kind}-{run_id}")
        return path.read_bytes() if path.exists() else None

    def save_run_thumbnail(self, kind: str, run_id: str, jpeg: bytes) -> None:
        """Keeps the thumbnail of a run's result."""
        _write(self._run_thumbnail(f"orders/{kind}-{run_id}"), jpeg)

    def clean(self) -> None:
        """Removes pictures, with their thumbnails, that no order and no folder names and nobody has used for a day."""
        used = {found for text in self._documents() for found in _ID.findall(text)}
        for path in (self._root / "pictures").iterdir():
            if path.name not in used and time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                path.unlink(missing_ok=True)
        for path in (self._root / "thumbs").iterdir():
            of_picture = _ID.match(path.name)
            if of_picture and not (self._root / "pictures" / of_picture[0]).exists():
                path.unlink(missing_ok=True)

    def _documents(self) -> Iterator[str]:
        for path in (*(self._root / "orders").rglob("*.json"), *(self._root / "folders").glob("*.json")):
            yield path.read_text()

    def _document(self, group: str, name: str) -> Path:
        return self._root / group / f"{check_name(name, 'name')}.json"

    def _run_thumbnail(self, name: str) -> Path:
        return self._root / "thumbs" / f"{name.replace('/', '-')}.jpg"


def smaller(source: Path | bytes, side: int) -> bytes:
    """A picture as a JPEG of at most `side` pixels, upright, on gray where it is transparent."""
    with _opened(io.BytesIO(source) if isinstance(source, bytes) else source, "picture") as image:
        image.draft("RGB", (side * 2, side * 2))  # libjpeg decodes fewer pixels
        upright = ImageOps.exif_transpose(image)
        rgb = upright.convert("RGBA") if upright.mode in ("RGBA", "LA", "P", "PA") else upright.convert("RGB")
        if rgb.mode == "RGBA":
            backdrop = Image.new("RGBA", rgb.size, (128, 128, 128, 255))
            rgb = Image.alpha_composite(backdrop, rgb).convert("RGB")
        rgb.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        rgb.save(out, "JPEG", quality=86)
        return out.getvalue()


class _opened:
    """Opens a picture; what goes wrong inside of the block is InvalidInput."""

    def __init__(self, source: Path | io.BytesIO, field: str) -> None:
        self._source, self._field = source, field
        self._image: Image.Image | None = None

    def __enter__(self) -> Image.Image:
        try:
            image = Image.open(self._source, formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"))
        except Exception as error:
            raise self._invalid(error) from None
        if image.width * image.height > MOST_PIXELS:
            image.close()
            raise InvalidInput(
                f"{image.width} x {image.height} pixels are too many: at most {MOST_PIXELS:,}", field=self._field
            )
        self._image = image
        return image

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self._image is not None:
            self._image.close()
        if isinstance(error, Exception) and not isinstance(error, InvalidInput):
            raise self._invalid(error) from None

    def _invalid(self, error: Exception) -> InvalidInput:
        return InvalidInput("not a picture that can be read: use JPEG, PNG, WebP, GIF, BMP or TIFF", field=self._field)


def _seen_size(image: Image.Image) -> tuple[int, int]:
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else (image.width, image.height)


def _write(path: Path, data: bytes) -> None:
    """Writes a file at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(name, path)
