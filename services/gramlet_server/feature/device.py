"""Where passes over the network run: copies between arrays and the device's memory, and recorded passes.

`device_for` returns the CPU's `Device`, which has little to do, or a `CudaDevice`, which adds pinned memory, a stream
for results, and CUDA graphs. Only the device thread uses either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from gramlet.types import Array
from numpy.typing import NDArray
from torch import Tensor

from gramlet_server.feature.graphs import Compute, ComputeWith, GraphCache, Inputs, PassKey
from gramlet_server.feature.pixels import Stack, batch_of, resized_on_cpu
from gramlet_server.pictures.prepare import Decoded

Result = TypeVar("Result")

AnyPicture = Array | Decoded
"""A picture (3, H, W) of float32, or one that is still to be converted and resized."""

GRAPHS_SHARE = 0.25
"""Share of the device's memory for recorded passes."""


class Device:
    """The CPU, where arrays and tensors share memory."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Surrounds everything that runs on the device."""
        yield

    def before(self, picture: Decoded) -> Decoded:
        """What is done to a picture before it waits for the device, on the thread that decodes: here it is resized."""
        return resized_on_cpu(picture)

    def upload(self, pictures: Sequence[AnyPicture]) -> Tensor:
        """Pictures of one final size, arrays (3, H, W) or decoded ones, as a batch (N, 3, H, W)."""
        return _batch(pictures, self._stack, torch.device("cpu"))

    def _stack(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        # np.stack also copies a read-only array that came off the wire; torch would warn about it.
        return torch.from_numpy(np.stack(arrays))

    def run(self, pictures: Sequence[AnyPicture], compute: Compute, key: PassKey) -> list[Array]:
        """Runs one pass; returns its results in float32."""
        return [_float32(result).numpy() for result in compute(self.upload(pictures))]

    def run_resident(self, pictures: Tensor, inputs: Inputs, compute: ComputeWith, key: PassKey) -> list[Tensor]:
        """Runs one pass over pictures (N, 3, H, W) of the device; its results stay there, as new tensors in float32.

        Args:
            pictures: The pictures.
            inputs: What else the pass reads and others of its key do not.
            compute: Computes the results.
            key: Of the pass.
        """
        return [_float32(result) for result in compute(pictures, inputs.tensors)]

    def with_room(self, work: Callable[[], Result]) -> Result:
        """Runs work that allocates memory. Where memory is short, cached memory is released and the work runs again."""
        return work()

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

    All passes run on one stream, one after the other. Results are copied to pinned memory on a second stream, while
    the first computes the next result. A pass that repeats is recorded as a CUDA graph and replayed.

    Args:
        device: Which device.
        graph_bytes: Memory that recorded passes may hold, roughly; 0 records none.
    """

    def __init__(self, device: torch.device, graph_bytes: int) -> None:
        self._device = device
        # Not the default stream, which cannot be recorded.
        self._compute = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._results = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.graphs = GraphCache(device, graph_bytes)

    @contextmanager
    def working(self) -> Iterator[None]:
        with torch.cuda.device(self._device), torch.cuda.stream(self._compute):
            yield

    def before(self, picture: Decoded) -> Decoded:
        return picture

    def upload(self, pictures: Sequence[AnyPicture]) -> Tensor:
        return _batch(pictures, self._stack, self._device)

    def run(self, pictures: Sequence[AnyPicture], compute: Compute, key: PassKey) -> list[Array]:
        return self.with_room(lambda: self._run(pictures, compute, key))

    def run_resident(self, pictures: Tensor, inputs: Inputs, compute: ComputeWith, key: PassKey) -> list[Tensor]:
        return self.with_room(lambda: self._run_resident(pictures, inputs, compute, key))

    def with_room(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except torch.OutOfMemoryError:
            if not self.graphs.clear():
                raise
        # Not inside the except block: the exception's traceback holds the memory of the failed attempt.
        return work()

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

    def _run(self, pictures: Sequence[AnyPicture], compute: Compute, key: PassKey) -> list[Array]:
        batch = self.upload(pictures)
        known = self.graphs.count(batch.shape, key)
        results = compute(batch) if known.graph is None else known.graph.replay(batch)
        arrays = self._arrays(results)
        self.graphs.record_if_due(known, batch, (), lambda pictures, _: map(_float32, compute(pictures)))
        return arrays

    def _run_resident(self, pictures: Tensor, inputs: Inputs, compute: ComputeWith, key: PassKey) -> list[Tensor]:
        known = self.graphs.count(pictures.shape, key)
        if known.graph is not None:
            # Copies, because the next replay of any graph overwrites them.
            return [result.clone() for result in known.graph.replay(pictures, inputs)]
        results = [_float32(result) for result in compute(pictures, inputs.tensors)]
        self.graphs.record_if_due(known, pictures, inputs.tensors, lambda *given: map(_float32, compute(*given)))
        return results

    def _stack(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        element_type = torch.uint8 if arrays[0].dtype == np.uint8 else torch.float32
        pinned = torch.empty((len(arrays), *arrays[0].shape), dtype=element_type, pin_memory=True)
        np.stack(arrays, out=pinned.numpy())
        # torch's allocator reuses the pinned memory only after the copy has ended.
        return pinned.to(self._device, non_blocking=True)

    def _arrays(self, results: Iterable[Tensor]) -> list[Array]:
        pinned = [self._download(result) for result in results]
        self._results.synchronize()
        # Copies, because pinned memory is scarce and callers may keep an array for long.
        return [each.numpy().copy() for each in pinned]

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
    decoded = [picture for picture in pictures if isinstance(picture, Decoded)]
    return stack(arrays) if arrays else batch_of(decoded, stack, device)


def _float32(result: Tensor) -> Tensor:
    """A result without its gradient graph, in float32 and C order."""
    return result.detach().float().contiguous()
