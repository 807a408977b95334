"""Data sets that the server reads itself: folders and s3:// prefixes in ImageFolder layout, below allowed roots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import obstore
from gramlet.errors import InvalidInput, NotFound, PermissionDenied
from gramlet.folders import entry_of, is_layout_of_sets
from gramlet.train.configuration import Entry, Upload
from obstore import exceptions
from obstore.store import LocalStore, ObjectStore, S3Store


class Datasets:
    """The data sets below some roots.

    Args:
        roots: Folders, or `s3://bucket/prefix`. Nothing else can be read.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = tuple(roots)

    def entries(self, uri: str) -> tuple[Entry, ...]:
        """The pictures of a data set, by their names; none is read.

        Raises:
            PermissionDenied: Not below an allowed root.
            NotFound: There is nothing.
        """
        names = sorted(meta["path"] for chunk in obstore.list(self._open(uri)) for meta in chunk)
        with_sets = is_layout_of_sets(names)
        entries = tuple(entry for name in names if (entry := entry_of(name, with_sets)))
        if not entries:
            raise NotFound(f"{uri} has no pictures in the layout <class>/<picture>", field="dataset_uri")
        return entries

    def read(self, uri: str, entries: Sequence[Entry], wanted: Iterable[int]) -> Iterator[Upload]:
        """The wanted pictures of a data set, one at a time.

        Raises:
            InvalidInput: A picture is gone.
        """
        store = self._open(uri)
        for position in wanted:
            name = entries[position].name
            try:
                data = bytes(obstore.get(store, name).bytes())
            except (exceptions.NotFoundError, FileNotFoundError):
                raise InvalidInput(f"{uri} no longer has {name}", field="dataset_uri") from None
            yield Upload(position, data)

    def _open(self, uri: str) -> ObjectStore:
        if not any(_is_below(uri, root) for root in self._roots):
            allowed = "none" if not self._roots else ", ".join(self._roots)
            raise PermissionDenied(
                f"{uri} is not below a data set root of this server ({allowed}): start it with --dataset-roots, or "
                "send the pictures",
                field="dataset_uri",
            )
        if uri.startswith("s3://"):
            bucket, _, prefix = uri.removeprefix("s3://").partition("/")
            return S3Store(bucket, prefix=prefix or None, client_options={"allow_http": True})
        path = Path(uri.removeprefix("file://")).resolve()
        if not path.is_dir():
            raise NotFound(f"{uri} is no folder", field="dataset_uri")
        return LocalStore(path)


def _is_below(uri: str, root: str) -> bool:
    if uri.startswith("s3://") or root.startswith("s3://"):
        parts, allowed = uri.rstrip("/").split("/"), root.rstrip("/").split("/")
        return ".." not in parts and parts[: len(allowed)] == allowed
    # resolve() follows symbolic links: a link below the root does not lead out of it.
    return Path(uri.removeprefix("file://")).resolve().is_relative_to(Path(root).resolve())
