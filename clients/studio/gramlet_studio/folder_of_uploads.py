"""A folder as a browser sent it: names and pictures, read by the rules for folders of `gramlet.folders`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from PIL import Image, ImageOps

from gramlet.errors import GramletError, InvalidInput, NotFound
from gramlet.folders import PEEK_BYTES, Folder, FolderPicture, ListedFile, Listing, arrange
from gramlet.folders.rules import TRAIN, VALIDATION
from gramlet_studio.library import Library

VALIDATION_SHARE = 5  # a fifth of each class
TILE = 64
TILES = 24  # of one side of a sheet
"""A sheet of 24 x 24 tiles of 64 pixels is 1536 pixels wide: every phone can hold that."""
SHEET = TILES * TILES
KEPT = 4
"""Each sheet of a map asks for the folder, and to read one of 20,000 pictures takes seconds."""


@dataclass
class OpenFolder:
    """A folder whose files are on their way. `files`: its paths, and the ids of their pictures."""

    name: str
    files: dict[str, str] = field(default_factory=dict)
    bytes: int = 0

    def add(self, name: str, identifier: str, size: int, most_files: int, most_bytes: int) -> None:
        """Adds a file.

        Raises:
            InvalidInput: The folder has too many files, or too large ones.
        """
        if len(self.files) >= most_files or self.bytes + size > most_bytes:
            raise InvalidInput(
                f"a folder may have {most_files:,} files and {most_bytes // 1_000_000:,} MB", field="folder"
            )
        self.files[name] = identifier
        self.bytes += size


@dataclass(frozen=True)
class UploadedFolder:
    """A folder that has arrived.

    Attributes:
        id, name: Of the folder.
        folder: What it holds, by the rules of gramlet.folders; the sources are paths in the library.
        pictures: The ids of its pictures, in the folder's order.
    """

    id: str
    name: str
    folder: Folder
    pictures: tuple[str, ...]

    def items(self) -> list[dict[str, str]]:
        """Its pictures for the page."""
        return [
            {"name": picture.name, "label": picture.label, "set": picture.set, "picture": identifier}
            for picture, identifier in zip(self.folder.pictures, self.pictures, strict=True)
        ]

    def summary(self) -> dict[str, Any]:
        """What was understood: classes and their counts, sets, and what was left out and why."""
        classes: dict[str, int] = {}
        for picture in self.folder.pictures:
            classes[picture.label] = classes.get(picture.label, 0) + 1
        left_out = [{"name": each.name, "reason": each.reason} for each in self.folder.left_out]
        return {
            "id": self.id,
            "name": self.name,
            "pictures": len(self.pictures),
            "classes": [{"name": name, "count": count} for name, count in classes.items() if name],
            "unlabelled": classes.get("", 0),
            "sets": sorted({picture.set for picture in self.folder.pictures if picture.set}),
            "leftOut": left_out,
        }

    def with_split(self, changes: Mapping[str, str | None]) -> Folder:
        """The folder with a validation set, which is a fifth of each class where the folder has none.

        The studio splits, not the server, so that it knows the pictures behind each number of a report.

        Args:
            changes: Other classes for some pictures, by name; None leaves a picture out.
        """
        relabelled = [
            replace(picture, label=changes.get(picture.name, picture.label) or "")
            for picture in self.folder.pictures
            if changes.get(picture.name, picture.label) is not None
        ]
        if any(picture.set == VALIDATION for picture in relabelled):
            return replace(self.folder, pictures=tuple(relabelled))
        by_class: dict[str, list[FolderPicture]] = {}
        for picture in relabelled:
            if picture.label and picture.set in ("", TRAIN):
                by_class.setdefault(picture.label, []).append(picture)
        chosen = {picture.name for pictures in by_class.values() for picture in _validation(pictures)}
        return replace(
            self.folder,
            pictures=tuple(
                replace(picture, set=VALIDATION if picture.name in chosen else picture.set or TRAIN)
                for picture in relabelled
            ),
        )


def _validation(pictures: Sequence[FolderPicture]) -> Iterator[FolderPicture]:
    """A fifth of a class, chosen by a hash of the names, so that it is the same in the next training."""
    ordered = sorted(pictures, key=lambda picture: hashlib.sha256(picture.name.encode("utf-8", "replace")).digest())
    count = len(ordered) // VALIDATION_SHARE or (1 if len(ordered) > 1 else 0)
    return iter(ordered[:count])


@lru_cache(maxsize=KEPT)
def read_uploaded(library: Library, identifier: str) -> UploadedFolder:
    """A folder of the library. Folders that have arrived never change: the last few are not read again.

    Raises:
        NotFound: There is no such folder, or no picture in it.
        InvalidInput: Its layout can be understood in two ways.
    """
    document = library.load("folders", identifier)
    if document is None:
        raise NotFound("the studio does not have this folder any more: drop it again", field="folder")
    files: dict[str, str] = document["files"]
    paths = {name: str(library.path(picture)) for name, picture in files.items()}

    def peek(source: str) -> bytes:
        with open(source, "rb") as file:
            return file.read(PEEK_BYTES)

    listed = [ListedFile(name, path) for name, path in paths.items()]
    folder = arrange(Listing(document["name"], listed, peek), field="folder")
    return UploadedFolder(
        identifier, document["name"], folder, tuple(files[picture.name] for picture in folder.pictures)
    )


def sheet(library: Library, uploaded: UploadedFolder, number: int) -> bytes:
    """The small pictures of a folder side by side, SHEET to a file, as a JPEG. Those that cannot be read are gray.

    Raises:
        NotFound: There is no such sheet.
    """
    pictures = uploaded.pictures[number * SHEET : (number + 1) * SHEET]
    if not pictures:
        raise NotFound("there is no such sheet")
    return _tiled(library, pictures, TILES, TILE)


def collage(library: Library, identifier: str) -> bytes:
    """Twelve pictures from all over a folder, as a JPEG; errors as of `read_uploaded`."""
    pictures = read_uploaded(library, identifier).pictures
    return _tiled(library, [pictures[place * len(pictures) // 12] for place in range(12)], 4, 80)


def _tiled(library: Library, pictures: Sequence[str], columns: int, side: int) -> bytes:
    """Pictures in rows, each cut to a square."""
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * side, rows * side), (128, 128, 128))
    for place, identifier in enumerate(pictures):
        try:
            small = Image.open(io.BytesIO(library.thumbnail(identifier, 160)), formats=("JPEG", "PNG"))
        except GramletError:
            continue
        tile = ImageOps.fit(small, (side, side), Image.Resampling.LANCZOS)
        whole.paste(tile, (place % columns * side, place // columns * side))
    out = io.BytesIO()
    whole.save(out, "JPEG", quality=84)
    return out.getvalue()
