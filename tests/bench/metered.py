"""`gramlet-server` on random weights with a meter of its memory, which the benchmarks of memory ask over its stdin.

    python tests/bench/metered.py ARGUMENT ...

A line "begin" returns freed memory to the kernel and starts a measurement, "end" ends it, and "look" asks what is in
use now. Each is answered by a line of JSON, in bytes.
"""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from gramlet_server.process.allocator import ALLOCATOR
from gramlet_server.process.memory_budget import PROCESS

POLL_SECONDS = 0.002
Ask = Callable[[str], dict[str, int]]


def memory(name: str) -> int:
    """Bytes, of a line of /proc/self/status: VmRSS is held now, VmHWM the most since the peak was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


class Meter(threading.Thread):
    """Answers the lines on stdin."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._reserved = self._used = 0
        self._before: dict[str, int] = {}

    def run(self) -> None:
        threading.Thread(target=self._poll, daemon=True).start()
        answers = {"begin": self._begin, "end": self._end, "look": self._look}
        for line in sys.stdin:
            print(json.dumps(answers[line.strip()]()), flush=True)

    def _look(self) -> dict[str, int]:
        used = ALLOCATOR.used_bytes()
        return {"resident": memory("VmRSS"), "used": used, "reserved": PROCESS.reserved}

    def _begin(self) -> dict[str, int]:
        gc.collect()
        ALLOCATOR.trim()
        self._before = self._look()
        Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident memory begins here
        self._reserved = self._used = 0
        return self._before

    def _end(self) -> dict[str, int]:
        most = {"resident": memory("VmHWM"), "used": self._used, "reserved": self._reserved}
        return {name: most[name] - before for name, before in self._before.items()}

    def _poll(self) -> None:
        while True:
            self._reserved = max(self._reserved, PROCESS.reserved)
            self._used = max(self._used, ALLOCATOR.used_bytes())
            time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def metered(*flags: str) -> Iterator[tuple[str, Ask]]:
    """The address of a server of all services, with its store in a folder of its own, and a way to ask its meter."""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with tempfile.TemporaryDirectory(prefix="gramlet-metered-") as folder:
        command = [sys.executable, __file__, "all", "--weights=random:0", "--port=0", f"--store={folder}/store"]
        with subprocess.Popen([*command, *flags], **pipes) as process:
            requests: IO[str] = process.stdin  # type: ignore[assignment]
            answers: IO[str] = process.stdout  # type: ignore[assignment]

            def ask(line: str) -> dict[str, int]:
                print(line, file=requests, flush=True)
                found: dict[str, int] = json.loads(answers.readline())
                return found

            try:
                ready = next(line for line in answers if "serving" in line)
                yield ready.split(" on ")[1].split()[0], ask
            finally:
                process.terminate()


def main(arguments: list[str]) -> None:
    """`gramlet-server` with a meter."""
    from gramlet_server.__main__ import main as server

    Meter().start()
    sys.exit(server(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
