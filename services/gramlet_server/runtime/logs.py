"""Log lines on stderr, as text or as JSON objects, each with the id of the request that it belongs to."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from gramlet import request_id

_STDERR = 2
"""Its file descriptor."""


def configure(log_format: str, level: str) -> None:
    """Sends all log lines to stderr.

    Args:
        log_format: `text` or `json`.
        level: The least severe level that is logged, such as `INFO`.
    """
    handler = LineHandler(_STDERR)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # No line has these. To find them out takes as long as to write the line ("Optimization" in Python's logging HOWTO).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class LineHandler(logging.Handler):
    """Writes each line to a file at once, in one piece.

    logging's own handlers hold a lock while they format a line and write it. Threads of many calls then wait for each
    other, the more so as the one that writes has to get the interpreter's lock back first. Here none of them waits:
    the kernel keeps lines apart, on a pipe those of up to 4 KiB.

    Args:
        descriptor: Of the file.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def handle(self, record: logging.LogRecord) -> bool:
        passes = bool(self.filter(record))
        if passes:
            self.emit(record)
        return passes

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = memoryview(f"{self.format(record)}\n".encode(errors="backslashreplace"))
            while line:
                line = line[os.write(self._descriptor, line) :]
        except Exception:
            self.handleError(record)


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00,000 INFO gramlet_server.calls: message [request id]`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        current = request_id.get()
        return f"{line} [{current}]" if current else line


class JsonFormatter(logging.Formatter):
    """One JSON object in each line; the mapping in `extra={"fields": ...}` is merged into it."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            entry["request_id"] = current
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)
