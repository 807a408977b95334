"""One pass over the network: what extraction, differentiation and targets share.

`Passes` holds the network, its device and the scheduler. It runs the computation of one pass and turns failures of the
device into errors for the caller. Only the scheduler's device thread runs passes, so there is never more than one.

Work that takes longer than some 20 to 50 ms of device time is a sequence of passes of a caller: the scheduler serves
other callers in between, and charges each for the device time that it took. Such work is written as a generator of
`Steps`, which `run_turn` advances until the turn is over. A single pass over a large picture is computed by such steps
as well, `run_in_parts`, where the device would otherwise be kept from others for long.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from gramlet.errors import GramletError, InvalidInput, Unavailable
from gramlet.types import Array, Limits, Timing
from torch import Tensor

from gramlet_server.backbone.network import Network
from gramlet_server.feature.device import AnyPicture, Device, Wait
from gramlet_server.feature.graphs import Compute, PassKey
from gramlet_server.feature.memory import PassMemory
from gramlet_server.feature.scheduler import Scheduler
from gramlet_server.feature.steps import Steps, Turn, to_end, turn_of
from gramlet_server.feature.tiles import Tile, cut
from gramlet_server.feature.work import Caller, Work, outcome
from gramlet_server.process.memory_budget import Place

T = TypeVar("T")

LONG_SECONDS = 0.25
"""A pass over one picture that takes longer than this, by the pace of earlier ones, lets others have the device."""
LONG_PIXELS = 2**18
"""But not over fewer pixels: on a busy machine every pass takes long, and small ones would wait for large ones."""
_FIRST_PACE = 5e-7
"""Seconds for each pixel of an extraction, until one was measured: two cores of 2020."""


class Passes:
    """The network on its device, one pass at a time.

    Args:
        network: What passes compute.
        device: Where they compute it.
        scheduler: Decides whose pass is next.
        limits: The largest pictures and messages that are accepted.
        tile_pixels: Larger pictures are worked on in tiles of at most so many pixels, halo included; 0: as suits the
            memory.

    Attributes:
        memory: What passes take, and room for it.
    """

    def __init__(
        self, network: Network, device: Device, scheduler: Scheduler, limits: Limits, tile_pixels: int
    ) -> None:
        self.network = network
        self.device = device
        self.scheduler = scheduler
        self.limits = limits
        self._tile_pixels = tile_pixels
        self.memory = PassMemory(network.architecture, network.device.type == "cpu")
        self._failure = ""
        self._report_failure: Callable[[GramletError], None] = lambda _: None

    def on_failure(self, report: Callable[[GramletError], None]) -> None:
        """Registers what to call, once, when the device has failed for good. Every pass fails from then on."""
        self._report_failure = report

    @property
    def tile_pixels(self) -> int:
        """Pictures of more pixels are worked on in tiles of at most so many pixels, halo included."""
        return self._tile_pixels or self.memory.tile_pixels

    # --- on a caller's thread ---

    def run_single(self, caller: Caller, kind: str, pixels: int, work: Callable[[], T]) -> tuple[T, Timing]:
        """Runs work on the device thread in a pass that no other picture shares, and waits for it.

        Args:
            caller: Whose work it is.
            kind: For the metrics.
            pixels: Estimate of its cost.
            work: May run twice, where the device's memory was short the first time.

        Raises:
            Cancelled: The caller was closed meanwhile.
            InvalidInput: The device's memory does not hold the work.
            Unavailable: The device has failed for good, or the scheduler is closed.
        """

        def run(_: Sequence[None]) -> list[T]:
            with self._running(1):
                return [self.device.with_room(work)]

        found: tuple[T, Timing] = outcome(caller.submit(Work(kind, None, pixels, run, None)))
        return found

    def run_turn(
        self, caller: Caller, kind: str, pixels: int, steps: Steps[T], is_long: bool = False
    ) -> tuple[Turn[T], Timing]:
        """Advances work that lets others have the device between its steps, for TURN_SECONDS or to its end.

        Steps that allocate do so inside `device.with_room`: a generator that has failed cannot be run again.

        Args:
            caller: Whose work it is.
            kind: For the metrics.
            pixels: Estimate of a turn's cost.
            steps: The work.
            is_long: Whether it may also be suspended where it holds the memory of a pass; see `room`.

        Raises:
            As `run_single`, and what the steps raise.
        """

        def run(_: Sequence[None]) -> list[Turn[T]] | Steps[list[Turn[T]]]:
            turn = self._guarded(1, _alone(turn_of(steps)))
            return turn if is_long else to_end(turn)

        found: tuple[Turn[T], Timing] = outcome(caller.submit(Work(kind, None, pixels, run, None, is_long=is_long)))
        return found

    def run_steps(
        self, caller: Caller, kind: str, pixels: int, steps: Steps[T], is_long: bool = False
    ) -> tuple[T, Timing]:
        """Runs such work to its end, in as many turns as it takes.

        Raises:
            As `run_turn`.
        """
        queued = computed = 0.0
        while True:
            turn, timing = self.run_turn(caller, kind, pixels, steps, is_long)
            queued, computed = queued + timing.queue_seconds, computed + timing.compute_seconds
            if turn.ended:
                return turn.result, Timing(queued, computed)

    def check_size(self, size: Sequence[int], stages: Iterable[str], field: str) -> None:
        """Rejects a picture of a size (height, width) that is too small for a stage.

        Raises:
            InvalidInput: Naming the field.
        """
        height, width = size
        for stage in stages:
            if 0 in self.network.architecture.activation_shape(stage, height, width):
                raise InvalidInput(
                    f"{width} x {height} pixels are too few for {stage} of {self.network.name}: resize it, or ask "
                    "for an earlier stage",
                    field=field,
                )

    def is_long(self, kind: str, pixels: int) -> bool:
        """Whether a pass over one picture keeps others from the device for long, by the pace of such work."""
        return self.may_be_long(pixels) and pixels * (self.scheduler.pace(kind) or _FIRST_PACE) > LONG_SECONDS

    def may_be_long(self, pixels: int) -> bool:
        """Whether a pass over a picture of so many pixels may be long on some machine. On a GPU passes are short."""
        return not self.device.overlaps and pixels >= LONG_PIXELS

    def room(self, pixels: int, stages: Collection[str]) -> tuple[Place, bool]:
        """Memory for an extraction from pictures of so many pixels; whether it is long, and may be suspended.

        Raises:
            InvalidInput, Overloaded: There is none, ever or now.
        """
        # Where there is no memory for a second pass beside it, others wait until it has ended.
        if self.is_long("extract", pixels) and (place := self.memory.suspended(self._pass_pixels(pixels), stages)):
            return place, True
        return self.whole_room(pixels, stages), False

    def whole_room(self, pixels: int, stages: Collection[str]) -> Place:
        """The same for work that is never suspended."""
        return self.memory.extraction(self._pass_pixels(pixels), stages, "picture")

    def _pass_pixels(self, pixels: int) -> int:
        """Pixels of a pass over as many such pictures as one takes."""
        return pixels * self.scheduler.room(pixels)

    def needs_tiles(self, picture: Array | Tensor) -> bool:
        """Whether a picture (3, H, W) is too large to be worked on as a whole."""
        _, height, width = picture.shape
        return bool(height * width > self.tile_pixels)

    def pixels_at_once(self, size: tuple[int, int], stages: Sequence[str], antialiased: bool) -> int:
        """Pixels of a picture (height, width) that are worked on at once: all of it, or its largest tile.

        Raises:
            InvalidInput: As for `tiles`.
        """
        height, width = size
        if stages and height * width > self.tile_pixels:
            return max(tile.pixels for tile in self._tiles(height, width, stages, antialiased))
        return height * width

    def tiles(self, picture: Array | Tensor, stages: Sequence[str], antialiased: bool) -> list[Tile]:
        """The tiles of a picture (3, H, W) for some stages.

        Raises:
            InvalidInput: A stage sees the whole picture.
        """
        _, height, width = picture.shape
        return self._tiles(height, width, stages, antialiased)

    def _tiles(self, height: int, width: int, stages: Sequence[str], antialiased: bool) -> list[Tile]:
        architecture = self.network.architecture
        if any(not architecture.stride(stage) for stage in stages):
            raise InvalidInput(
                f"{width} x {height} pixels are worked on in tiles, and {', '.join(stages)} has a stage that sees the "
                "whole picture: leave it out, or resize",
                field="style_stages",
            )
        return cut(architecture, height, width, stages, antialiased, self.tile_pixels)

    # --- on the device thread ---

    def run(self, pictures: Sequence[AnyPicture], compute: Compute, key: PassKey) -> list[Array]:
        """Runs one pass over pictures of one size; returns the results of `compute` in float32.

        Raises:
            InvalidInput: The device's memory does not hold so many such pictures.
            Unavailable: The device has failed for good.
        """
        return self.start(pictures, compute, key)()

    def start(self, pictures: Sequence[AnyPicture], compute: Compute, key: PassKey) -> Wait:
        """Begins such a pass; what is returned waits for its results. Both raise as `run` does."""
        with self._running(len(pictures)):
            wait = self.device.start(pictures, compute, key)

        def finish() -> list[Array]:
            with self._running(len(pictures)):
                return wait()

        return finish

    def run_in_parts(self, pictures: Sequence[AnyPicture], compute: Compute) -> Steps[list[Array]]:
        """Runs such a pass, and lets others have the device between its parts. Raises as `run`."""
        return self._guarded(len(pictures), self.device.in_parts(pictures, compute))

    def _guarded(self, pictures: int, steps: Steps[T]) -> Steps[T]:
        """The same steps; their failures become errors for the caller."""
        while True:
            with self._running(pictures):
                try:
                    pause = next(steps)
                except StopIteration as ended:
                    result: T = ended.value
                    return result
            yield pause

    def activations(
        self, picture: Array, stages: Sequence[str], *, antialiased: bool, reduced: bool = False
    ) -> dict[str, Tensor]:
        """Activations (C, H, W) of one picture (3, H, W) by stage, without a gradient; inside `run_single`."""
        with torch.no_grad():
            found = self.network.activations(
                self.device.upload([picture]), stages, antialiased=antialiased, smooth=True, reduced=reduced
            )
        return {stage: activations[0] for stage, activations in found.items()}

    @contextmanager
    def _running(self, pictures: int) -> Iterator[None]:
        if self._failure:
            raise Unavailable(self._failure, retry_after=1.0)
        try:
            with self.device.working():
                self.network.set_arithmetic()
                yield
        except torch.OutOfMemoryError:
            raise InvalidInput(
                f"the device's memory does not hold {pictures} such picture(s): resize, or ask for earlier stages",
                field="picture",
            ) from None
        except RuntimeError as error:
            if not self.device.is_lost():
                raise
            raise self._fail(error) from error

    def _fail(self, error: RuntimeError) -> Unavailable:
        reason = str(error).partition("\n")[0]
        self._failure = f"{self.network.device} has failed, go on at another server: {reason}"
        failure = Unavailable(self._failure, retry_after=1.0)
        self._report_failure(failure)
        return failure


def _alone(steps: Steps[T]) -> Steps[list[T]]:
    """Steps as those of a pass over one picture."""
    return [(yield from steps)]
