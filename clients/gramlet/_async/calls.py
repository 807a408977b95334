"""How calls are made: one reply, the events of a run, a stream of outcomes, a file in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from gramlet.errors import GramletError
from gramlet.transport.aio import AsyncConnection, AsyncStream, blocking
from gramlet.transport.retry import Attempts, RetryPolicy
from gramlet.transport.rpc import Message, Rpc
from gramlet.transport.run import Run
from gramlet.transport.window import Window

E = TypeVar("E")
I = TypeVar("I")  # noqa: E741  # an item
R = TypeVar("R")


class AsyncCalls:
    """Makes calls over the connection of a client, with the client's timeout and patience."""

    _connection: AsyncConnection
    _timeout: float | None
    _policy: RetryPolicy

    def _attempts(self, timeout: float | None) -> Attempts:
        return self._connection.attempts(self._policy, self._timeout if timeout is None else timeout)

    async def _unary(self, rpc: Rpc, request: Message, timeout: float | None) -> Message:
        return await self._connection.unary(rpc, request, self._attempts(timeout))

    async def _events(self, rpc: Rpc, start: Awaitable[Run[E]], attempts: Attempts) -> AsyncGenerator[E, None]:
        """The events of a run, across lost connections."""
        run = await start
        while not run.done:
            try:
                async with await self._connection.open(rpc, run.request(), attempts) as stream:
                    while not run.done:
                        if (uploads := run.uploads()) is not None:
                            await stream.upload(uploads)
                        event = run.accept(await stream.receive())
                        attempts.answered(new=event is not None)
                        if run.done:
                            await stream.finish()  # so that the server sees a call that ended in order
                        if event is not None:
                            yield event
            except GramletError as error:
                await self._connection.pause(attempts.delay_after(run.broken(error)))

    async def _outcomes(
        self, rpc: Rpc, window: Window[I, Any, R], items: AsyncIterator[I], attempts: Attempts
    ) -> AsyncGenerator[R | GramletError, None]:
        """One outcome for each item, in order, across lost connections."""
        stream: AsyncStream | None = None
        try:
            while await _filled(window, items):
                for outcome in window.outcomes():
                    yield outcome
                if not window.is_waiting:
                    continue
                try:
                    stream = stream or await self._connection.open(rpc, window.request(), attempts)
                    for message in window.messages():
                        await stream.send(message)
                    window.accept(await stream.receive())
                    attempts.answered()
                except GramletError as error:
                    if stream is not None:
                        await stream.close()
                    stream = None
                    window.broken()
                    await self._connection.pause(attempts.delay_after(error))
            if stream is not None:
                await stream.finish()
        finally:
            if stream is not None:
                await stream.close()

    async def _download(
        self, rpc: Rpc, request: Message, chunk: Callable[[Message], bytes], timeout: float | None
    ) -> bytes:
        """A file that comes in pieces."""
        attempts = self._attempts(timeout)
        while True:
            chunks: list[bytes] = []
            try:
                async with await self._connection.open(rpc, request, attempts) as stream:
                    async for message in stream.remaining():
                        attempts.answered(new=False)
                        chunks.append(chunk(message))
                return b"".join(chunks)
            except GramletError as error:
                await self._connection.pause(attempts.delay_after(error))


async def _filled(window: Window[I, Any, Any], items: AsyncIterator[I]) -> bool:
    """Fills the window; whether anything is left to do."""
    while window.has_room:
        try:
            item = await anext(items)
        except StopAsyncIteration:
            break
        await blocking(window.add, item)
    return not window.is_empty
