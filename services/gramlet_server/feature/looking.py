"""One pass over pictures that finds where each channel of a stage is largest, in batches and ahead of its reader."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from gramlet.errors import Cancelled, GramletError, InvalidInput, Unavailable
from gramlet.feature.see_types import SeeRefused, SeeStart
from gramlet.types import Array, Picture, Timing
from torch import Tensor

from gramlet_server.feature.ahead import MapAhead, group_size, groups_of, shares_of
from gramlet_server.feature.fields import Field
from gramlet_server.feature.graphs import PassKey
from gramlet_server.feature.passes import Passes
from gramlet_server.feature.strongest import Look
from gramlet_server.feature.work import Caller, Work, outcome
from gramlet_server.pictures.prepare import Decoded
from gramlet_server.pictures.workers import Decoder
from gramlet_server.process.memory_budget import Place

MOST_PIXELS = 2**20
"""The most pixels of a picture that is looked at: a projection keeps the activations of all layers."""

Items = Sequence[tuple[str, Picture | GramletError]]
"""The pictures of a message with their names, or the error of each that could not be read."""
Maxima = tuple[Array, Array]
"""The largest activation of each channel in a picture, (C,), and where it is, counted row by row, (C,)."""

_Pending = tuple[Decoded, Work, Place] | GramletError


class Looking:
    """The pass over the pictures of one call.

    Args:
        passes: The network.
        decoder: Decodes the pictures.
        caller: Whose work it is.
        start: The stage, and how pictures are resized.
        field: Of the stage.
        cancelled: Stops the decoding once it is set.
    """

    def __init__(
        self,
        passes: Passes,
        decoder: Decoder,
        caller: Caller,
        start: SeeStart,
        field: Field,
        cancelled: threading.Event,
    ) -> None:
        self._passes, self._network = passes, passes.network
        self._decoder = decoder
        self._caller = caller
        self._start = start
        self._field = field
        self._cancelled = cancelled

    def at(self, messages: Iterable[Items]) -> Iterator[list[Look | SeeRefused]]:
        """The outcome of each picture, in order, in groups. A picture that fails does so alone.

        Raises:
            Cancelled: The caller was closed.
            Unavailable: The device has failed, or the server is shutting down.
        """
        names: deque[str] = deque()

        def pictures() -> Iterator[list[Picture | GramletError]]:
            for items in messages:
                names.extend(name for name, _ in items)
                yield [picture for _, picture in items]

        scheduler = self._passes.scheduler
        most = group_size(scheduler.pictures_per_pass, scheduler.queue_limit)
        ahead: MapAhead[Picture | GramletError, _Pending] = MapAhead(2 * most)
        index = 0
        for group in ahead.map(self._begin, groups_of(pictures(), most), shares_of):
            yield [self._finish(pending, index + place, names.popleft()) for place, pending in enumerate(group)]
            index += len(group)

    def _begin(self, pictures: Sequence[Picture | GramletError]) -> list[_Pending]:
        """Decodes pictures, and puts them into the queue of the device."""
        unread = [picture for picture in pictures if not isinstance(picture, GramletError)]
        decoded = iter(self._decoder.decode(unread, self._start.resize, self._cancelled))
        read = [picture if isinstance(picture, GramletError) else next(decoded) for picture in pictures]
        pending = [each if isinstance(each, GramletError) else self._pending(each) for each in read]
        self._caller.submit_together([each[1] for each in pending if isinstance(each, tuple)])
        return pending

    def _pending(self, decoded: Decoded) -> _Pending:
        height, width = decoded.height, decoded.width
        pixels = height * width
        try:
            self._passes.check_size((height, width), [self._start.stage], "picture")
            if pixels > MOST_PIXELS:
                message = f"{width} x {height} is {pixels:,} pixels, at most {MOST_PIXELS:,} are seen: resize it"
                raise InvalidInput(message, field="picture")
            place = self._passes.whole_room(pixels, [self._start.stage])
        except InvalidInput as error:
            return error
        (picture,) = self._passes.device.before([decoded])
        return (
            picture,
            Work("see", ("see", height, width, self._start.stage), pixels, self._find_maxima, picture),
            place,
        )

    def _find_maxima(self, batch: Sequence[Decoded]) -> list[Maxima]:
        """On the device thread: one pass over pictures of one size, of any callers that look at the stage."""
        stage, height, width = self._start.stage, batch[0].height, batch[0].width

        def compute(pictures: Tensor) -> Iterator[Tensor]:
            for _, found in self._network.by_stage(pictures, [stage]):
                rows, columns = self._field.inner(found.shape[2], height), self._field.inner(found.shape[3], width)
                inner = found[:, :, rows, columns].float()  # (N, C, h, w)
                activations, places = inner.flatten(2).max(dim=2)  # (N, C) each
                down, right = places // inner.shape[3] + rows.start, places % inner.shape[3] + columns.start
                yield activations
                yield (down * found.shape[3] + right).float()  # whole numbers below 2^24: exact

        with torch.inference_mode():
            activations, positions = self._passes.run(batch, compute, PassKey(("see", stage)))
        return list(zip(activations, positions, strict=True))

    def _finish(self, pending: _Pending, index: int, name: str) -> Look | SeeRefused:
        if isinstance(pending, GramletError):
            return SeeRefused(index=index, id=name, error=pending)
        picture, work, place = pending
        try:
            with place:
                (activations, positions), timing = outcome(work.future)
        except (Unavailable, Cancelled):
            raise  # not the picture's fault
        except GramletError as error:
            return SeeRefused(index=index, id=name, error=error)
        _, _, columns = self._network.architecture.activation_shape(self._start.stage, picture.height, picture.width)
        own = Timing(timing.queue_seconds, timing.compute_seconds / timing.batch_size)
        return Look(index, name, picture, activations, positions.astype(np.int64), columns, own)
