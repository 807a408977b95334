"""The calls of EmbedService, as a part of the synchronous client. `gramlet._async.embed` is its twin."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Unpack

from gramlet.embed import map_wire
from gramlet.embed import wire as messages
from gramlet.embed.inputs import ItemsInput, MapOptions, has_vectors, make_settings, read_items, read_new_items
from gramlet.embed.sessions import MapRun, Placing
from gramlet.embed.types import DrawingForm, MapDrawing, MapEvent, MapStart, MapSummary, Position, StyleMap
from gramlet.embed.v1 import embed_pb2, embed_pb2_grpc
from gramlet.errors import GramletError
from gramlet.inputs import PictureInput, choose
from gramlet.transport.events import Events
from gramlet.transport.retry import Attempts
from gramlet.transport.sync import Calls, Stream


class EmbedCalls(Calls):
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
    ) -> Events[MapEvent, StyleMap]:
        """Maps pictures so that those of similar style, as Gram matrices measure it, come to lie together.

        Returns events as they come: items described, the distances measured, t-SNE's divergence and coordinates; the
        last is the `StyleMap`, which is also stored on the server. If the server is lost, the making is resumed.
        Leaving the loop cancels it.

        Args:
            items: A folder of pictures, whose sub-folders are labels; pictures or `Item`s; or vectors, (N, n).
            labels: One an item. They colour the map and are used to judge it, never to make it.
            map_id: Name of the map. Default: a random one, told by every event.
            from_map_id: A stored map to start from: what it holds begins at its old place, so that a grown set gives a
                map that can still be recognised.
            report_every: Iterations between reports.
            omit_coordinates: Leave the coordinates out of the reports.
            timeout: Seconds for the whole making.
            settings: Descriptor, method, perplexity and all other fields of `MapSettings` and `Tsne`.

        Raises:
            NotFound: There is no such folder, or no picture in it.
            InvalidInput: A setting that makes no sense, or more items than the server has memory for.
            Overloaded: The service's queue stayed full.
            Unavailable: The server was lost for longer than the client's patience.
        """
        unread = read_items(items, labels)
        start = MapStart(
            settings=make_settings(settings, vectors=has_vectors(unread)),
            count=len(unread),
            map_id=map_id or "",
            from_map_id=from_map_id or "",
            report_every=report_every,
            omit_coordinates=omit_coordinates,
        )
        return Events(self._map_events(MapRun(start, unread), self._attempts(timeout)), StyleMap)

    def resume_map(
        self, map_id: str, *, report_every: int = 10, omit_coordinates: bool = False, timeout: float | None = None
    ) -> Events[MapEvent, StyleMap]:
        """Goes on with the making of a map that was interrupted after its last item had arrived.

        Raises:
            NotFound: The server's store has no such map.
            FailedPrecondition: The items had not all arrived.
        """
        start = MapStart(None, map_id, report_every=report_every, omit_coordinates=omit_coordinates)
        return Events(self._map_events(MapRun(start, ()), self._attempts(timeout)), StyleMap)

    def transform(
        self,
        map_id: str,
        pictures: PictureInput | ItemsInput,
        *,
        in_flight: int = 16,
        timeout: float | None = None,
    ) -> Iterator[Position | GramletError]:
        """Places new pictures on a stored map, which stays as it is.

        Returns one outcome an item, in order: its `Position`, or as a value the error of an item that failed.

        Args:
            map_id: The map.
            pictures: One picture; or anything that `embed` takes.
            in_flight: Items under way at once.
            timeout: Seconds for the whole call.

        Raises:
            NotFound: There is no such map.
            FailedPrecondition: The map was made with other weights than the server's.
        """
        return self._placed(map_id, Placing(read_new_items(pictures), in_flight), self._attempts(timeout))

    def maps(self, *, timeout: float | None = None) -> list[MapSummary]:
        """The stored maps in short, newest first."""
        return map_wire.decode_summaries(self._unary(self._embed_stub.ListMaps, embed_pb2.ListMapsRequest(), timeout))

    def map(self, map_id: str, *, timeout: float | None = None) -> StyleMap:
        """A stored map.

        Raises:
            NotFound: There is no finished map of that name.
        """
        reply = self._unary(self._embed_stub.GetMap, embed_pb2.GetMapRequest(map_id=map_id), timeout)
        return map_wire.decode_map(reply.map)

    def delete_map(self, map_id: str, *, timeout: float | None = None) -> None:
        """Removes a map, finished or not.

        Raises:
            NotFound: There is none.
        """
        self._unary(self._embed_stub.DeleteMap, embed_pb2.DeleteMapRequest(map_id=map_id), timeout)

    def draw_map(
        self,
        map_id: str,
        *,
        form: DrawingForm | str = DrawingForm.SCATTER,
        layout: int | None = None,
        width: int = 1600,
        title: str = "",
        timeout: float | None = None,
    ) -> bytes:
        """A drawing of a stored map, as a file.

        Args:
            map_id: The map.
            form: `scatter`, a PNG with every picture at its place; `grid`, a PNG with the pictures side by side; or
                `page`, an HTML file that needs nothing but a browser.
            layout: For PNG: which layout, from 0. Default: all of them in a row.
            width: For PNG: of one layout, in pixels.
            title: Above the map.
            timeout: Seconds for the whole file.

        Raises:
            NotFound: There is no finished map of that name.
        """
        drawing = MapDrawing(map_id, choose(DrawingForm, form, "form"), layout, width, title)
        attempts = self._attempts(timeout)
        while True:
            request = map_wire.encode_drawing(drawing)
            try:
                with closing(self._connection.server_stream(self._embed_stub.DrawMap, request, attempts)) as stream:
                    return b"".join(reply.chunk for reply in stream.remaining())
            except GramletError as error:
                delay = attempts.delay_after(error)
            time.sleep(delay)

    def _map_events(self, run: MapRun, attempts: Attempts) -> Generator[MapEvent, None, None]:
        while not run.done:
            try:
                with closing(self._connection.stream(self._embed_stub.Embed, attempts)) as stream:
                    stream.send(run.request())
                    for item in run.items():
                        stream.send_later(item)
                    stream.end()
                    while not run.done:
                        event = run.accept(stream.receive())
                        attempts.answered(new=event is not None)
                        if run.done:
                            stream.finish()  # so that the server sees a call that ended in order
                        if event is not None:
                            yield event
            except GramletError as error:
                delay = attempts.delay_after(run.broken(error))
            else:
                return
            time.sleep(delay)

    def _placed(
        self, map_id: str, placing: Placing, attempts: Attempts
    ) -> Generator[Position | GramletError, None, None]:
        stream: Stream[Any, Any] | None = None
        try:
            while not placing.is_empty:
                try:
                    if stream is None:
                        stream = self._connection.stream(self._embed_stub.Transform, attempts)
                        stream.send(messages.encode_transform_start(map_id))
                    for message in placing.messages():
                        stream.send(message)
                    yield from placing.outcomes()
                    if placing.is_waiting:
                        outcome = placing.accept(stream.receive())
                        attempts.answered()
                        yield outcome
                except GramletError as error:
                    if stream is not None:
                        stream.close()
                    stream = None
                    placing.broken()
                    time.sleep(attempts.delay_after(error))
            if stream is not None:
                stream.finish()
        finally:
            if stream is not None:
                stream.close()
