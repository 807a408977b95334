"""Folders of pictures: one reader with one set of rules, for the SDK, every command and the server.

Three layouts are known. Class folders may hold further folders; what is below a class belongs to it.

    <picture>                      pictures without classes
    <class>/<picture>              classes
    <set>/<class>/<picture>        sets: train, val, test under any of their usual names, and further sets

Links are followed. Files are pictures by their suffix, or by their first bytes where the suffix is another. What the
system hides takes no part. Everything that is left out is listed with its reason.

`read_folder` reads a folder on this machine. `arrange` knows the rules and no disks: a server gives it the listing of a
bucket.
"""

from gramlet.folders.disk import is_within, read_folder, read_pictures
from gramlet.folders.rules import (
    PEEK_BYTES,
    Folder,
    FolderPicture,
    LeftOut,
    ListedFile,
    Listing,
    arrange,
    for_training,
    natural_key,
    set_of,
)

__all__ = [
    "PEEK_BYTES",
    "Folder",
    "FolderPicture",
    "LeftOut",
    "ListedFile",
    "Listing",
    "arrange",
    "for_training",
    "is_within",
    "natural_key",
    "read_folder",
    "read_pictures",
    "set_of",
]
