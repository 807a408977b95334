"""What a command shows: progress and text for people, or with `--json` one object a line for scripts.

Names and labels come from file systems and from other users: they are shown as text, never as markup, emoji codes or
commands to the terminal. What the terminal's code page lacks is shown as an escape.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from gramlet.errors import printable
from gramlet.json_codec import to_line

E = TypeVar("E")

_WIDEST = 10_000
_BAR_WIDTH = 20
_LINES_WITHOUT_TERMINAL = 10  # progress lines of a whole run, where nothing can be redrawn


def escape_what_cannot_be_written() -> None:
    """Lets standard output and error write escapes for characters that their code page lacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class MayBeFull:
    """Standard error of a program whose exit code says how its work went, even where nothing more can be written there.

    A log on a full disk, for example, must neither stop the work nor make its success a failure. A reader who has
    left (BrokenPipeError) ends the program, as on standard output.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what can be written."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Writes what waits, if it can be written."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            pass


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error. It may come while a lock is given back, which then fails in its own way."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


class Terminal:
    """Where a command's output goes: results to stdout, everything else to stderr.

    Attributes:
        json: Results are JSON objects, one a line, each flushed; there is no progress.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json
        self._out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def event(self, name: str, /, **values: Any) -> None:
        """Prints `{"event": name, ...}`, with `--json` only. Numbers that JSON has none for are null."""
        if self.json:
            print(to_line(name, **values), flush=True)

    def say(self, text: str) -> None:
        """Prints a line for people; nothing with `--json`."""
        if not self.json:
            self._out.print(printable(text))

    def table(self, table: Table) -> None:
        """Prints a table for people; nothing with `--json`."""
        if not self.json:
            # Where no terminal has a width, nothing is folded: `grep` finds a digest or a path in one line.
            console = self._out if self._out.is_terminal else Console(width=_WIDEST, highlight=False, emoji=False)
            console.print(table)

    def note(self, text: str) -> None:
        """Prints a line beside the results, on stderr."""
        self._err.print(f"gramlet: {printable(text)}")

    @contextmanager
    def progress(self, description: str) -> Iterator[Meter]:
        """A progress bar on stderr, or now and then a line where that is no terminal; nothing with `--json`."""
        if self.json:
            yield Meter()
        elif not self._err.is_terminal:
            yield _Lines(self._err, description)
        else:
            # Where the terminal is narrow, the bar and the text become shorter, never the numbers.
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=_BAR_WIDTH, table_column=Column()),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
                _Text(table_column=Column()),
            )
            with Progress(*columns, console=self._err) as progress:
                yield _Bar(progress, description)

    def follow(
        self, events: Iterable[E], description: str, show: Callable[[E, Meter], None], left: Callable[[], None]
    ) -> None:
        """Shows event after event beside a progress bar. If Ctrl-C ends it, `left` notes how to go on."""
        try:
            with self.progress(description) as meter:
                for event in events:
                    show(event, meter)
        except BaseException as error:
            if was_interrupted(error):
                left()
            raise

    @contextmanager
    def log(self) -> Iterator[None]:
        """Shows what the SDK logs, such as a lost server."""
        logger = logging.getLogger("gramlet")
        handler, level = _Notes(self), logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


class Meter:
    """How far the work is. This one shows nothing."""

    def update(self, done: int, total: int | None, text: str = "") -> None:
        """`done` of `total` pieces are done; the text goes with it."""


class _Bar(Meter):
    def __init__(self, progress: Progress, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=None, text="")

    def update(self, done: int, total: int | None, text: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, text=printable(text))


class _Lines(Meter):
    def __init__(self, console: Console, description: str) -> None:
        self._console = console
        self._description = description
        self._shown = 0

    def update(self, done: int, total: int | None, text: str = "") -> None:
        part = done * _LINES_WITHOUT_TERMINAL // total if total else 0
        if part < self._shown:  # of the next kind of work
            self._shown = 0
        if part > self._shown:
            self._shown = part
            self._console.print(printable(f"{self._description} {done}/{total} {text}".rstrip()))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f}/s" if speed else "")


class _Text(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["text"], no_wrap=True, overflow="ellipsis")


class _Notes(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.note(record.getMessage())


def fail(text: str) -> None:
    """Prints the one line that a failed command leaves on stderr."""
    print(f"gramlet: {printable(text)}", file=sys.stderr, flush=True)


def local_time(seconds: float) -> str:
    """A time in seconds since 1970, as a server sent it, for people of this time zone."""
    try:
        return datetime.fromtimestamp(seconds).isoformat(" ", "minutes")
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"
