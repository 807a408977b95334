"""The rules for folders of pictures: layouts, what is a picture, what is left out. They know no disks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gramlet.errors import InvalidInput, NotFound, did_you_mean

TRAIN = "train"
VALIDATION = "val"

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff")
"""Suffixes of the formats that the service reads. Other files are pictures by their first bytes."""

_SETS = {
    TRAIN: TRAIN,
    "training": TRAIN,
    VALIDATION: VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": "test",
    "testing": "test",
}
"""The set that a folder's name, in lower case, stands for."""

_MISSPELT = 0.75  # of 0 to 1: how alike a name of letters is to that of a set

PEEK_BYTES = 32
"""How many bytes of a file show whether it is a picture."""

HIDDEN = "hidden"
_UNREADABLE = "cannot be read"
_NO_PICTURE = "not a picture"
_NO_PICTURES = "a folder without pictures"
_NO_CLASS = "not in the folder of a class"

_HIDDEN_NAMES = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir", "lost+found"}
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class FolderPicture:
    """A picture of a folder.

    Attributes:
        name: Its path in the folder, with slashes.
        label: Its class; empty where it is in the folder of none.
        set: `train`, `val`, `test` or the name of a further set; empty in a layout without sets.
        source: Where to read it: its path, or its key in a bucket.
    """

    name: str
    label: str = ""
    set: str = ""
    source: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that takes no part, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Folder:
    """A folder that was read. Iterating over it gives the paths of its pictures, as the calls of a client take them.

    Attributes:
        where: The folder.
        pictures: In natural order: `frame2` comes before `frame10`.
        left_out: What takes no part.
    """

    where: str
    pictures: tuple[FolderPicture, ...]
    left_out: tuple[LeftOut, ...] = ()

    def __iter__(self) -> Iterator[str]:
        return (picture.source for picture in self.pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def remarks(self) -> list[str]:
        """What was left out: a line for each reason, with the first names."""
        names: dict[str, list[str]] = {}
        for left_out in self.left_out:
            names.setdefault(left_out.reason, []).append(left_out.name)
        return [f"left out of {self.where}: {_some(found)}: {reason}" for reason, found in names.items()]


class ListedFile(NamedTuple):
    """A file of a listing: its path in the folder, with slashes, and where to read it."""

    name: str
    source: str


@dataclass(frozen=True)
class Listing:
    """What a folder holds, wherever it is.

    Attributes:
        where: The folder, for errors.
        files: All files below it, in any order.
        peek: Reads the first PEEK_BYTES of a file, given its source. May raise OSError.
        folders: All folders below it, where there are folders besides files.
        left_out: What could not be listed.
    """

    where: str
    files: Sequence[ListedFile]
    peek: Callable[[str], bytes]
    folders: Sequence[str] = ()
    left_out: Sequence[LeftOut] = ()


def set_of(name: str, field: str) -> str:
    """The set that people mean by a name: those of folders, in any case, or a further set of that name.

    Raises:
        InvalidInput: It is probably misspelled. Its pictures would silently not be trained on.
    """
    known = _SETS.get(name.strip().lower())
    if known is None and name.isalpha() and difflib.get_close_matches(name.lower(), _SETS, 1, _MISSPELT):
        hint = did_you_mean(name.lower(), _SETS)
        raise InvalidInput(f"{name!r} is no usual set{hint} Call a set of your own less like it", field=field)
    return known or name


def arrange(listing: Listing, *, labels: bool = True, field: str = "pictures") -> Folder:
    """The pictures of a listing; see `gramlet.folders.disk.read_folder`.

    Raises:
        NotFound: There is no picture.
        InvalidInput: A layout that can be understood in two ways.
    """
    left_out = dict.fromkeys(listing.left_out)
    found: list[ListedFile] = []
    for file in listing.files:
        reason = _reason_to_leave_out(file, listing.peek)
        if reason is None:
            found.append(file)
        else:
            left_out[LeftOut(_hidden_part(file.name) or file.name, reason)] = None
    names = sorted((file.name for file in found), key=natural_key)
    # What cannot be read may hold pictures: nobody can say that there are none.
    unread = [f"{item.name}/" for item in left_out if item.reason.startswith(_UNREADABLE)]
    left_out.update(dict.fromkeys(_empty_folders(listing.folders, [*names, *unread])))
    omitted = tuple(sorted(left_out, key=lambda item: natural_key(item.name)))
    if not found:
        remarks = "".join(f"; {remark}" for remark in Folder("it", (), omitted).remarks())
        raise NotFound(f"there are no pictures below {listing.where}{remarks}", field=field)
    sets = _sets(names, listing.where, field) if labels else None
    sources = dict(found)
    pictures = tuple(_picture(name, sets, labels, sources[name]) for name in names)
    return Folder(listing.where, pictures, omitted)


def for_training(folder: Folder, field: str = "pictures") -> Folder:
    """The folder as training takes it: every picture with a class and a set.

    Raises:
        InvalidInput: No picture has a class, or there are sets and none to train on.
    """
    classed = [picture for picture in folder.pictures if picture.label]
    if not classed:
        raise InvalidInput(
            f"{folder.where} has no pictures in folders of classes: training needs <class>/<picture> or "
            "train/<class>/<picture>",
            field=field,
        )
    sets = {picture.set for picture in classed}
    if "" not in sets and TRAIN not in sets:
        raise InvalidInput(
            f"{folder.where} has the sets {_listed(sets)} and none to train on: name one of its folders train",
            field=field,
        )
    unclassed = [LeftOut(picture.name, _NO_CLASS) for picture in folder.pictures if not picture.label]
    pictures = tuple(replace(picture, set=picture.set or TRAIN) for picture in classed)
    return replace(folder, pictures=pictures, left_out=(*folder.left_out, *unclassed))


def natural_key(text: str) -> tuple[object, ...]:
    """A key that sorts as people count: 1, 2, 10; and without regard to case, as long as that decides."""
    parts = tuple(
        tuple(
            (len(piece.lstrip("0")), piece.lstrip("0")) if number % 2 else piece.casefold()
            for number, piece in enumerate(re.split(r"([0-9]+)", part))
        )
        for part in text.split("/")
    )
    return (parts, text)


NOT_A_PICTURE = "not a picture of a known format (JPEG, PNG, WebP, GIF, BMP, TIFF), or its header is broken"


def is_picture(data: bytes) -> bool:
    """Whether the first PEEK_BYTES of a file are those of a format that the service reads."""
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")):
        return True
    # TIFF and BigTIFF, of either byte order, and two orders that some writers mix up
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0", b"II\0*")):
        return True
    if data.startswith(b"BM"):  # two letters are not much: look at the size of the header that follows as well
        return int.from_bytes(data[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124)
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


# --- the rules ---


def _reason_to_leave_out(file: ListedFile, peek: Callable[[str], bytes]) -> str | None:
    if _hidden_part(file.name):
        return HIDDEN
    if file.name.lower().endswith(SUFFIXES):
        return None  # the service says what is wrong with it, if anything is
    try:
        return None if is_picture(peek(file.source)) else _NO_PICTURE
    except OSError as error:
        return unreadable(error)


def _hidden_part(name: str) -> str:
    """The path up to the first part that the system hides; empty if there is none."""
    parts = name.split("/")
    for number, part in enumerate(parts, 1):
        if is_hidden(part):
            return "/".join(parts[:number])
    return ""


def unreadable(error: OSError) -> str:
    """Why something takes no part that this user cannot read."""
    return f"{_UNREADABLE}: {error.strerror or error}"


def is_hidden(part: str) -> bool:
    return part.startswith(".") or part.lower() in _HIDDEN_NAMES


def _empty_folders(folders: Iterable[str], names: Iterable[str]) -> Iterator[LeftOut]:
    """The topmost folders without a picture below them."""
    occupied = {""}
    for name in names:
        parts = name.split("/")
        occupied.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    for folder in folders:
        if folder not in occupied and folder.rpartition("/")[0] in occupied:
            yield LeftOut(folder, _NO_PICTURES)


def _picture(name: str, sets: dict[str, str] | None, labels: bool, source: str) -> FolderPicture:
    parts = name.split("/")
    if not labels:
        return FolderPicture(name, source=source)
    if sets is None:
        return FolderPicture(name, parts[0] if len(parts) > 1 else "", "", source)
    label, top = parts[1] if len(parts) > 2 else "", parts[0] if len(parts) > 1 else ""
    return FolderPicture(name, label, sets.get(top, top), source)


def _sets(names: Sequence[str], where: str, field: str) -> dict[str, str] | None:
    """The set of each folder at the top, where they are sets; None where they are classes, or there are none."""
    paths = [name.split("/") for name in names]
    tops = list(dict.fromkeys(parts[0] for parts in paths if len(parts) > 1))
    sets = {top: _SETS[top.lower()] for top in tops if top.lower() in _SETS}
    _refuse_a_layout_inside_another(paths, tops, sets, where, field)
    if not sets:
        return None
    has_classes_to_train_on = any(len(parts) > 2 and sets.get(parts[0]) == TRAIN for parts in paths)
    if not has_classes_to_train_on and len(sets) < len(tops):
        others = [top for top in tops if top not in sets]
        raise InvalidInput(
            f"{where} has {_listed(sets)} beside {_listed(others)}: if those are classes, move them into a folder "
            f"train; if {_listed(sets)} is a class as well, rename it",
            field=field,
        )
    by_set: dict[str, list[str]] = {}
    for top in tops:
        by_set.setdefault(sets.get(top, top), []).append(top)
    for tops_of_set in by_set.values():
        if len(tops_of_set) > 1:
            raise InvalidInput(f"{where} has {_listed(tops_of_set)}, which mean one set: keep one of them", field=field)
    return sets


def _refuse_a_layout_inside_another(
    paths: Sequence[Sequence[str]], tops: Sequence[str], sets: dict[str, str], where: str, field: str
) -> None:
    """Refuses sets inside of classes, and a data set that lies one folder deeper than was said."""
    if sets or any(len(parts) < 3 for parts in paths):
        return
    seconds = {parts[1] for parts in paths}
    if len(tops) == 1 and (len(seconds) > 1 or seconds.pop().lower() in _SETS):
        raise InvalidInput(
            f"all pictures of {where} are in folders of {tops[0]!r}: name {where}/{tops[0]} instead", field=field
        )
    if all(parts[1].lower() in _SETS for parts in paths):
        raise InvalidInput(
            f"{where} has sets inside of its classes, {'/'.join(paths[0][:2])}/: swap them, to "
            f"{paths[0][1]}/{paths[0][0]}/",
            field=field,
        )


def _listed(names: Iterable[str]) -> str:
    return _some([repr(name) for name in names])


def _some(names: Sequence[str]) -> str:
    hidden = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {hidden} more" if hidden > 0 else "")
