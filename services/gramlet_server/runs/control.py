"""What RunService does with the runs of a store, whichever process executes them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from gramlet.errors import AlreadyExists, InvalidInput, NotFound, Unavailable
from gramlet.run.types import RunDetails, RunFilter, RunInfo, RunKind, RunPage, RunRef, RunResult, RunState

from gramlet_server.runs.execution import STOP
from gramlet_server.runs.kind import RESULT, picture_of
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.records import Record, Records
from gramlet_server.runs.run import Run

STOP_SECONDS = 10.0
"""How long the process that executes a run may take to stop it."""
_POLL_SECONDS = 0.2


class RunControl:
    """Lists, shows, stops and deletes runs.

    Args:
        records: What the store knows about the runs.
        lifecycles: Those of this process.
    """

    def __init__(self, records: Records, lifecycles: Sequence[Lifecycle]) -> None:
        self._records = records
        self._lifecycles = lifecycles

    def page(self, wanted: RunFilter) -> RunPage:
        """A page of the runs, newest first.

        Raises:
            InvalidInput: The page token is wrong.
        """
        return self._records.page(wanted)

    def get(self, ref: RunRef, include_result: bool) -> RunDetails:
        """A run, and its result if it is wanted and there is one.

        Raises:
            NotFound: There is no such run.
            InvalidInput: Runs of several kinds have the id.
        """
        record = self._find(ref)
        has_result = include_result and record.info.state is RunState.SUCCEEDED
        return RunDetails(self._records.shown(record), self._result(record) if has_result else None)

    def stop(self, ref: RunRef) -> RunInfo:
        """Stops a run, and waits until it has stopped. A run that has ended stays as it is.

        Raises:
            NotFound: There is no such run.
            InvalidInput: Runs of several kinds have the id.
            Unavailable: The process that executes the run does not react.
        """
        return self._records.shown(self._stopped(self._find(ref)))

    def delete(self, ref: RunRef) -> None:
        """Deletes a run with everything that the store has of it. One that is executed is stopped first.

        Raises:
            NotFound: There is no such run.
            InvalidInput: Runs of several kinds have the id.
            Unavailable: The process that executes the run does not react.
        """
        self._records.delete(self._stopped(self._find(ref)))

    def _find(self, ref: RunRef) -> Record:
        kinds = RunKind if ref.kind is None else (ref.kind,)
        found = [record for kind in kinds if (record := self._records.read(kind, ref.run_id))]
        if not found:
            raise NotFound(f"the store has no run {ref.run_id}", field="run_id")
        if len(found) > 1:
            names = ", ".join(record.info.kind.value for record in found)
            raise InvalidInput(f"several runs have the id {ref.run_id}: say which kind ({names})", field="kind")
        return found[0]

    def _result(self, record: Record) -> RunResult:
        info = record.info
        match info.kind:
            case RunKind.TRAIN:
                return RunResult(head=record.outcome)
            case RunKind.EMBED:
                return RunResult(map_id=info.run_id)
            case _:
                run = Run(self._records.store, info.kind.value, info.run_id, 0)
                return RunResult(png=picture_of(run.get(RESULT)))

    def _stopped(self, record: Record) -> Record:
        """The record of the run after it has stopped."""
        info = record.info
        if info.state.has_ended:
            return record
        if not self._records.is_alive(record):
            return self._given_up(record)
        executions = [found for each in self._lifecycles if (found := each.execution(info.kind, info.run_id))]
        for execution in executions:
            execution.stop()
        if not executions:
            self._ask_to_stop(info)
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until:
            now = self._records.read(info.kind, info.run_id)
            if now is None or now.info.state.has_ended:
                return now or record
            time.sleep(_POLL_SECONDS)
        raise Unavailable(f"the process that executes run {info.run_id} does not react: try again", retry_after=5.0)

    def _ask_to_stop(self, info: RunInfo) -> None:
        run = Run(self._records.store, info.kind.value, info.run_id, 0)
        with suppress(AlreadyExists):  # another caller asked at the same moment
            run.append(STOP, run.last(STOP)[0] + 1, b"")

    def _given_up(self, record: Record) -> Record:
        """Stops a run that nobody executes, so that nobody takes it over."""
        info = replace(record.info, state=RunState.STOPPED, updated=time.time(), ended=time.time())
        run = Run.take_over(self._records.store, info.kind.value, info.run_id)
        return self._records.write(run, replace(record, info=info, released=True, requested=True))
