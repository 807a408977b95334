"""The calls of EmbedService, as a part of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Unpack

from gramlet._async.calls import AsyncCalls, AsyncEvents
from gramlet.embed.drawings import DrawingForm, MapDrawing
from gramlet.embed.inputs import (
    ItemsInput,
    MapOptions,
    make_settings,
    order_of_items,
    read_items,
    read_new_items,
)
from gramlet.embed.map_wire import (
    DELETE_MAP,
    DRAW_MAP,
    GET_MAP,
    LIST_MAPS,
    decode_drawing_chunk,
    decode_get_map,
    decode_summaries,
    encode_delete_map,
    encode_drawing,
    encode_get_map,
    encode_list_maps,
)
from gramlet.embed.sessions import MapRun, TransformWindow
from gramlet.embed.types import MapEvent, MapStart, MapSummary, Position, StyleMap
from gramlet.embed.wire import EMBED, TRANSFORM
from gramlet.errors import GramletError
from gramlet.inputs.pictures import PictureInput
from gramlet.inputs.values import fill, name_or_new, text
from gramlet.signatures import checks_calls
from gramlet.transport.aio import aiter_of, blocking, one_reader


@checks_calls
class AsyncEmbedCalls(AsyncCalls):
    """Maps of style: making them, finding the positions of new pictures, drawing them, and looking after them."""

    def embed(
        self,
        items: ItemsInput,
        *,
        labels: Iterable[object] | None = None,
        map_id: str | None = None,
        from_map_id: str | None = None,
        report_every: int = 10,
        omit_coordinates: bool = False,
        detached: bool = False,
        timeout: float | None = None,
        **settings: Unpack[MapOptions],
    ) -> AsyncEvents[MapEvent, StyleMap]:
        """Maps pictures so that those of similar style, as Gram matrices measure it, lie close together.

        Returns events as they come: items described, the distances measured, t-SNE's divergence and coordinates; the
        last is the `StyleMap`, which is also stored on the server. If the server is lost, the making is resumed.
        Closing the events cancels it, unless it is detached.

        Args:
            items: A folder of pictures, whose sub-folders are labels; pictures or `Item`s; or vectors, (N, n).
            labels: One for each item: text, numbers or any other plain values. They color the map and are used to judge
                it, never to make it.
            map_id: Name of the map. Default: a random one; every event has it.
            from_map_id: A stored map to start from: its items begin at their old positions, so that the map of a set
                that has grown can still be recognized.
            report_every: Iterations between reports.
            omit_coordinates: Leave the coordinates out of the reports.
            detached: The making goes on without its caller, once all items have been sent, even if its server is lost.
                Find it again with `client.run(map_id)`.
            timeout: Seconds for the whole making.
            settings: Descriptor, method, perplexity and all other fields of `MapSettings` and `Tsne`.

        Raises:
            NotFound: There is no such folder, or no picture in it.
            InvalidInput: A setting is wrong, or the server has no memory for so many items.
            Overloaded: The service's queue stayed full.
            Unavailable: The server was lost for longer than the client's patience.
        """
        order = MapStart(
            map_id=name_or_new(map_id, "map_id"),
            from_map_id="" if from_map_id is None else from_map_id,
            report_every=report_every,
            omit_coordinates=omit_coordinates,
            detached=detached,
            weights_digest=self._weights_digest,
        )

        def start() -> MapRun:
            unread = read_items(items, labels)
            return MapRun(order_of_items(order, unread, settings), unread)

        return AsyncEvents(order.map_id, self._events(EMBED, blocking(start), self._attempts(timeout)), StyleMap)

    def relayout_map(
        self,
        items_of_map_id: str,
        *,
        map_id: str | None = None,
        from_map_id: str | None = None,
        report_every: int = 10,
        omit_coordinates: bool = False,
        detached: bool = False,
        timeout: float | None = None,
        **settings: Unpack[MapOptions],
    ) -> AsyncEvents[MapEvent, StyleMap]:
        """Lays out the items of a stored map once more, as a new map, without their pictures and without the network.

        Returns events as `embed` does. The descriptors are those that were kept with the map, so the settings of
        descriptor, stages, resize, balance_stages, exactness and sketch_size stay as they are there. Method, metric,
        perplexity, seed and the others may differ.

        Args:
            items_of_map_id: The stored map.
            map_id: Name of the new map. Default: a random one.
            from_map_id: A stored map from whose positions t-SNE starts. Default: PCA.
            report_every: Iterations between reports.
            omit_coordinates: Leave the coordinates out of the reports.
            detached: As of `embed`.
            timeout: Seconds for the whole making.
            settings: As for `embed`.

        Raises:
            NotFound: There is no finished map of that name.
            InvalidInput: A setting is wrong.
        """
        name = name_or_new(map_id, "map_id")
        order = MapStart(
            settings=make_settings(settings),
            map_id=name,
            from_map_id="" if from_map_id is None else from_map_id,
            report_every=report_every,
            omit_coordinates=omit_coordinates,
            items_of_map_id=items_of_map_id,
            detached=detached,
        )
        return AsyncEvents(name, self._events(EMBED, blocking(MapRun, order, ()), self._attempts(timeout)), StyleMap)

    def resume_map(
        self,
        map_id: str,
        *,
        report_every: int = 10,
        omit_coordinates: bool = False,
        detached: bool = False,
        timeout: float | None = None,
    ) -> AsyncEvents[MapEvent, StyleMap]:
        """Continues the making of a map that was interrupted after its last item had arrived.

        A map that is being made is joined instead, and one that is finished is returned. With `detached` the making
        goes on without its callers from now on.

        Raises:
            NotFound: The server's store has no such map.
            FailedPrecondition: The items had not all arrived.
        """
        order = MapStart(None, map_id, report_every=report_every, omit_coordinates=omit_coordinates, detached=detached)
        return AsyncEvents(map_id, self._events(EMBED, blocking(MapRun, order, ()), self._attempts(timeout)), StyleMap)

    def transform(
        self,
        map_id: str,
        pictures: PictureInput | ItemsInput,
        *,
        in_flight: int = 16,
        timeout: float | None = None,
    ) -> AsyncIterator[Position | GramletError]:
        """Finds the positions of new pictures on a stored map, which stays as it is.

        Returns one outcome for each item, in order: its `Position`, or as a value the error of an item that failed.

        Args:
            map_id: The map.
            pictures: One picture; or anything that `embed` takes.
            in_flight: Items under way at once.
            timeout: Seconds for the whole call.

        Raises:
            NotFound: There is no such map.
            OtherWeights: The map was made with other weights than the servers', or than the client wants.
        """
        items = aiter_of(blocking(read_new_items, pictures), "pictures")
        window = TransformWindow(map_id, in_flight, self._weights_digest)
        outcomes = self._outcomes(TRANSFORM, window, items, self._attempts(timeout))
        return one_reader(outcomes)

    async def maps(self, *, timeout: float | None = None) -> list[MapSummary]:
        """The stored maps in short, newest first."""
        return decode_summaries(await self._unary(LIST_MAPS, encode_list_maps(), timeout))

    async def map(self, map_id: str, *, timeout: float | None = None) -> StyleMap:
        """A stored map.

        Raises:
            NotFound: There is no finished map of that name.
        """
        return decode_get_map(await self._unary(GET_MAP, encode_get_map(text(map_id, "map_id")), timeout))

    async def delete_map(self, map_id: str, *, timeout: float | None = None) -> None:
        """Removes a map, finished or not.

        Raises:
            NotFound: There is no such map.
        """
        await self._unary(DELETE_MAP, encode_delete_map(text(map_id, "map_id")), timeout)

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
        """A drawing of a stored map, as a file.

        Args:
            map_id: The map.
            form: `scatter`, a PNG with every picture at its position; `grid`, a PNG with the pictures side by side; or
                `page`, an HTML file that needs nothing but a browser.
            layout: For PNG: which layout, from 0. Default: all of them in a row.
            width: For PNG: of one layout, in pixels.
            title: Above the map.
            timeout: Seconds for the whole file.

        Raises:
            NotFound: There is no finished map of that name.
        """
        drawing = fill(MapDrawing, {"map_id": map_id, "form": form, "layout": layout, "width": width, "title": title})
        return await self._download(DRAW_MAP, encode_drawing(drawing), decode_drawing_chunk, timeout)
