"""Features of pictures: prepared in several threads, computed in batches, in the order in which they were sent."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import torch
from gramlet.errors import GramletError, InvalidInput, Unavailable
from gramlet.feature.types import Extraction, Features, Form
from gramlet.types import Array, ElementType, Picture, Resize
from torch import Tensor

from gramlet_server.backbone.network import Network
from gramlet_server.feature.ahead import (
    AHEAD_BYTES,
    PREPARING_THREADS,
    LargestOutcome,
    MapAhead,
    group_size,
    groups_of,
    share_bounds,
    shares_of,
)
from gramlet_server.feature.cache import FeatureCache
from gramlet_server.feature.device_decode import AnyDecoder
from gramlet_server.feature.gram import in_forms
from gramlet_server.feature.graphs import PassKey
from gramlet_server.feature.passes import Passes
from gramlet_server.feature.pixels import OnDevice
from gramlet_server.feature.steps import Steps
from gramlet_server.feature.work import Caller, Later, Work, outcome
from gramlet_server.feature_source import check_weights
from gramlet_server.pictures.prepare import Decoded
from gramlet_server.process.memory_budget import PROCESS, Place, Reservation

MOST_PIXELS = 4096 * 2304
"""Features are extracted from whole pictures, whose activations must fit into the device's memory."""

_NO_FEATURES = Features({}, {}, {}, height=32, width=32)

Prepared = Decoded | OnDevice
"""A picture as it waits for the device."""
Outcome = Features | GramletError


@dataclass(frozen=True)
class Underway:
    """A picture whose features the device computes.

    Attributes:
        key: Of the features in the cache.
        work: The device's work.
        size: Bytes of the features.
        room: Memory for the features, and for the message that they become.
        place: Memory for the pass.
    """

    key: Hashable
    work: Work
    size: int
    room: Reservation
    place: Place


Pending = Outcome | Underway
"""Either the finished outcome, or work under way."""


class Extractor:
    """Extracts features of pictures.

    Args:
        passes: The network.
        cache: Features that were extracted before.
        decoder: Decodes the pictures.
    """

    def __init__(self, passes: Passes, cache: FeatureCache, decoder: AnyDecoder) -> None:
        self._passes = passes
        self._network = passes.network
        self._limits = passes.limits
        self._cache = cache
        self._decoder = decoder

    def stream(
        self,
        messages: Iterable[Sequence[Picture | GramletError]],
        extraction: Extraction,
        cancelled: threading.Event | None = None,
    ) -> Iterator[list[Outcome]]:
        """Features of each picture, in order, in groups; a picture that fails yields its error.

        Messages are taken from the iterable in a thread of their own, up to two passes ahead of the consumer, and
        pictures are prepared in several threads. A group is at most a pass of one message, and what else is finished by
        then: outcomes are yielded as soon as they are ready, however slowly messages come. An element that is already
        an error is yielded as it is. Features in the cache are neither decoded nor computed; their timing has a batch
        size of 0.

        Args:
            messages: The pictures.
            extraction: What to extract.
            cancelled: Stops the decoding once it is set; it is also stopped when this generator is closed.

        Raises:
            InvalidInput: The extraction itself is wrong.
            Overloaded: The device's queue is full.
        """
        self._check(extraction)
        scheduler = self._passes.scheduler
        cancelled = cancelled or threading.Event()
        with scheduler.caller() as caller, _set_at_end(cancelled):
            most = group_size(scheduler.pictures_per_pass, scheduler.queue_limit)
            is_open = Form.ACTIVATIONS in extraction.forms  # their bytes depend on the picture
            most_bytes = self._limits.message_bytes if is_open else self._outcome_bytes(_NO_FEATURES, extraction)
            sizes = LargestOutcome(most_bytes)
            ahead: MapAhead[Picture | GramletError, Pending] = MapAhead(2 * most, AHEAD_BYTES, sizes)

            def begin(pictures: Sequence[Picture | GramletError]) -> list[Pending]:
                pending = self._begin(caller, pictures, extraction, cancelled)
                for each in pending:
                    if not isinstance(each, GramletError):
                        sizes.see(each.size if isinstance(each, Underway) else self._outcome_bytes(each, extraction))
                return pending

            for group in ahead.map(begin, groups_of(messages, most), shares_of):
                outcomes = [self._finish(pending) for pending in group]
                while len(outcomes) < sizes.joined and (more := ahead.next_if(_is_finished)) is not None:
                    outcomes += [self._finish(pending) for pending in more]
                yield outcomes

    def together(
        self,
        pictures: Sequence[Picture | GramletError],
        extraction: Extraction,
        cancelled: threading.Event | None = None,
    ) -> list[Outcome]:
        """Features of a few pictures whose outcomes fit one message.

        Args:
            pictures: The pictures.
            extraction: What to extract.
            cancelled: Stops the decoding once it is set.

        Raises:
            InvalidInput: The extraction is wrong, or there are too many pictures, or the outcomes are too large.
            Overloaded: The device's queue is full. No work was done.
        """
        self._check(extraction)
        most = self._limits.pictures_per_extract
        if len(pictures) > most:
            raise InvalidInput(f"{len(pictures)} pictures; at most {most} a call: use ExtractStream", field="pictures")
        keys = [self._cache.key(picture, extraction) for picture in pictures]
        cached = [self._cache.get(key) for key in keys]
        with self._passes.scheduler.caller(cached.count(None)) as caller:
            prepared = self._prepare_all(pictures, cached, extraction.resize, cancelled or threading.Event())
            self._check_message(prepared, extraction)
            pending = [self._pending(*each, extraction) for each in zip(keys, prepared, strict=True)]
            caller.submit_together([each.work for each in pending if isinstance(each, Underway)])
            return [self._finish(each) for each in pending]

    # --- checks ---

    def _check(self, extraction: Extraction) -> None:
        check_weights(extraction.weights_digest, self._network.digest, "extraction.weights_digest")
        if not extraction.stages:
            raise InvalidInput("name at least one stage", field="extraction.stages")
        for index, stage in enumerate(extraction.stages):
            self._network.architecture.stage(stage, f"extraction.stages[{index}]")

    def _check_message(self, prepared: Sequence[Prepared | Outcome], extraction: Extraction) -> None:
        size = sum(self._outcome_bytes(each, extraction) for each in prepared if not isinstance(each, GramletError))
        if size > self._limits.message_bytes:
            raise InvalidInput(
                f"the features take {size:,} bytes and a message {self._limits.message_bytes:,}: ask for fewer "
                "stages, Gram matrices or pooled features, send fewer pictures, or use ExtractStream",
                field="pictures",
            )

    def _check_picture(self, prepared: Prepared | Features, extraction: Extraction) -> None:
        if not isinstance(prepared, Features):
            height, width = prepared.height, prepared.width
            self._passes.check_size((height, width), extraction.stages, "picture")
            if height * width > MOST_PIXELS:
                raise InvalidInput(
                    f"{width} x {height} is {height * width:,} pixels; features are extracted from up to "
                    f"{MOST_PIXELS:,}: resize it",
                    field="picture",
                )
        size = self._outcome_bytes(prepared, extraction)
        if size > self._limits.message_bytes:
            raise InvalidInput(
                f"its features take {size:,} bytes and a message {self._limits.message_bytes:,}: ask for fewer "
                "stages, for Gram matrices or pooled features, or resize it",
                field="picture",
            )

    def _outcome_bytes(self, picture: Prepared | Features, extraction: Extraction) -> int:
        """Size of a picture's features on the wire, without message overhead."""
        elements = 0
        for stage in extraction.stages:
            channels, rows, columns = self._network.architecture.activation_shape(stage, picture.height, picture.width)
            for form in extraction.forms:
                if form is Form.ACTIVATIONS:
                    elements += channels * rows * columns
                elif form is Form.GRAM:
                    elements += channels * (channels + 1) // 2 if extraction.triangle else channels**2
                else:
                    elements += channels
        return elements * (4 if extraction.element_type is ElementType.FLOAT32 else 2)

    # --- from a picture to its outcome ---

    def _prepared(
        self,
        pictures: Sequence[Picture | GramletError],
        cached: Sequence[Features | None],
        resize: Resize,
        cancelled: threading.Event,
    ) -> list[Prepared | Outcome]:
        """Each picture as it travels to the device; or its features where they are in the cache; or its error."""
        unread = [
            picture
            for picture, known in zip(pictures, cached, strict=True)
            if known is None and not isinstance(picture, GramletError)
        ]
        outcomes = self._decoder.decode(unread, resize, cancelled)
        ready = iter(self._passes.device.before([each for each in outcomes if isinstance(each, Decoded)]))
        read = (next(ready) if isinstance(each, Decoded) else each for each in outcomes)

        def one(picture: Picture | GramletError, known: Features | None) -> Prepared | Outcome:
            if known is not None:
                return known
            return picture if isinstance(picture, GramletError) else next(read)

        return [one(*each) for each in zip(pictures, cached, strict=True)]

    def _prepare_all(
        self,
        pictures: Sequence[Picture | GramletError],
        cached: Sequence[Features | None],
        resize: Resize,
        cancelled: threading.Event,
    ) -> list[Prepared | Outcome]:
        if len(pictures) == 1:
            return self._prepared(pictures, cached, resize, cancelled)
        shares = [range(start, end) for start, end in share_bounds(pictures)]
        with ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="prepare") as pool:
            parts = [
                pool.submit(self._prepared, [pictures[n] for n in share], [cached[n] for n in share], resize, cancelled)
                for share in shares
            ]
            return [prepared for part in parts for prepared in part.result()]

    def _begin(
        self,
        caller: Caller,
        pictures: Sequence[Picture | GramletError],
        extraction: Extraction,
        cancelled: threading.Event,
    ) -> list[Pending]:
        keys = [self._cache.key(picture, extraction) for picture in pictures]
        cached = [self._cache.get(key) for key in keys]
        prepared = self._prepared(pictures, cached, extraction.resize, cancelled)
        pending = [self._pending(*each, extraction) for each in zip(keys, prepared, strict=True)]
        caller.submit_together([each.work for each in pending if isinstance(each, Underway)])
        return pending

    def _pending(self, key: Hashable, prepared: Prepared | Outcome, extraction: Extraction) -> Pending:
        if isinstance(prepared, GramletError):
            return prepared
        try:
            self._check_picture(prepared, extraction)
            if isinstance(prepared, Features):
                return prepared
            height, width = prepared.height, prepared.width
            place, is_long = self._passes.room(height * width, extraction.stages)
            size = self._outcome_bytes(prepared, extraction)
            room = PROCESS.reserve(2 * size, "picture")
        except InvalidInput as error:
            return error
        shared = ("extract", height, width, extraction.stages, extraction.forms, extraction.gram_normalization, is_long)
        payload, pixels, overlaps = (prepared, extraction), height * width, self._passes.device.overlaps
        run = self._run_in_parts if is_long else self._run
        return Underway(key, Work("extract", shared, pixels, run, payload, overlaps, is_long), size, room, place)

    def _finish(self, pending: Pending) -> Outcome:
        """Waits for a picture's features, and puts them into the cache."""
        if not isinstance(pending, Underway):
            return pending
        try:
            features, timing = outcome(pending.work.future)
        except Unavailable:
            raise  # the whole call has to go on at another server
        except GramletError as error:
            return error
        finally:
            pending.place.close()
        found = self._cache.put(pending.key, replace(features, timing=timing))
        pending.room.move_to(found)
        return found

    # --- on the device thread ---

    def _run(self, batch: Sequence[tuple[Prepared, Extraction]]) -> Later:
        """One pass over prepared pictures of one size, with one extraction."""
        extraction = batch[0][1]

        def compute(pictures: Tensor) -> Iterator[Tensor]:
            for _, found in self._network.by_stage(pictures, extraction.stages):
                yield from in_forms(found, extraction)

        key = PassKey(("extract", extraction.stages, extraction.forms, extraction.gram_normalization))
        pictures = [picture for picture, _ in batch]
        # What a pass is filled up with is computed for nothing, but the pass may have been recorded.
        pictures += pictures[-1:] * (self._passes.device.pass_size(len(pictures)) - len(pictures))
        with torch.inference_mode():
            wait = self._passes.start(pictures, compute, key)
        return Later(lambda: _features(batch, wait(), self._network))

    def _run_in_parts(self, batch: Sequence[tuple[Prepared, Extraction]]) -> Steps[list[Features]]:
        """The same, and the device may serve others between its parts."""
        compute = partial(_parts, self._network, batch[0][1])
        results = yield from self._passes.run_in_parts([picture for picture, _ in batch], compute)
        return _features(batch, results, self._network)


@torch.inference_mode()
def _parts(network: Network, extraction: Extraction, pictures: Tensor) -> Iterator[Tensor | None]:
    for stage, found in network.by_part(pictures, extraction.stages):
        if stage:
            yield from in_forms(found, extraction)
        yield None


def _features(
    batch: Sequence[tuple[Prepared, Extraction]], results: Sequence[Array], network: Network
) -> list[Features]:
    """The features of each picture, from the results (N, ...) of each stage in each form."""
    picture, extraction = batch[0]
    stages = [stage.name for stage in network.stages if stage.name in extraction.stages]
    forms: dict[Form, dict[str, Array]] = {form: {} for form in Form}
    for (stage, form), found in zip(product(stages, extraction.forms), results, strict=True):
        forms[form][stage] = found

    def of(form: Form, number: int) -> dict[str, Array]:
        return {stage: of_all[number] for stage, of_all in forms[form].items()}

    return [
        Features(
            *(of(Form.ACTIVATIONS, number), of(Form.GRAM, number), of(Form.POOLED, number)),
            height=picture.height,
            width=picture.width,
            weights_digest=network.digest,
        )
        for number in range(len(batch))
    ]


def _is_finished(pending: Pending) -> bool:
    return not isinstance(pending, Underway) or pending.work.future.done()


@contextmanager
def _set_at_end(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()
