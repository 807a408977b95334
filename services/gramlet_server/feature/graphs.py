"""Passes that repeat, recorded as CUDA graphs.

The hundreds of kernels of a small picture's gradient cost more to launch one by one than to run. A graph launches them
all at once. Only the device thread uses this module.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_log = logging.getLogger(__name__)

Compute = Callable[[Tensor], Iterable[Tensor | None]]
"""From a batch of pictures (N, 3, H, W) to the results of a pass, each as soon as it is computed; None wherever the
device may serve others. It must not wait for the device: no `float(tensor)`, no copy from or to the CPU."""

ComputeWith = Callable[[Tensor, Sequence[Tensor]], Iterable[Tensor | None]]
"""The same, given the tensors that the pass reads beside its pictures."""

Record = Callable[[Tensor, Sequence[Tensor]], Iterable[Tensor]]
"""The same, as a whole."""

RECORD_AFTER = 8
"""A pass is recorded once it has run this often."""
RECORD_GRADIENT_AFTER = 2
"""The same for gradients: a stylization repeats them hundreds of times."""
RECORD_AGAIN_AFTER = 64
"""A pass whose graph was dropped is recorded again after so many more runs."""
KNOWN_PASSES = 256
"""Passes that are counted at once."""
KEPT_GRAPHS = 32
"""Graphs that are kept at once."""


@dataclass(frozen=True)
class PassKey:
    """Identifies a computation, so that its next pass over other pictures is recognized.

    Attributes:
        computation: Passes with equal values here, over pictures of one shape, run the same kernels.
        owners: Objects that hold tensors which the pass reads beside its pictures and inputs, such as targets. While
            they live the tensors keep their addresses; once one is gone the pass cannot repeat.
        is_gradient: Whether the pass will repeat for certain.
    """

    computation: Hashable
    owners: tuple[object, ...] = ()
    is_gradient: bool = False


@dataclass(frozen=True, eq=False)
class Inputs:
    """Tensors that a pass reads beside its pictures. They do not change."""

    tensors: tuple[Tensor, ...] = ()


@dataclass(eq=False)
class Graph:
    """A recorded pass. It reads its pictures and inputs from, and writes its results to, the same memory every time.

    Attributes:
        loaded: What the memory of its inputs holds a copy of.
    """

    pictures: Tensor
    inputs: tuple[Tensor, ...]
    results: list[Tensor]
    launch: Callable[[], None]
    loaded: weakref.ref[Inputs] | None = None

    def replay(self, pictures: Tensor, inputs: Inputs | None = None) -> list[Tensor]:
        """The results for these pictures and inputs. They are valid until the next replay of any graph."""
        self.pictures.copy_(pictures, non_blocking=True)
        if inputs is not None and (self.loaded is None or self.loaded() is not inputs):
            for own, given in zip(self.inputs, inputs.tensors, strict=True):
                own.copy_(given, non_blocking=True)
            self.loaded = weakref.ref(inputs)
        self.launch()
        return self.results


def record_graph(pictures: Tensor, inputs: tuple[Tensor, ...], compute: Record, pool: Any) -> Graph:
    """Records a pass on the current stream, where it ran before: cuBLAS and cuDNN keep their workspaces by stream."""
    graph = torch.cuda.CUDAGraph()
    # thread_local: allocations of other threads meanwhile neither belong to this graph nor break the recording.
    with torch.cuda.graph(graph, pool, torch.cuda.current_stream(), capture_error_mode="thread_local"):
        results = list(compute(pictures, inputs))
    return Graph(pictures, inputs, results, graph.replay)


@dataclass
class KnownPass:
    """A pass that has run before: how often, after how many runs it is recorded, and its graph once it is."""

    owners: tuple[weakref.ref[object], ...]
    record_after: int
    count: int = 0
    graph: Graph | None = None

    @property
    def is_current(self) -> bool:
        """Whether all tensors that it reads still exist."""
        return all(owner() is not None for owner in self.owners)

    @property
    def is_due(self) -> bool:
        """Whether it has just run often enough to be recorded."""
        return self.graph is None and self.count == self.record_after

    def drop(self) -> None:
        """Drops the graph. Many more runs come before the next: recording costs as much as several runs."""
        self.graph, self.record_after = None, self.count + RECORD_AGAIN_AFTER


class GraphCache:
    """The passes that ran last, and the graphs of those that run often.

    All graphs share one memory pool: a replay may overwrite the memory of another graph, because nothing reads a
    replay's memory after the next replay has begun. So many stylizations of one size take the memory of one. Memory of
    a dropped graph is reused by the next; the device gets it back when all graphs are dropped, which happens when the
    pool exceeds its limit.

    Args:
        device: The CUDA device.
        limit_bytes: Memory that graphs may hold, roughly; 0 records none.
    """

    def __init__(self, device: torch.device, limit_bytes: int) -> None:
        self._device = device
        self._limit = limit_bytes
        self._known: OrderedDict[Hashable, KnownPass] = OrderedDict()
        self._pool: Any = None
        self._bytes = 0

    def __len__(self) -> int:
        """How many passes are known."""
        return len(self._known)

    @property
    def recorded(self) -> int:
        """How many of them are recorded."""
        return len(self._recorded())

    @property
    def is_on(self) -> bool:
        """Whether passes are recorded."""
        return self._limit > 0

    def count(self, shape: tuple[int, ...], key: PassKey) -> KnownPass:
        """Counts one more run of a pass over pictures of a shape, and returns what is known of it."""
        self._drop_orphans()
        # The ids of the owners are unambiguous: while an entry is current, its owners live, so no other object has
        # their ids.
        index = (tuple(shape), key.computation, tuple(id(owner) for owner in key.owners))
        known = self._known.pop(index, None)
        if known is None:
            owners = tuple(weakref.ref(owner) for owner in key.owners)
            known = KnownPass(owners, RECORD_GRADIENT_AFTER if key.is_gradient else RECORD_AFTER)
        known.count += 1
        self._known[index] = known
        self._drop_oldest()
        return known

    def record_if_due(self, known: KnownPass, pictures: Tensor, inputs: tuple[Tensor, ...], compute: Record) -> None:
        """Records a pass that has just run without a graph, if it has run often enough.

        The graph reads copies of the pictures and inputs. Where the recording fails, the pass goes on without a graph.
        """
        if not self._limit or not known.is_due:
            return
        if not self.recorded:
            self._pool, self._bytes = None, 0  # torch takes no pool again whose graphs are all gone
        if self._bytes >= self._limit:
            self.clear()
        torch.cuda.empty_cache()  # as the recording would, so that only what it adds is counted
        before = torch.cuda.memory_reserved(self._device)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            static = tuple(each.clone() for each in inputs)
            known.graph = record_graph(pictures.clone(), static, compute, self._pool)
        except torch.OutOfMemoryError:
            _log.info("no memory to record a pass of %s", tuple(pictures.shape))
            known.drop()
            self.clear()
        except RuntimeError as error:
            # A failed recording leaves CUDA's state undefined, so there is no second attempt.
            _log.warning("CUDA graphs are off: a pass of %s cannot be recorded: %s", tuple(pictures.shape), error)
            self._limit = 0
            self.clear()
        else:
            self._bytes += max(0, torch.cuda.memory_reserved(self._device) - before)

    def clear(self) -> bool:
        """Drops all graphs; returns whether there were any."""
        recorded = self._recorded()
        for known in recorded:
            known.drop()
        self._pool, self._bytes = None, 0
        torch.cuda.empty_cache()
        return bool(recorded)

    def _recorded(self) -> list[KnownPass]:
        return [known for known in self._known.values() if known.graph is not None]

    def _drop_orphans(self) -> None:
        for key in [key for key, known in self._known.items() if not known.is_current]:
            del self._known[key]

    def _drop_oldest(self) -> None:
        while len(self._known) > KNOWN_PASSES:
            self._known.popitem(last=False)
        for known in self._recorded()[:-KEPT_GRAPHS]:
            known.drop()
