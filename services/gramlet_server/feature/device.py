"""Where passes over the network run: copies between arrays and the device's memory, and recorded passes.

`device_for` returns the CPU's `Device`, which has little to do, or a `CudaDevice`, which adds pinned memory, streams
for copies, and CUDA graphs. Only the device thread uses either.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from gramlet.errors import FailedPrecondition
from gramlet.types import Array
from numpy.typing import NDArray
from torch import Tensor

from gramlet_server.feature.device_decode import JpegCodec, NvJpeg
from gramlet_server.feature.graphs import Compute, ComputeWith, GraphCache, Inputs, PassKey
from gramlet_server.feature.pixels import OnDevice, Stack, batch_of, resized_on_cpu
from gramlet_server.feature.steps import HOLDING, Steps, to_end
from gramlet_server.feature.work import Batching
from gramlet_server.pictures.prepare import Decoded

Result = TypeVar("Result")

AnyPicture = Array | Decoded | OnDevice
"""A picture (3, H, W) of float32, one that is still to be converted and resized, or one that the device has decoded."""

GRAPHS_SHARE = 0.25
"""Share of the device's memory for recorded passes."""
PASS_SHARE = 0.125
"""Share of the device's memory for the activations of a pass."""
CUDA_MARGIN = 2.3
"""A pass may take so many times what was measured on a CPU (`memory`)."""

Wait = Callable[[], list[Array]]
"""Waits for the results of a pass."""

CUDA_BATCHING = Batching(pictures=128, pixels=8 * 2**20, queue_limit=1024)
"""Larger passes are hardly faster: at 128 pictures of 224 x 224 an H100 has nine tenths of its rate at 256."""


class Device:
    """The CPU, where arrays and tensors share memory.

    Attributes:
        overlaps: Whether a pass may begin while another one computes.
    """

    overlaps = False

    def batching(self, pixel_bytes: float) -> Batching:
        """The passes that suit it, and the queue for them, if a pass takes so much memory for each pixel."""
        return Batching()

    def pass_size(self, pictures: int) -> int:
        """How many pictures a pass of so many is filled up to."""
        return pictures

    def jpeg_codec(self) -> JpegCodec:
        """Its decoder of JPEGs.

        Raises:
            FailedPrecondition: It has none.
        """
        raise FailedPrecondition(
            "decoding by the device is nvJPEG, which needs a CUDA device: leave out --decoder, or give --device cuda",
            field="--decoder",
        )

    @contextmanager
    def working(self) -> Iterator[None]:
        """Surrounds everything that runs on the device."""
        yield

    def before(self, pictures: Sequence[Decoded]) -> Sequence[Decoded]:
        """What is done to pictures before they wait for the device, on the thread that decodes: here, resizing."""
        return resized_on_cpu(pictures)

    def upload(self, pictures: Sequence[AnyPicture]) -> Tensor:
        """Pictures of one final size, arrays (3, H, W) or decoded ones, as a batch (N, 3, H, W)."""
        return _batch(pictures, self._stack, torch.device("cpu"))

    def _stack(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        # np.stack also copies a read-only array that came off the wire; torch would warn about it.
        return torch.from_numpy(np.stack(arrays))

    def start(self, pictures: Sequence[AnyPicture], compute: Compute, key: PassKey) -> Wait:
        """Begins one pass; what is returned waits for its results, in float32. Here it has ended by then."""
        results = [result.numpy() for result in _whole(compute(self.upload(pictures)))]
        return lambda: results

    def in_parts(self, pictures: Sequence[AnyPicture], compute: Compute) -> Steps[list[Array]]:
        """Runs one pass in parts, between which the device may serve others; returns its results in float32."""
        batch = self.upload(pictures)
        yield HOLDING
        results = yield from _in_parts(compute(batch))
        return [result.numpy() for result in results]

    def run_resident(self, pictures: Tensor, inputs: Inputs, compute: ComputeWith, key: PassKey) -> Steps[list[Tensor]]:
        """Runs one pass over pictures (N, 3, H, W) of the device; its results stay there, as new tensors in float32.

        Here it runs in parts, between which the device may serve others.

        Args:
            pictures: The pictures.
            inputs: What else the pass reads and others of its key do not.
            compute: Computes the results.
            key: Of the pass.
        """
        return _in_parts(compute(pictures, inputs.tensors))

    def with_room(self, work: Callable[[], Result]) -> Result:
        """Runs work that allocates memory. Where memory is short, cached memory is released and the work runs again."""
        return work()

    def parts_with_room(self, begin: Callable[[], Generator[None, None, Result]]) -> Steps[Result]:
        """The same for work that yields where others may be served, with the device's memory in use."""
        parts = begin()
        while True:
            try:
                next(parts)
            except StopIteration as ended:
                result: Result = ended.value
                return result
            yield HOLDING

    @property
    def reads_late(self) -> int:
        """How many iterations of a descent to begin before the loss of the first of them is read."""
        return 0

    def place(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU on the device."""
        return tensor

    def fetch(self, result: Tensor) -> Callable[[], Tensor]:
        """Starts to copy a small result to the CPU; what is returned waits for it, and may be called in any thread."""
        return lambda: result

    def is_lost(self) -> bool:
        """Whether the device has failed for good in this process."""
        return False


class CudaDevice(Device):
    """A CUDA device.

    All passes run on one stream, one after the other. Pictures are copied from pinned memory on a second stream while
    the first computes the pass before, and results to pinned memory on a third while it computes the next result. A
    pass that repeats is recorded as a CUDA graph and replayed.

    Args:
        device: Which device.
        graph_bytes: Memory that recorded passes may hold, roughly; 0 records none.
    """

    overlaps = True

    def __init__(self, device: torch.device, graph_bytes: int) -> None:
        self._device = device
        # Not the default stream, which cannot be recorded.
        self._compute = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._uploads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._results = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.graphs = GraphCache(device, graph_bytes)

    def batching(self, pixel_bytes: float) -> Batching:
        memory = torch.cuda.get_device_properties(self._device).total_memory
        pixels = int(PASS_SHARE * memory / (CUDA_MARGIN * pixel_bytes))
        return replace(CUDA_BATCHING, pixels=min(CUDA_BATCHING.pixels, pixels))

    def pass_size(self, pictures: int) -> int:
        # A few sizes: each has a graph of its own. Of 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...
        step = 1 << max(0, (pictures - 1).bit_length() - 2)
        return -(-pictures // step) * step if self.graphs.is_on else pictures

    def jpeg_codec(self) -> JpegCodec:
        return NvJpeg(self._device)

    @contextmanager
    def working(self) -> Iterator[None]:
        with torch.cuda.device(self._device), torch.cuda.stream(self._compute):
            yield

    def before(self, pictures: Sequence[Decoded]) -> Sequence[Decoded]:
        return pictures

    def upload(self, pictures: Sequence[AnyPicture]) -> Tensor:
        return _batch(pictures, self._stack, self._device)

    def start(self, pictures: Sequence[AnyPicture], compute: Compute, key: PassKey) -> Wait:
        return self.with_room(lambda: self._start(pictures, compute, key))

    def run_resident(self, pictures: Tensor, inputs: Inputs, compute: ComputeWith, key: PassKey) -> Steps[list[Tensor]]:
        yield from ()  # a pass takes milliseconds here
        return self.with_room(lambda: self._run_resident(pictures, inputs, compute, key))

    def with_room(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except torch.OutOfMemoryError:
            if not self.graphs.clear():
                raise
        # Not inside the except block: the exception's traceback holds the memory of the failed attempt.
        return work()

    def parts_with_room(self, begin: Callable[[], Generator[None, None, Result]]) -> Steps[Result]:
        yield from ()
        return self.with_room(lambda: to_end(begin()))

    @property
    def reads_late(self) -> int:
        return 1

    def place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device)

    def fetch(self, result: Tensor) -> Callable[[], Tensor]:
        pinned = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        pinned.copy_(result, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()

        def wait() -> Tensor:
            arrived.synchronize()
            return pinned

        return wait

    def is_lost(self) -> bool:
        try:
            torch.cuda.synchronize(self._device)
        except RuntimeError:
            # After a fault every call of this process fails.
            return True
        return False

    def _start(self, pictures: Sequence[AnyPicture], compute: Compute, key: PassKey) -> Wait:
        batch = self.upload(pictures)
        known = self.graphs.count(batch.shape, key)
        self._keep_results()
        results = _whole(compute(batch)) if known.graph is None else known.graph.replay(batch)
        wait = self._fetched(results)
        self.graphs.record_if_due(known, batch, (), lambda pictures, _: _whole(compute(pictures)))
        return wait

    def _run_resident(self, pictures: Tensor, inputs: Inputs, compute: ComputeWith, key: PassKey) -> list[Tensor]:
        known = self.graphs.count(pictures.shape, key)
        if known.graph is not None:
            # Copies, because the next replay of any graph overwrites them.
            return [result.clone() for result in known.graph.replay(pictures, inputs)]
        results = list(_whole(compute(pictures, inputs.tensors)))
        self.graphs.record_if_due(known, pictures, inputs.tensors, lambda *given: _whole(compute(*given)))
        return results

    def _stack(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        element_type = torch.uint8 if arrays[0].dtype == np.uint8 else torch.float32
        pinned = torch.empty((len(arrays), *arrays[0].shape), dtype=element_type, pin_memory=True)
        np.stack(arrays, out=pinned.numpy())
        with torch.cuda.stream(self._uploads):
            # torch's allocator reuses the pinned memory only after the copy has ended.
            stacked = pinned.to(self._device, non_blocking=True)
        self._compute.wait_stream(self._uploads)
        stacked.record_stream(self._compute)
        return stacked

    def _keep_results(self) -> None:
        """Lets the pass that begins wait until the results of the one before are copied: a replay overwrites them."""
        self._compute.wait_stream(self._results)

    def _fetched(self, results: Iterable[Tensor]) -> Wait:
        pinned = [self._download(result) for result in results]
        # Blocking: it waits without using a core, and most of them decode meanwhile.
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        arrived.record(self._results)

        def wait() -> list[Array]:
            arrived.synchronize()
            # Copies, because pinned memory is scarce and callers may keep an array for long.
            return [each.numpy().copy() for each in pinned]

        return wait

    def _download(self, result: Tensor) -> Tensor:
        result = _float32(result)
        pinned = torch.empty(result.shape, pin_memory=True)
        self._results.wait_stream(self._compute)
        with torch.cuda.stream(self._results):
            pinned.copy_(result, non_blocking=True)
        result.record_stream(self._results)
        return pinned


def device_for(device: torch.device, graphs: bool) -> Device:
    """The `Device` for a device of torch's; on CUDA it records graphs if asked to."""
    if device.type != "cuda":
        return Device()
    memory = torch.cuda.get_device_properties(device).total_memory
    return CudaDevice(device, int(GRAPHS_SHARE * memory) if graphs else 0)


def _batch(pictures: Sequence[AnyPicture], stack: Stack, device: torch.device) -> Tensor:
    arrays = [picture for picture in pictures if isinstance(picture, np.ndarray)]
    decoded = [picture for picture in pictures if not isinstance(picture, np.ndarray)]
    return stack(arrays) if arrays else batch_of(decoded, stack, device)


def _whole(computed: Iterable[Tensor | None]) -> Iterator[Tensor]:
    """The results of a pass in float32, without a pause between its parts."""
    return (_float32(result) for result in computed if result is not None)


def _in_parts(computed: Iterable[Tensor | None]) -> Steps[list[Tensor]]:
    """The same, and others may have the device between the parts."""
    results = []
    for result in computed:
        if result is None:
            yield HOLDING
        else:
            results.append(_float32(result))
    return results


def _float32(result: Tensor) -> Tensor:
    """A result without its gradient graph, in float32 and C order."""
    return result.detach().float().contiguous()
