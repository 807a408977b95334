"""Folders of pictures on this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from gramlet.errors import InvalidInput, NotFound, plain
from gramlet.folders.rules import (
    HIDDEN,
    PEEK_BYTES,
    Folder,
    FolderPicture,
    LeftOut,
    ListedFile,
    Listing,
    arrange,
    is_hidden,
    unreadable,
)

_MOST_FILES = 1_000_000


def read_folder(
    root: str | os.PathLike[str], *, labels: bool = True, roots: Iterable[str] = (), field: str = "pictures"
) -> Folder:
    """The pictures below a folder on this machine, with their classes and sets.

    Args:
        root: The folder.
        labels: Whether classes and sets matter. If not, every layout is taken, and pictures have neither.
        roots: Folders that links may not lead out of; none: links may lead anywhere.
        field: What the caller calls it, for errors.

    Raises:
        NotFound: There is no such folder, or no picture below it.
        InvalidInput: Not a folder, one that this user cannot read, or a layout that can be understood in two ways; the
            error says what to change.
    """
    where = os.fspath(root)
    try:
        mode = os.stat(where).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: NUL
        raise NotFound(f"there is no folder {where}", field=field) from None
    except OSError as error:
        raise InvalidInput(f"cannot read {where}: {error.strerror}", field=field) from None
    if not stat.S_ISDIR(mode):
        raise InvalidInput(f"{where} is a file, not a folder", field=field)
    return arrange(list_folder(where, roots), labels=labels, field=field)


def read_pictures(paths: Iterable[str | os.PathLike[str]], *, field: str = "pictures") -> Folder:
    """Pictures as a command line names them: files, and folders whose pictures are taken whatever their layout.

    Raises:
        NotFound, InvalidInput: As `read_folder`.
    """
    pictures: list[FolderPicture] = []
    left_out: list[LeftOut] = []
    for each in paths:
        path = os.fspath(each)
        if os.path.isdir(path):
            folder = read_folder(path, labels=False, field=field)
            pictures += folder.pictures
            left_out += [replace(item, name=f"{path.rstrip('/')}/{item.name}") for item in folder.left_out]
        else:
            pictures.append(FolderPicture(path, source=path))
    return Folder("the pictures", tuple(pictures), tuple(left_out))


def list_folder(root: str | os.PathLike[str], roots: Iterable[str] = ()) -> Listing:
    """What a folder on this machine holds, links followed. Links in a circle end, and so do those out of the roots."""
    lister = _Lister(os.fspath(root), tuple(os.path.realpath(each) for each in roots))
    lister.walk()
    return Listing(lister.root, lister.files, _peek, lister.folders, lister.left_out)


def is_within(path: str | os.PathLike[str], roots: Iterable[str]) -> bool:
    """Whether a path, with all links followed, is one of the folders or below one."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(root)) for root in roots)


def _peek(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(PEEK_BYTES)


def shown(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8, and control characters, become escapes such as \\xe9."""
    return plain(name)


class _Folder(NamedTuple):
    name: str
    path: str
    above: frozenset[tuple[int, int]]  # device and inode of it and of the folders that led to it


@dataclass
class _Lister:
    """Walks through a folder."""

    root: str
    roots: tuple[str, ...]
    files: list[ListedFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    _ahead: list[_Folder] = field(default_factory=list)

    def walk(self) -> None:
        """Lists everything."""
        status = os.stat(self.root)
        self._ahead.append(_Folder("", self.root, frozenset({(status.st_dev, status.st_ino)})))
        while self._ahead:
            folder = self._ahead.pop()
            try:
                with os.scandir(folder.path) as entries:
                    for entry in entries:
                        self._take(entry, folder)
            except OSError as error:
                self.left_out.append(LeftOut(folder.name or self.root, unreadable(error)))

    def _take(self, entry: os.DirEntry[str], folder: _Folder) -> None:
        name = f"{folder.name}/{shown(entry.name)}".removeprefix("/")
        reason, status = self._look(entry)
        if status is None:
            self.left_out.append(LeftOut(name, reason))
        elif stat.S_ISDIR(status.st_mode):
            self._enter(_Folder(name, entry.path, folder.above), (status.st_dev, status.st_ino))
        elif not stat.S_ISREG(status.st_mode):
            self.left_out.append(LeftOut(name, "neither a file nor a folder"))
        elif len(self.files) == _MOST_FILES:
            raise InvalidInput(f"{self.root} has more than {_MOST_FILES:,} files", field="pictures")
        else:
            self.files.append(ListedFile(name, entry.path))

    def _look(self, entry: os.DirEntry[str]) -> tuple[str, os.stat_result | None]:
        """What an entry is, or why it is left out."""
        if is_hidden(entry.name):
            return HIDDEN, None
        try:
            if entry.is_symlink() and self.roots and not is_within(entry.path, self.roots):
                return "a link that leads out of the folders that may be read", None
            return "", os.stat(entry.path)
        except FileNotFoundError:
            return "a link to nothing", None
        except OSError as error:
            return unreadable(error), None

    def _enter(self, folder: _Folder, identity: tuple[int, int]) -> None:
        if identity in folder.above:
            self.left_out.append(LeftOut(folder.name, "a link back to a folder above it"))
        else:
            self.folders.append(folder.name)
            self._ahead.append(folder._replace(above=folder.above | {identity}))
