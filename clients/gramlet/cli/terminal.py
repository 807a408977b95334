"""What a command tells: progress and text for people, or with `--json` one object a line for scripts."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_LINES_WITHOUT_TERMINAL = 10  # progress lines of a whole run, where nothing can be redrawn


class Terminal:
    """Where a command's output goes: results to stdout, everything else to stderr.

    Attributes:
        json: Results are JSON objects, one a line, each flushed; there is no progress.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json
        self.out = Console(soft_wrap=True, highlight=False)
        self._err = Console(stderr=True, soft_wrap=True, highlight=False)

    def event(self, name: str, /, **values: Any) -> None:
        """Prints `{"event": name, ...}`, with `--json` only. Numbers that JSON has none for are null."""
        if self.json:
            print(json.dumps({"event": name, **_plain(values)}), flush=True)

    def say(self, text: str) -> None:
        """Prints a line for people; nothing with `--json`."""
        if not self.json:
            self.out.print(text, markup=False)

    def note(self, text: str) -> None:
        """Prints a line beside the results, on stderr."""
        self._err.print(f"gramlet: {text}", markup=False)

    @contextmanager
    def progress(self, description: str) -> Iterator[Meter]:
        """A progress bar on stderr, or now and then a line where that is no terminal; nothing with `--json`."""
        if self.json:
            yield Meter()
        elif not self._err.is_terminal:
            yield _Lines(self._err, description)
        else:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, TextColumn("{task.fields[text]}"), console=self._err) as progress:
                yield _Bar(progress, description)

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
        self._progress.update(self._task, completed=done, total=total, text=text)


class _Lines(Meter):
    def __init__(self, console: Console, description: str) -> None:
        self._console = console
        self._description = description
        self._shown = 0

    def update(self, done: int, total: int | None, text: str = "") -> None:
        part = done * _LINES_WITHOUT_TERMINAL // total if total else 0
        if part > self._shown:
            self._shown = part
            self._console.print(f"{self._description} {done}/{total} {text}".rstrip(), markup=False)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f}/s" if speed else "")


class _Notes(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.note(record.getMessage())


def fail(text: str) -> None:
    """Prints the one line that a failed command leaves on stderr."""
    print(f"gramlet: {text}", file=sys.stderr, flush=True)


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value
