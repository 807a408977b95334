"""Where passes over the network run: what moves between arrays and the device's memory, and what is recorded there.

`device_of` gives the CPU's `Device`, where there is next to nothing to do, or a `CudaDevice`: pinned memory, a stream
for what comes back, and CUDA graphs for passes that repeat. Only the thread that runs passes uses either.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from gramlet.types import Array
from torch import Tensor

_log = logging.getLogger(__name__)

Result = TypeVar("Result")
Compute = Callable[[Tensor], Iterable[Tensor]]
"""From a batch of pictures (N, 3, H, W) to results, each as soon as it is there. Nothing in it may wait for the device:
no `float(tensor)`, no copy from or to the CPU."""


@dataclass(frozen=True)
class Repeats:
    """What a pass is recognized by when it comes again with other pictures.

    Attributes:
        key: Passes of equal keys, and of pictures of one shape, do the same.
        owners: What holds the tensors that the pass reads beside the pictures. While they live the tensors stay where
            they are; without them the pass cannot come again.
    """

    key: Hashable
    owners: tuple[object, ...] = ()


class Device:
    """The CPU, where arrays and tensors are the same memory."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around everything that runs on the device."""
        yield

    def upload(self, pictures: Sequence[Array]) -> Tensor:
        """Pictures (3, H, W) of one size as a batch (N, 3, H, W)."""
        # np.stack also copies a read-only array that came off the wire, which torch would warn of.
        return torch.from_numpy(np.stack(pictures))

    def run(self, pictures: Sequence[Array], compute: Compute, repeats: Repeats) -> list[Array]:
        """The results of one pass, as float32."""
        return [_float32(result).numpy() for result in compute(self.upload(pictures))]

    def with_room(self, work: Callable[[], Result]) -> Result:
        """Work that allocates. Where memory is short, what is kept there for speed makes room for it."""
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
        """Whether the device can do nothing any more in this process."""
        return False


RECORD_AFTER = {True: 2, False: 8}
"""Passes before one is recorded: those with owners (stylizations) come hundreds of times, others perhaps not."""
KNOWN_PASSES = 256
KEPT_GRAPHS = 32
GRAPHS_SHARE = 0.25
"""Share of the device's memory for recorded passes."""


class CudaDevice(Device):
    """A CUDA device.

    All passes run on one stream, one after the other; results are copied to pinned memory on a second stream, while
    the first goes on with the next result. A pass that comes again and again is recorded as a CUDA graph and replayed:
    the hundreds of kernels of a small picture's gradient cost more to launch than to run.

    Args:
        device: Which.
        graph_bytes: Memory that recorded passes may hold, roughly; 0 records none.
    """

    def __init__(self, device: torch.device, graph_bytes: int) -> None:
        self._device = device
        # Not the default stream, which cannot be recorded.
        self._compute = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._results = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs = _Graphs(device, graph_bytes)

    @contextmanager
    def working(self) -> Iterator[None]:
        with torch.cuda.device(self._device), torch.cuda.stream(self._compute):
            yield

    def upload(self, pictures: Sequence[Array]) -> Tensor:
        pinned = self._pin(pictures)
        # torch's allocator gives the pinned memory to nobody else before the copy has been made.
        return pinned.to(self._device, non_blocking=True)

    def run(self, pictures: Sequence[Array], compute: Compute, repeats: Repeats) -> list[Array]:
        return self.with_room(lambda: self._run(pictures, compute, repeats))

    def with_room(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except torch.OutOfMemoryError:
            if not self._graphs.clear():
                raise
        # Not among the exception's last words: they hold on to what the failed pass had allocated.
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
        arrived.record()  # type: ignore[no-untyped-call]

        def wait() -> Tensor:
            arrived.synchronize()  # type: ignore[no-untyped-call]
            return pinned

        return wait

    def is_lost(self) -> bool:
        try:
            torch.cuda.synchronize(self._device)
        except RuntimeError:
            # After a fault every call fails, for as long as the process lives.
            return True
        return False

    def _run(self, pictures: Sequence[Array], compute: Compute, repeats: Repeats) -> list[Array]:
        batch = self.upload(pictures)
        known = self._graphs.known(batch.shape, repeats)
        results = compute(batch) if known.graph is None else known.graph.replay(batch)
        arrays = self._arrays(results)
        if self._graphs.wants(known):
            self._graphs.record(known, batch, compute)
        return arrays

    def _pin(self, pictures: Sequence[Array]) -> Tensor:
        pinned = torch.empty((len(pictures), *pictures[0].shape), pin_memory=True)
        np.stack(pictures, out=pinned.numpy())
        return pinned

    def _arrays(self, results: Iterable[Tensor]) -> list[Array]:
        pinned = [self._download(result) for result in results]
        self._results.synchronize()
        # Pinned memory is scarce, and nobody knows for how long a caller keeps an array.
        return [each.numpy().copy() for each in pinned]

    def _download(self, result: Tensor) -> Tensor:
        result = _float32(result)
        pinned = torch.empty(result.shape, pin_memory=True)
        self._results.wait_stream(self._compute)
        with torch.cuda.stream(self._results):
            pinned.copy_(result, non_blocking=True)
        result.record_stream(self._results)
        return pinned


@dataclass(frozen=True)
class _Graph:
    """A recorded pass. It finds its pictures, and leaves its results, always in the same memory."""

    pictures: Tensor
    results: list[Tensor]
    launch: Callable[[], None]

    def replay(self, pictures: Tensor) -> list[Tensor]:
        """The results for these pictures, until the next replay of any graph."""
        self.pictures.copy_(pictures, non_blocking=True)
        self.launch()
        return self.results


def _record(pictures: Tensor, compute: Compute, pool: Any) -> _Graph:
    """Records a pass on the current stream, on which it ran before: cuBLAS and cuDNN have their workspaces there."""
    graph = torch.cuda.CUDAGraph()
    # Other threads may allocate meanwhile, which is no business of this graph: hence thread_local.
    with torch.cuda.graph(graph, pool, torch.cuda.current_stream(), capture_error_mode="thread_local"):
        results = [_float32(result) for result in compute(pictures)]
    return _Graph(pictures, results, graph.replay)


@dataclass
class _Known:
    """A pass that was met before."""

    owners: tuple[weakref.ref[object], ...]
    record_after: int
    met: int = 0
    graph: _Graph | None = None

    @property
    def is_current(self) -> bool:
        """Whether all that it reads is still where it was."""
        return all(owner() is not None for owner in self.owners)


class _Graphs:
    """The passes that were met last, and the graphs of those that come often.

    All graphs share one pool of memory: each may compute where another did, since nothing of a replay is read after the
    next one has begun. So stylizations of one size take the memory of one. What a dropped graph held, the pool gives to
    the next; the device gets it back when all are dropped, which happens once the pool has grown beyond its limit.
    """

    def __init__(self, device: torch.device, limit_bytes: int) -> None:
        self._device = device
        self._limit = limit_bytes
        self._known: OrderedDict[Hashable, _Known] = OrderedDict()
        self._pool: Any = None
        self._bytes = 0

    def known(self, shape: tuple[int, ...], repeats: Repeats) -> _Known:
        """What is known of a pass; it counts as met."""
        self._forget_orphans()
        # Owners are in the key by identity: while an entry is current they live, so that no other has their id.
        key = (tuple(shape), repeats.key, tuple(id(owner) for owner in repeats.owners))
        known = self._known.pop(key, None)
        if known is None:
            owners = tuple(weakref.ref(owner) for owner in repeats.owners)
            known = _Known(owners, RECORD_AFTER[bool(owners)])
        known.met += 1
        self._known[key] = known
        self._forget_oldest()
        return known

    def wants(self, known: _Known) -> bool:
        """Whether it is time to record a pass."""
        return bool(self._limit) and known.graph is None and known.met == known.record_after

    def record(self, known: _Known, pictures: Tensor, compute: Compute) -> None:
        """Records a pass that has just run as it is written. If that fails, it goes on to run so."""
        if self._bytes >= self._limit:
            self.clear()
        before = torch.cuda.memory_reserved(self._device)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            known.graph = _record(pictures, compute, self._pool)
        except torch.OutOfMemoryError:
            _log.info("no memory to record a pass of %s", tuple(pictures.shape))
            self.clear()
        except RuntimeError as error:
            # What a broken recording leaves behind is undefined: no second one is tried.
            _log.warning("CUDA graphs are off: a pass of %s cannot be recorded: %s", tuple(pictures.shape), error)
            self._limit = 0
            self.clear()
        else:
            self._bytes += max(0, torch.cuda.memory_reserved(self._device) - before)

    def clear(self) -> bool:
        """Drops all graphs; returns whether there were any."""
        kept = [known for known in self._known.values() if known.graph is not None]
        for known in kept:
            known.graph = None
        self._pool, self._bytes = None, 0
        torch.cuda.empty_cache()
        return bool(kept)

    def _forget_orphans(self) -> None:
        for key in [key for key, known in self._known.items() if not known.is_current]:
            del self._known[key]

    def _forget_oldest(self) -> None:
        while len(self._known) > KNOWN_PASSES:
            self._known.popitem(last=False)
        recorded = [known for known in self._known.values() if known.graph is not None]
        for known in recorded[: len(recorded) - KEPT_GRAPHS]:
            known.graph = None


def device_of(device: torch.device, graphs: bool) -> Device:
    """What runs passes on a device of torch's; on a CUDA device with graphs, if they are wanted."""
    if device.type != "cuda":
        return Device()
    memory = torch.cuda.get_device_properties(device).total_memory
    return CudaDevice(device, int(GRAPHS_SHARE * memory) if graphs else 0)


def _float32(result: Tensor) -> Tensor:
    return result.detach().float().contiguous()
