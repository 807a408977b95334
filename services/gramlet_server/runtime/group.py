"""Several server processes on one port: started, watched, restarted and drained as one, with one metrics endpoint.

The kernel shares out new connections among the processes that listen on the port (SO_REUSEPORT). This process serves
nothing itself: it reserves the port, and starts the others with the same command line.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from queue import SimpleQueue

from gramlet.errors import GramletError, counted
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gramlet_server.runtime.config import GROUP_MEMBER, ServerSettings, format_address
from gramlet_server.runtime.listen import reserve
from gramlet_server.runtime.metrics import served
from gramlet_server.runtime.output import note
from gramlet_server.runtime.process import signals

_STEADY_SECONDS = 30.0
_LONGEST_PAUSE = 30.0
_SCRAPE_SECONDS = 2.0

_log = logging.getLogger(__name__)


def serve_group(arguments: Sequence[str], count: int, settings: ServerSettings) -> int:
    """Serves with so many processes until SIGTERM or SIGINT, then drains all of them.

    Args:
        arguments: The command line of the server, without the program's name.
        count: How many processes.
        settings: Of the server.

    Returns:
        The exit code: 0, or 1 where a process could not start or did not end in order.
    """
    events: SimpleQueue[signal.Signals | Exception | None] = SimpleQueue()
    try:
        reserved = reserve(settings.host, settings.port)
    except GramletError as error:
        print(f"gramlet-server: {error}", file=sys.stderr)
        return 1
    with reserved, ExitStack() as exits:
        port = reserved.getsockname()[1]
        more = [f"--port={port}", "--workers=1", *(["--metrics-port=0"] if settings.metrics_port is not None else [])]
        command = [sys.executable, "-m", "gramlet_server", *arguments, *more]
        members = Members(command, count, events.put)
        exits.enter_context(signals(events.put, members.reload))
        registry = CollectorRegistry()
        registry.register(members)
        try:
            metrics_port = exits.enter_context(served(registry, settings.host, settings.metrics_port))
        except GramletError as error:
            print(f"gramlet-server: {error}", file=sys.stderr)
            return 1
        members.start()
        event = events.get()
        if event is None:
            processes = counted(count, "process", "processes")
            line = f"gramlet-server: serving feature on {format_address(settings.host, port)} with {processes}"
            if metrics_port:
                line += f", metrics on {format_address(settings.host, metrics_port)}"
            note(line)
            event = events.get()
        failed = isinstance(event, Exception)
        return 1 if not members.stop() or failed else 0


class Members(Collector):
    """The processes of a group. As a collector: their metrics, with the number of the process as the label `worker`.

    Args:
        command: Starts one.
        count: How many.
        report: Called with None once all are ready, and with the error if one cannot start at all.
    """

    def __init__(
        self, command: Sequence[str], count: int, report: Callable[[signal.Signals | Exception | None], None]
    ) -> None:
        self._command = command
        self._report = report
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str] | None] = [None] * count
        self._metrics_ports: list[int | None] = [None] * count
        self._unready = set(range(count))
        self._watchers = [
            threading.Thread(target=self._keep, args=[number], name=f"member-{number}") for number in range(count)
        ]
        self._codes: list[int] = []
        self._restarts = Counter(
            "gramlet_worker_restarts", "Server processes that ended and were replaced.", registry=None
        )

    def start(self) -> None:
        """Starts all."""
        for watcher in self._watchers:
            watcher.start()

    def reload(self) -> None:
        """Lets all read again the files that may change."""
        self._signal(signal.SIGHUP)

    def stop(self) -> bool:
        """Drains all and waits for their end; whether all ended in order."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        for watcher in self._watchers:
            watcher.join()
        return not any(self._codes)

    def collect(self) -> Iterator[Metric]:
        """The metrics of all that answer."""
        merged: dict[str, Metric] = {}
        for number, port in enumerate(self._metrics_ports):
            if port is None:
                continue  # it is being started
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_SCRAPE_SECONDS) as answer:
                    text = answer.read().decode()
            except (OSError, ValueError):
                continue  # it is ending
            for family in text_string_to_metric_families(text):
                known = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    known.add_sample(sample.name, {**sample.labels, "worker": str(number)}, sample.value)
        yield from merged.values()
        yield from self._restarts.collect()

    def describe(self) -> Iterator[Metric]:
        """Nothing: the names are known once the processes answer."""
        return iter(())

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            for process in self._processes:
                if process is not None and process.poll() is None:
                    process.send_signal(number)

    def _keep(self, number: int) -> None:
        """Starts a process, and again whenever it ends, until the group stops."""
        pause = 1.0
        while (process := self._started(number)) is not None:
            began = time.monotonic()
            self._read(number, process)
            code = process.wait()
            if self._stopping.is_set():
                self._codes.append(code)
                return
            if number in self._unready:
                self._report(RuntimeError("a process could not start"))  # its reason is on stderr
                return
            pause = 1.0 if time.monotonic() - began > _STEADY_SECONDS else min(2 * pause, _LONGEST_PAUSE)
            _log.warning("process %d of the group ended with %d: it is started again", number, code)
            self._restarts.inc()
            if time.monotonic() - began < _STEADY_SECONDS:
                self._stopping.wait(pause / 2)

    def _started(self, number: int) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            # Its own session: Ctrl-C is for this process alone, which then drains all. The pipe tells it when this
            # process has died.
            process = subprocess.Popen(
                self._command,
                env={**os.environ, GROUP_MEMBER: "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._processes[number] = process
        return process

    def _read(self, number: int, process: subprocess.Popen[str]) -> None:
        """Reads what a process prints until it ends: first the line that says that it is ready."""
        assert process.stdout
        with process.stdout as lines:
            for line in lines:
                port = re.search(r", metrics on \S*:(\d+)$", line)
                self._metrics_ports[number] = int(port[1]) if port else None
                with self._lock:
                    is_last = self._unready == {number}
                    self._unready.discard(number)
                if is_last:
                    self._report(None)
        self._metrics_ports[number] = None


def end_with_group() -> None:
    """Drains this process, one of a group, once the process that has started it is gone."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="group", daemon=True).start()
