"""See: what channels of a stage respond to, as one call gets it.

The pictures are looked at in one pass, a batch at a time like those of an extraction. What takes longer is done in
turns at the device: each projection is a pass of its own, and so is each step of an optimized picture, of which a turn
takes as many as fit its time. Calls that optimize pictures wait in the queue of the descents, because they take the
device for as long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

import numpy as np
from gramlet.errors import GramletError, InvalidInput, counted
from gramlet.feature.see_types import (
    MOST_CHANNELS,
    Maximization,
    Patch,
    PatchField,
    Projection,
    SeeEvent,
    SeeFinished,
    SeeOptimized,
    SeePatches,
    SeePreview,
    SeeProgress,
    SeeQueued,
    SeeStart,
    SeeStarted,
)
from gramlet.types import Array, Pixels, Timing
from torch import Tensor

from gramlet_server.feature.fields import Field, Fields
from gramlet_server.feature.looking import Items, Looking
from gramlet_server.feature.maximization import maximize
from gramlet_server.feature.passes import Passes
from gramlet_server.feature.steps import Steps
from gramlet_server.feature.strongest import Look, Strong, Strongest, cut, reduced
from gramlet_server.feature_source import check_weights
from gramlet_server.pictures.encode import encode_jpeg, encode_png, to_uint8
from gramlet_server.pictures.prepare import Decoded
from gramlet_server.pictures.workers import Decoder
from gramlet_server.process.memory_budget import PROCESS, Reservation
from gramlet_server.runs.queue import BEAT_SECONDS, RunQueue, shutting_down

PATCH_SIZE, SMALL_PATCH_SIZE = 224, 64
"""The longest side of a patch by default: of a few channels, and of many."""
GRADIENT_BYTES = 2_500
"""Memory of the activations that a gradient keeps on a CPU, for each pixel of the picture; measured with resnet50."""
BRIGHTEST = 99.7
"""Percentile of a projection's values that gets the full range of gray levels."""

_Formed = tuple[int, Callable[[], Tensor], Callable[[], Tensor]]
"""A step with what waits for its activation and its picture, which are still on the device."""


class Seer:
    """Shows what channels respond to.

    Args:
        passes: The network.
        decoder: Decodes the pictures.
        queue: Where calls that optimize pictures wait.
    """

    def __init__(self, passes: Passes, decoder: Decoder, queue: RunQueue) -> None:
        self._passes = passes
        self._decoder = decoder
        self._queue = queue
        self._fields = Fields(passes)
        self._open: set[Seeing] = set()
        self._lock = threading.Lock()
        self._draining = threading.Event()

    def open(self, start: SeeStart) -> Seeing:
        """Begins a call. Leave its `with` block in the end.

        Raises:
            InvalidInput: There is no such stage or channel, or something does not go together.
            OtherWeights: Another network is wanted.
            Overloaded: A queue is full. Nothing was done.
            Unavailable: The server is shutting down. Nothing was done.
        """
        check_weights(start.weights_digest, self._passes.network.digest, "start.weights_digest")
        channels = self._channels(start)
        network = self._passes, self._decoder, self._queue, self._fields
        seeing = Seeing(*network, start, channels, self._draining, self._remove)
        with self._lock:
            self._open.add(seeing)
        return seeing

    @property
    def backlog_seconds(self) -> float:
        """Estimate of the time that the device needs for all pictures that are optimized."""
        with self._lock:
            return sum(seeing.remaining_seconds for seeing in self._open)

    def _remove(self, seeing: Seeing) -> None:
        with self._lock:
            self._open.discard(seeing)

    def drain(self) -> None:
        """Lets calls that optimize a picture fail with Unavailable, so that they begin again at another server."""
        self._draining.set()

    def _channels(self, start: SeeStart) -> Sequence[int]:
        stage = self._passes.network.architecture.stage(start.stage, "start.stage")
        for index, channel in enumerate(start.channels):
            if channel >= stage.channels:
                raise InvalidInput(
                    f"{stage.name} has {stage.channels} channels, 0 to {stage.channels - 1}: there is no {channel}",
                    field=f"start.channels[{index}]",
                )
        channels = start.channels or range(stage.channels)
        is_costly = start.projection is not Projection.NONE or start.maximization is not None
        if is_costly and len(channels) > MOST_CHANNELS:
            raise InvalidInput(
                f"{len(channels)} channels; patches are projected and pictures optimized for at most {MOST_CHANNELS} "
                "in a call: name fewer",
                field="start.channels",
            )
        return channels


class Seeing:
    """One call: an iterator of its events, to be used in a `with` block. `cancel` may be called in any thread."""

    def __init__(
        self,
        passes: Passes,
        decoder: Decoder,
        queue: RunQueue,
        fields: Fields,
        start: SeeStart,
        channels: Sequence[int],
        draining: threading.Event,
        closed: Callable[[Seeing], None],
    ) -> None:
        self._passes, self._network, self._decoder = passes, passes.network, decoder
        self._start, self._channels, self._draining = start, channels, draining
        self._patch_size = start.patch_size or (PATCH_SIZE if len(channels) <= MOST_CHANNELS else SMALL_PATCH_SIZE)
        self._fields = fields
        self._cancelled = threading.Event()
        self._closed = closed
        self._steps_left = len(channels) * start.maximization.steps if start.maximization else 0
        self._step_seconds = 0.0
        self._timing = Timing(batch_size=0)
        self._seen = self._refused = 0
        self._queue = queue
        self._caller = passes.scheduler.caller(1 if start.patches else 0)
        try:
            self._ticket = None if start.maximization is None else queue.take()
        except GramletError:
            self._caller.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        if self._ticket is not None:
            self._queue.leave(self._ticket)
        self._closed(self)

    @property
    def remaining_seconds(self) -> float:
        """Estimate of the time that the device still needs for optimized pictures; 0 before the first step."""
        return self._steps_left * self._step_seconds

    @property
    def keeps_others_waiting(self) -> bool:
        """Whether others wait for the place that this call holds."""
        return self._ticket is not None and self._queue.queued > 0

    def cancel(self) -> None:
        """Ends the work within one step on the device. Returns at once."""
        self._cancelled.set()
        self._caller.close()
        if self._ticket is not None:
            self._queue.cancel(self._ticket)

    def events(self, messages: Iterable[Items]) -> Iterator[SeeEvent | SeeFinished]:
        """Does the work, and yields what happens.

        Args:
            messages: The pictures with their names, or the error of each that could not be read.

        Raises:
            InvalidInput: There are no pictures.
            Overloaded: There is no memory for the patches.
            Cancelled: The call was cancelled.
            Unavailable: The server is shutting down, or its device has failed.
        """
        if self._ticket is not None:
            for position in self._queue.positions(self._ticket, BEAT_SECONDS):
                yield SeeQueued(position=position)
        stage = self._network.architecture.stage(self._start.stage)
        digest = self._network.digest
        field = self._fields.of(self._caller, stage.name)
        yield SeeStarted(
            channels=stage.channels,
            stride=stage.stride,
            receptive_field=len(field.seen),
            effective_field=field.effective,
            weights_digest=digest,
        )
        if self._start.patches:
            yield from self._see_pictures(messages, field)
        if self._start.maximization is not None:
            for channel in self._channels:
                yield from self._optimize(channel, self._start.maximization)
        yield SeeFinished(pictures=self._seen, refused=self._refused, timing=self._timing, weights_digest=digest)

    # --- patches of the pictures ---

    def _see_pictures(self, messages: Iterable[Items], field: Field) -> Iterator[SeeEvent]:
        start = self._start
        projects = start.projection is not Projection.NONE
        box_of = field.effective_box if start.patch_field is PatchField.EFFECTIVE else field.whole_box
        strongest = Strongest(self._channels, start.patches, box_of, self._patch_size, keeps_pictures=projects)
        size = len(self._channels) * start.patches * 3 * self._patch_size**2
        with PROCESS.reserve(size, "start.patches"):
            looking = Looking(self._passes, self._decoder, self._caller, start, field, self._cancelled)
            for group in looking.at(messages):
                for found in group:
                    if isinstance(found, Look):
                        self._add(found.timing)
                        is_kept = strongest.add(found)
                        if is_kept and projects:
                            PROCESS.hold(found.picture.pixels)
                    else:
                        self._refused += 1
                        yield found
                self._seen += len(group)
                yield SeeProgress(pictures=self._seen)
            if not self._seen:
                raise InvalidInput("send pictures, or ask for no patches", field="items")
            if self._seen == self._refused:
                raise InvalidInput(f"none of {counted(self._seen, 'picture')} can be seen", field="items")
            for channel in self._channels:
                patches = tuple(self._patch(strong, channel) for strong in strongest.of(channel))
                yield SeePatches(channel=channel, patches=patches)

    def _patch(self, strong: Strong, channel: int) -> Patch:
        return Patch(
            index=strong.index,
            id=strong.id,
            activation=strong.activation,
            row=strong.row,
            column=strong.column,
            box=strong.box,
            height=strong.height,
            width=strong.width,
            jpeg=encode_jpeg(strong.patch, whole_colors=True),
            projection=b"" if strong.whole is None else self._projected(strong, strong.whole, channel),
        )

    def _projected(self, strong: Strong, whole: Decoded, channel: int) -> bytes:
        def project() -> Array:
            picture = self._passes.device.upload([whole])
            place = self._start.stage, channel, strong.row, strong.column
            return self._network.projecting.project(picture, *place, self._start.projection).cpu().numpy()

        pixels = strong.height * strong.width
        with self._room_for_gradient(pixels, "start.resize"):
            signal, timing = self._passes.run_single(self._caller, "see", pixels, project)
        self._add(timing)
        patch = cut(signal.transpose(1, 2, 0), strong.box)
        return encode_jpeg(reduced(_grays(patch), self._patch_size), whole_colors=True)

    # --- optimized pictures ---

    def _optimize(self, channel: int, settings: Maximization) -> Iterator[SeeEvent]:
        happened: list[_Formed] = []
        pixels = settings.size**2
        running, has_ended, spent = self._ascend(channel, settings, happened), False, Timing(batch_size=0)
        with self._room_for_gradient(pixels, "start.maximization.size"):
            while not has_ended:
                if self._draining.is_set():
                    raise shutting_down()
                before = self._steps_left
                turn, timing = self._passes.run_turn(self._caller, "see", pixels, running)
                self._step_seconds = timing.compute_seconds / max(1, before - self._steps_left)
                has_ended, spent = turn.ended, _sum(spent, timing)
                for step, activation, picture in happened:
                    yield self._formed(channel, step, settings.steps, float(activation()), picture().numpy(), spent)
                happened.clear()
        self._add(spent)

    def _ascend(self, channel: int, settings: Maximization, happened: list[_Formed]) -> Steps[None]:
        """Takes the steps on the device thread, and collects the pictures that are wanted."""
        network, device, stage = self._network, self._passes.device, self._start.stage

        def activate(picture: Tensor) -> Tensor:
            return network.activations(picture, [stage], smooth=True)[stage][0, channel].float().mean()

        def awaken(picture: Tensor) -> Tensor:
            return network.projecting.passing(picture, stage)[0, channel].mean()

        for ascent in maximize(activate, awaken, settings, network.device, device.with_room):
            if ascent.picture is not None:
                happened.append((ascent.step, device.fetch(ascent.activation), device.fetch(ascent.picture)))
            self._steps_left -= 1
            yield None

    def _formed(
        self, channel: int, step: int, steps: int, activation: float, picture: Array, spent: Timing
    ) -> SeePreview | SeeOptimized:
        if step < steps:
            jpeg = encode_jpeg(picture)
            return SeePreview(channel=channel, step=step, steps=steps, activation=activation, jpeg=jpeg)
        return SeeOptimized(channel=channel, activation=activation, png=encode_png(picture), timing=spent)

    def _room_for_gradient(self, pixels: int, field: str) -> Reservation:
        on_cpu = self._network.device.type == "cpu"
        return PROCESS.reserve(pixels * GRADIENT_BYTES if on_cpu else 0, field)

    def _add(self, timing: Timing) -> None:
        self._timing = _sum(self._timing, timing)


def _sum(one: Timing, other: Timing) -> Timing:
    queued, computed = one.queue_seconds + other.queue_seconds, one.compute_seconds + other.compute_seconds
    return Timing(queued, computed, one.batch_size)


def _grays(signal: Array) -> Pixels:
    """A projection (H, W, 3) as a picture of bytes: 0 is mid-gray, and the strongest values are clipped."""
    strongest = float(np.percentile(np.abs(signal), BRIGHTEST)) or 1.0
    return to_uint8((0.5 + signal / (2 * strongest)).transpose(2, 0, 1))
