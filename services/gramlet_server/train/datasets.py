"""Data sets that the server reads itself: folders and s3:// prefixes below allowed roots. Rules: `gramlet.folders`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import obstore
from gramlet.errors import InvalidInput, NotFound, PermissionDenied
from gramlet.folders import (
    PEEK_BYTES,
    Folder,
    LeftOut,
    ListedFile,
    Listing,
    arrange,
    for_training,
    is_within,
    read_folder,
)
from gramlet.train.configuration import Entry, Upload
from obstore import exceptions
from obstore.store import S3Store

_FIELD = "dataset_uri"
_log = logging.getLogger(__name__)


class Datasets:
    """The data sets below some roots.

    Args:
        roots: Folders, or `s3://bucket/prefix`. Nothing else can be read, not through links either.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = tuple(roots)
        self._folders = tuple(root for root in self._roots if not _is_bucket(root))
        for root in self._folders:
            if not os.path.isdir(root):  # it may be mounted later
                _log.warning("--dataset-roots: there is no folder %s", root)

    def entries(self, uri: str) -> tuple[Entry, ...]:
        """The pictures of a data set, by their names; none is read. What is left out is logged.

        Raises:
            PermissionDenied: Not below an allowed root.
            NotFound: There is nothing.
            InvalidInput: The layout can be understood in two ways, or no picture has a class.
        """
        self._check(uri)
        folder = _read_bucket(uri) if _is_bucket(uri) else self._read_folder(_path(uri))
        folder = for_training(folder, _FIELD)
        for remark in folder.remarks():
            _log.info("%s", remark)
        return tuple(Entry(picture.name, picture.label, picture.set) for picture in folder.pictures)

    def read(self, uri: str, entries: Sequence[Entry], wanted: Iterable[int]) -> Iterator[Upload]:
        """The wanted pictures of a data set, one at a time.

        Raises:
            PermissionDenied: Not below an allowed root.
            InvalidInput: A picture is gone.
        """
        self._check(uri)
        store = _bucket(uri) if _is_bucket(uri) else None
        for position in wanted:
            name = entries[position].name
            try:
                data = self._read_file(_path(uri), name) if store is None else bytes(obstore.get(store, name).bytes())
            except (exceptions.NotFoundError, OSError):
                raise InvalidInput(f"{uri} no longer has {name}", field=_FIELD) from None
            yield Upload(position, data)

    def _check(self, uri: str) -> None:
        inside = _is_below(uri, self._roots) if _is_bucket(uri) else is_within(_path(uri), self._folders)
        if not inside:
            allowed = ", ".join(self._roots) or "none"
            raise PermissionDenied(
                f"{uri} is not below a data set root of this server ({allowed}): start it with --dataset-roots, or "
                "send the pictures",
                field=_FIELD,
            )

    def _read_folder(self, path: str) -> Folder:
        if not os.path.isdir(path):
            raise NotFound(f"{path} is no folder", field=_FIELD)
        folder = read_folder(path, roots=self._folders, field=_FIELD)
        # Later each picture is found by its name alone.
        unnamed = [picture for picture in folder.pictures if os.path.join(path, picture.name) != picture.source]
        left_out = (LeftOut(picture.name, "its name is not UTF-8") for picture in unnamed)
        kept = tuple(picture for picture in folder.pictures if picture not in unnamed)
        return replace(folder, pictures=kept, left_out=(*folder.left_out, *left_out))

    def _read_file(self, path: str, name: str) -> bytes:
        file = os.path.join(path, name)
        if not is_within(file, self._folders):  # a link that was changed since the folder was read
            raise FileNotFoundError(file)
        with open(file, "rb") as opened:
            return opened.read()


def _read_bucket(uri: str) -> Folder:
    store = _bucket(uri)
    # Some programs mark folders by empty objects whose keys end with a slash.
    keys = [meta["path"] for chunk in obstore.list(store) for meta in chunk if not meta["path"].endswith("/")]

    def peek(key: str) -> bytes:
        try:
            return bytes(obstore.get_range(store, key, start=0, length=PEEK_BYTES))
        except exceptions.BaseError:  # an empty object has no such range
            return b""

    return arrange(Listing(uri, [ListedFile(key, key) for key in keys], peek), field=_FIELD)


def _bucket(uri: str) -> S3Store:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return S3Store(bucket, prefix=prefix or None, client_options={"allow_http": True})


def _is_bucket(uri: str) -> bool:
    return uri.startswith("s3://")


def _is_below(uri: str, roots: Iterable[str]) -> bool:
    parts = uri.rstrip("/").split("/")
    allowed = [root.rstrip("/").split("/") for root in roots if _is_bucket(root)]
    return ".." not in parts and any(parts[: len(root)] == root for root in allowed)


def _path(uri: str) -> str:
    return uri.removeprefix("file://")
