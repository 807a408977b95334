"""ZIP files of folders of classes."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence

from gramlet_studio.folder_of_uploads import UploadedFolder

_CHUNK = 1 << 20


def image_folder(uploaded: UploadedFolder, names: Sequence[str | None]) -> Iterator[bytes]:
    """The named pictures as <name>/<file>, in a ZIP file, piece by piece. No path leads out of the archive."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the last piece was read
    taken: set[str] = set()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed already
        for picture, name in zip(uploaded.folder.pictures, names, strict=True):
            if name:
                archive.write(picture.source, _free(f"{_part(name)}/{_part(picture.name)}", taken))
    file.seek(0)

    def pieces() -> Iterator[bytes]:
        with file:
            while piece := file.read(_CHUNK):
                yield piece

    return pieces()


def _part(text: str) -> str:
    """A text as one part of a path, on every system."""
    return re.sub(r"[^\w .+-]", "_", text.replace("/", "-")).strip(". ") or "unnamed"


def _free(path: str, taken: set[str]) -> str:
    """The path, with a number if it is taken; without regard to case, as some systems."""
    stem, dot, suffix = path.rpartition(".")
    number, found = 1, path
    while found.lower() in taken:
        number += 1
        found = f"{stem}-{number}{dot}{suffix}" if dot else f"{path}-{number}"
    taken.add(found.lower())
    return found
