"""The calls of EmbedService, for asyncio: the twin of `gramlet._sync.embed`, whose docstrings hold here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Unpack

from gramlet.embed import map_wire
from gramlet.embed import wire as messages
from gramlet.embed.inputs import ItemsInput, MapOptions, has_vectors, make_settings, read_items, read_new_items
from gramlet.embed.sessions import MapRun, Placing
from gramlet.embed.types import DrawingForm, MapDrawing, MapEvent, MapStart, MapSummary, Position, StyleMap
from gramlet.embed.v1 import embed_pb2, embed_pb2_grpc
from gramlet.errors import GramletError
from gramlet.inputs import PictureInput, choose
from gramlet.transport.aio import AsyncCalls, AsyncStream
from gramlet.transport.events import AsyncEvents
from gramlet.transport.retry import Attempts


class AsyncEmbedCalls(AsyncCalls):
    """Maps of style: making them, placing pictures on them, drawing them, and looking after them."""

    @property
    def _embed_stub(self) -> embed_pb2_grpc.EmbedServiceStub:
        return embed_pb2_grpc.EmbedServiceStub(self._connection.channel)

    def embed(
        self,
        items: ItemsInput,
        *,
        labels: Sequence[str] | None = None,
        map_id: str | None = None,
        from_map_id: str | None = None,
        report_every: int = 10,
        omit_coordinates: bool = False,
        timeout: float | None = None,
        **settings: Unpack[MapOptions],
    ) -> AsyncEvents[MapEvent, StyleMap]:
        """Maps pictures so that those of similar style, as Gram matrices measure it, come to lie together."""
        unread = read_items(items, labels)
        start = MapStart(
            settings=make_settings(settings, vectors=has_vectors(unread)),
            count=len(unread),
            map_id=map_id or "",
            from_map_id=from_map_id or "",
            report_every=report_every,
            omit_coordinates=omit_coordinates,
        )
        return AsyncEvents(self._map_events(MapRun(start, unread), self._attempts(timeout)), StyleMap)

    def resume_map(
        self, map_id: str, *, report_every: int = 10, omit_coordinates: bool = False, timeout: float | None = None
    ) -> AsyncEvents[MapEvent, StyleMap]:
        """Goes on with the making of a map that was interrupted after its last item had arrived."""
        start = MapStart(None, map_id, report_every=report_every, omit_coordinates=omit_coordinates)
        return AsyncEvents(self._map_events(MapRun(start, ()), self._attempts(timeout)), StyleMap)

    def transform(
        self,
        map_id: str,
        pictures: PictureInput | ItemsInput,
        *,
        in_flight: int = 16,
        timeout: float | None = None,
    ) -> AsyncIterator[Position | GramletError]:
        """Places new pictures on a stored map, which stays as it is."""
        return self._placed(map_id, Placing(read_new_items(pictures), in_flight), self._attempts(timeout))

    async def maps(self, *, timeout: float | None = None) -> list[MapSummary]:
        """The stored maps in short, newest first."""
        return map_wire.decode_summaries(
            await self._unary(self._embed_stub.ListMaps, embed_pb2.ListMapsRequest(), timeout)
        )

    async def map(self, map_id: str, *, timeout: float | None = None) -> StyleMap:
        """A stored map."""
        reply = await self._unary(self._embed_stub.GetMap, embed_pb2.GetMapRequest(map_id=map_id), timeout)
        return map_wire.decode_map(reply.map)

    async def delete_map(self, map_id: str, *, timeout: float | None = None) -> None:
        """Removes a map, finished or not."""
        await self._unary(self._embed_stub.DeleteMap, embed_pb2.DeleteMapRequest(map_id=map_id), timeout)

    async def draw_map(
        self,
        map_id: str,
        *,
        form: DrawingForm | str = DrawingForm.SCATTER,
        layout: int | None = None,
        width: int = 1600,
        title: str = "",
        timeout: float | None = None,
    ) -> bytes:
        """A drawing of a stored map, as a file."""
        drawing = MapDrawing(map_id, choose(DrawingForm, form, "form"), layout, width, title)
        attempts = self._attempts(timeout)
        while True:
            stream = self._connection.server_stream(
                self._embed_stub.DrawMap, map_wire.encode_drawing(drawing), attempts
            )
            try:
                return await _whole(stream)
            except GramletError as error:
                delay = attempts.delay_after(error)
            finally:
                stream.close()
            await asyncio.sleep(delay)

    async def _map_events(self, run: MapRun, attempts: Attempts) -> AsyncGenerator[MapEvent, None]:
        while not run.done:
            stream = self._connection.stream(self._embed_stub.Embed, attempts)
            sending = asyncio.create_task(_send_all(stream, run))
            try:
                while not run.done:
                    event = run.accept(await stream.receive())
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
                sending.cancel()
                with suppress(asyncio.CancelledError):
                    await sending
            await asyncio.sleep(delay)

    async def _placed(
        self, map_id: str, placing: Placing, attempts: Attempts
    ) -> AsyncGenerator[Position | GramletError, None]:
        stream: AsyncStream[Any, Any] | None = None
        try:
            while not placing.is_empty:
                try:
                    if stream is None:
                        stream = self._connection.stream(self._embed_stub.Transform, attempts)
                        await stream.send(messages.encode_transform_start(map_id))
                    for message in await asyncio.to_thread(lambda: list(placing.messages())):  # it reads files
                        await stream.send(message)
                    for failed in placing.outcomes():
                        yield failed
                    if placing.is_waiting:
                        outcome = placing.accept(await stream.receive())
                        attempts.answered()
                        yield outcome
                except GramletError as error:
                    if stream is not None:
                        stream.close()
                    stream = None
                    placing.broken()
                    await asyncio.sleep(attempts.delay_after(error))
            if stream is not None:
                await stream.finish()
        finally:
            if stream is not None:
                stream.close()


async def _send_all(stream: AsyncStream[Any, Any], run: MapRun) -> None:
    await stream.send(run.request())
    for item in run.items():
        await stream.send(await asyncio.to_thread(item))  # it reads a file
    await stream.end()


async def _whole(stream: AsyncStream[Any, Any]) -> bytes:
    first = await stream.receive()
    chunks, size = [first.chunk], len(first.chunk)
    while size < first.total_bytes:
        chunks.append((await stream.receive()).chunk)
        size += len(chunks[-1])
    await stream.finish()
    return b"".join(chunks)
