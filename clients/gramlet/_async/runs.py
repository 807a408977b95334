"""The calls of RunService, as a part of the client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from gramlet._async.calls import AsyncCalls, AsyncEvents
from gramlet.run.inputs import make_filter, make_ref
from gramlet.run.sessions import RESULTS, AnyEvent, AnyResult, as_called, watching
from gramlet.run.types import RunDetails, RunFilter, RunInfo, RunKind, RunRef, RunState
from gramlet.run.wire import (
    DELETE_RUN,
    GET_RUN,
    LIST_RUNS,
    STOP_RUN,
    decode_details,
    decode_page,
    decode_stopped,
    encode_delete_run,
    encode_get_run,
    encode_list_runs,
    encode_stop_run,
)
from gramlet.signatures import checks_calls
from gramlet.transport.aio import blocking, one_reader
from gramlet.transport.connection import OfOneProcess


@checks_calls
class AsyncRunCalls(AsyncCalls):
    """The runs in the server's store: stylizations, sweeps, trainings and maps."""

    def runs(
        self,
        *,
        kind: RunKind | str | None = None,
        state: RunState | str | None = None,
        owner: str = "",
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[RunInfo, None]:
        """The runs, newest first. They are asked for page by page, as they are read.

        Args:
            kind: Only `stylize`, `sweep`, `train` or `embed`.
            state: Only `queued`, `running`, `succeeded`, `failed` or `stopped`.
            owner: Only those that this token's name ordered.
            page_size: Runs to ask for at once; 0 is the server's choice.
            timeout: Seconds for each page.

        Raises:
            InvalidInput: There is no such kind or state.
        """
        wanted = make_filter(kind, state, owner, page_size)
        self._connection.check_open()
        return one_reader(self._pages(wanted, timeout))

    def run(self, run_id: str, kind: RunKind | str | None = None) -> AsyncRun:
        """A run, by its id; the id of a map is that of its run. Nothing is asked of the server yet.

        Args:
            run_id: The id.
            kind: Needed only if runs of several kinds have the id.

        Raises:
            InvalidInput: Not a valid id, or there is no such kind.
        """
        return AsyncRun(self, make_ref(run_id, kind))

    async def _pages(self, wanted: RunFilter, timeout: float | None) -> AsyncGenerator[RunInfo, None]:
        is_last = False
        while not is_last:
            page = decode_page(await self._unary(LIST_RUNS, encode_list_runs(wanted), timeout))
            for run in page.runs:
                yield as_called(run)
            wanted = replace(wanted, page_token=page.next_page_token)
            is_last = not page.next_page_token


@checks_calls
class AsyncRun(OfOneProcess):
    """A run in the server's store. Every method raises NotFound if there is no such run.

    Attributes:
        run_id: Its id.
    """

    def __init__(self, client: AsyncRunCalls, ref: RunRef) -> None:
        self.run_id = ref.run_id
        self._client = client
        self._ref = ref

    async def info(self, *, timeout: float | None = None) -> RunInfo:
        """Its state, progress and size."""
        return (await self.details(include_result=False, timeout=timeout)).run

    async def details(self, *, include_result: bool = True, timeout: float | None = None) -> RunDetails:
        """Its state, and if it has succeeded its result: the picture, the name of the head, or the id of the map."""
        reply = await self._client._unary(GET_RUN, encode_get_run(self._ref, include_result), timeout)
        details = decode_details(reply)
        return replace(details, run=as_called(details.run))

    def watch(self, *, timeout: float | None = None) -> AsyncEvents[AnyEvent, AnyResult]:
        """Its events from now on, without any influence on it; the last one is the result.

        If another replica than the one that is called executes the run, its progress comes about once a second. A run
        that has succeeded gives its result at once; one that failed raises its error.

        Raises:
            Cancelled: The run was stopped, or its server was lost and nobody has gone on with it.
        """
        return AsyncEvents(self.run_id, self._events(timeout), RESULTS)

    async def result(self, *, timeout: float | None = None) -> AnyResult:
        """Its result: waits until the run has ended. Errors are those of `watch`."""
        return await self.watch(timeout=timeout).result()

    async def stop(self, *, timeout: float | None = None) -> RunInfo:
        """Stops it, and returns when it has stopped. What the store has of it is kept, so that it can be resumed."""
        return as_called(decode_stopped(await self._client._unary(STOP_RUN, encode_stop_run(self._ref), timeout)))

    async def delete(self, *, timeout: float | None = None) -> None:
        """Deletes it with its pictures, states and result. If it is executed, it is stopped first."""
        await self._client._unary(DELETE_RUN, encode_delete_run(self._ref), timeout)

    async def _events(self, timeout: float | None) -> AsyncGenerator[AnyEvent, None]:
        attempts = self._client._attempts(timeout)
        rpc, session = watching(await self.info(timeout=timeout))
        watched = self._client._events(rpc, blocking(lambda: session), attempts)
        async with AsyncEvents(self.run_id, watched, RESULTS) as events:
            async for event in events:
                yield event
