"""Pictures as command lines name them, and what a command says of one that fails."""

from __future__ import annotations

from collections.abc import Iterable

from gramlet.cli.terminal import Terminal
from gramlet.errors import GramletError
from gramlet.folders import FolderPicture, read_pictures


def pictures_of(given: Iterable[object], terminal: Terminal, field: str = "pictures") -> list[FolderPicture]:
    """The pictures of files and folders, in natural order; says what was left out.

    Raises:
        NotFound: A folder has no picture.
    """
    folder = read_pictures([str(each) for each in given], field=field)
    for remark in folder.remarks():
        terminal.note(remark)
    return list(folder.pictures)


def with_name(picture: str, message: str) -> str:
    """The message, with the name of the picture before it if it does not begin with it or with its path."""
    named = message.startswith(f"{picture}:") or message.partition(": ")[0].endswith(f"/{picture}")
    return message if named else f"{picture}: {message}"


def show_failure(picture: str, error: GramletError | OSError, terminal: Terminal) -> None:
    """Says that one of several pictures failed, and why."""
    if isinstance(error, OSError):
        error = GramletError(error.strerror or str(error))
    terminal.note(with_name(picture, error.message))
    terminal.event("error", picture=picture, code=error.code.name, message=error.message)
