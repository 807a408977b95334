"""The calls of TrainService, for asyncio: the twin of `gramlet._sync.train`, whose docstrings hold here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Unpack, cast, overload

from gramlet.errors import GramletError
from gramlet.inputs import PictureInput, choose, is_one_picture
from gramlet.train import head_wire
from gramlet.train.configuration import Recipe
from gramlet.train.inputs import HeadInput, PicturesInput, TrainOptions, head_ref, make_order, resume_order
from gramlet.train.sessions import PredictBatches, TrainRun
from gramlet.train.types import Event, ExportFormat, Head, HeadDetails, Prediction, Result
from gramlet.train.v1 import train_pb2, train_pb2_grpc
from gramlet.transport.aio import AsyncCalls, AsyncStream
from gramlet.transport.events import AsyncEvents
from gramlet.transport.retry import Attempts


class AsyncTrainCalls(AsyncCalls):
    """Training heads, using them, and looking after them."""

    @property
    def _train_stub(self) -> train_pb2_grpc.TrainServiceStub:
        return train_pb2_grpc.TrainServiceStub(self._connection.channel)

    def train(
        self,
        pictures: PicturesInput,
        *,
        name: str,
        recipes: Sequence[Recipe] | None = None,
        on_server: bool = False,
        run_id: str | None = None,
        timeout: float | None = None,
        **options: Unpack[TrainOptions],
    ) -> AsyncEvents[Event, Result]:
        """Trains a classification head on a handful of labelled pictures; an asynchronous iterator of events."""

        def start() -> TrainRun:
            return TrainRun(*make_order(pictures, name, recipes, options, on_server=on_server, run_id=run_id))

        return AsyncEvents(self._train_events(start, self._attempts(timeout)), Result)

    def resume_training(
        self, run_id: str, pictures: PicturesInput | None = None, *, timeout: float | None = None
    ) -> AsyncEvents[Event, Result]:
        """Goes on with a training that was cut off; it ends with the same head."""
        return AsyncEvents(
            self._train_events(lambda: TrainRun(*resume_order(run_id, pictures)), self._attempts(timeout)), Result
        )

    @overload
    def predict(  # type: ignore[overload-overlap]  # a path is also an iterable of strings, but one picture
        self, head: HeadInput, pictures: PictureInput, *, top_k: int = 5, timeout: float | None = None
    ) -> Awaitable[Prediction]: ...

    @overload
    def predict(
        self, head: HeadInput, pictures: Iterable[PictureInput], *, top_k: int = 5, timeout: float | None = None
    ) -> AsyncIterator[Prediction | GramletError]: ...

    def predict(
        self,
        head: HeadInput,
        pictures: PictureInput | Iterable[PictureInput],
        *,
        top_k: int = 5,
        timeout: float | None = None,
    ) -> Awaitable[Prediction] | AsyncIterator[Prediction | GramletError]:
        """Classes of a picture, or of many, with calibrated probabilities."""
        if is_one_picture(pictures) or not isinstance(pictures, Iterable):
            return self._predict(PredictBatches(head, [cast(PictureInput, pictures)], top_k), timeout)
        return self._predict_all(PredictBatches(head, cast(Iterable[PictureInput], pictures), top_k), timeout)

    async def heads(self, name: str = "", *, timeout: float | None = None) -> list[Head]:
        """All heads, or all versions of one, without histories and confusion matrices."""
        reply = await self._unary(self._train_stub.ListHeads, train_pb2.ListHeadsRequest(name=name), timeout)
        return [head_wire.decode_head(head) for head in reply.heads]

    async def head(self, head: HeadInput, *, timeout: float | None = None) -> HeadDetails:
        """A head with its reports, history and drawings."""
        request = train_pb2.GetHeadRequest(head=head_wire.encode_ref(head_ref(head)))
        return head_wire.decode_details(await self._unary(self._train_stub.GetHead, request, timeout))

    async def delete_head(self, head: HeadInput, *, timeout: float | None = None) -> None:
        """Removes one version of a head; `"bees/3"`. Its number is not used again."""
        request = train_pb2.DeleteHeadRequest(head=head_wire.encode_ref(head_ref(head)))
        await self._unary(self._train_stub.DeleteHead, request, timeout)

    async def export_head(
        self,
        head: HeadInput,
        *,
        format: ExportFormat | str = ExportFormat.SAFETENSORS,
        with_backbone: bool = False,
        timeout: float | None = None,
    ) -> bytes:
        """A head as a file."""
        request = head_wire.encode_export_request(head_ref(head), choose(ExportFormat, format, "format"), with_backbone)
        attempts = self._attempts(timeout)
        while True:
            stream = self._connection.server_stream(self._train_stub.ExportHead, request, attempts)
            try:
                return await _whole(stream)
            except GramletError as error:
                delay = attempts.delay_after(error)
            finally:
                stream.close()
            await asyncio.sleep(delay)

    async def _predict(self, batches: PredictBatches, timeout: float | None) -> Prediction:
        outcome = await anext(self._predict_all(batches, timeout))
        if isinstance(outcome, GramletError):
            raise outcome
        return outcome

    async def _predict_all(
        self, batches: PredictBatches, timeout: float | None
    ) -> AsyncGenerator[Prediction | GramletError, None]:
        requests = batches.requests()
        while (request := await asyncio.to_thread(next, requests, None)) is not None:  # it reads files
            reply = await self._unary(self._train_stub.Predict, request, timeout) if request.pictures else None
            for outcome in batches.outcomes(reply):
                yield outcome

    async def _train_events(self, start: Callable[[], TrainRun], attempts: Attempts) -> AsyncGenerator[Event, None]:
        run = await asyncio.to_thread(start)  # it reads files
        while not run.done:
            stream = self._connection.stream(self._train_stub.Train, attempts)
            uploading: asyncio.Task[None] | None = None
            try:
                await stream.send(run.request())
                while not run.done:
                    message = await stream.receive()
                    if (wanted := run.asked(message)) is not None:
                        uploading = asyncio.create_task(_upload(stream, wanted))
                    event = run.accept(message)
                    attempts.answered(new=event is not None)
                    if run.done:
                        await stream.finish()  # so that the server sees a call that ended in order
                    if event is not None:
                        yield event
            except GramletError as error:
                delay = attempts.delay_after(run.broken(error))
            else:
                return
            finally:
                stream.close()
                await _stopped(uploading)
            await asyncio.sleep(delay)


async def _upload(stream: AsyncStream[Any, Any], pictures: Sequence[Callable[[], train_pb2.TrainRequest]]) -> None:
    try:
        for read in pictures:
            await stream.send(await asyncio.to_thread(read))
        await stream.end()
    except (GramletError, OSError):
        stream.close()  # the run remembers why


async def _stopped(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _whole(stream: AsyncStream[Any, Any]) -> bytes:
    chunks: list[bytes] = []
    total = 1
    while sum(map(len, chunks)) < total:
        reply = await stream.receive()
        chunks.append(reply.chunk)
        total = reply.total_bytes
    return b"".join(chunks)
