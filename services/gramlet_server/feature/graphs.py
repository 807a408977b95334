"""Passes that repeat, recorded as CUDA graphs.

The hundreds of kernels of a small picture's gradient cost more to launch one by one than to run. A graph launches them
all at once. Only the device thread uses this module.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_log = logging.getLogger(__name__)

Compute = Callable[[Tensor], Iterable[Tensor]]
"""From a batch of pictures (N, 3, H, W) to the results of a pass, each as soon as it is computed. It must not wait for
the device: no `float(tensor)`, no copy from or to the CPU."""

RECORD_AFTER = 8
"""A pass is recorded once it has run this often."""
RECORD_OWNED_AFTER = 2
"""The same for passes that read targets: a stylization repeats them hundreds of times."""
KNOWN_PASSES = 256
"""Passes that are counted at once."""
KEPT_GRAPHS = 32
"""Graphs that are kept at once."""


@dataclass(frozen=True)
class PassKey:
    """Identifies a computation, so that its next pass over other pictures is recognized.

    Attributes:
        computation: Passes with equal values here, over pictures of one shape, run the same kernels.
        owners: Objects that hold the tensors which the pass reads beside the pictures, such as targets. While they live
            the tensors keep their addresses; once one is gone the pass cannot repeat.
    """

    computation: Hashable
    owners: tuple[object, ...] = ()


@dataclass(frozen=True)
class Graph:
    """A recorded pass. It reads its pictures from, and writes its results to, the same memory every time."""

    pictures: Tensor
    results: list[Tensor]
    launch: Callable[[], None]

    def replay(self, pictures: Tensor) -> list[Tensor]:
        """The results for these pictures. They are valid until the next replay of any graph."""
        self.pictures.copy_(pictures, non_blocking=True)
        self.launch()
        return self.results


def record_graph(pictures: Tensor, compute: Compute, pool: Any) -> Graph:
    """Records a pass on the current stream, where it ran before: cuBLAS and cuDNN keep their workspaces by stream."""
    graph = torch.cuda.CUDAGraph()
    # thread_local: allocations of other threads meanwhile neither belong to this graph nor break the recording.
    with torch.cuda.graph(graph, pool, torch.cuda.current_stream(), capture_error_mode="thread_local"):
        results = list(compute(pictures))
    return Graph(pictures, results, graph.replay)


@dataclass
class KnownPass:
    """A pass that has run before: how often, and its graph once it is recorded."""

    owners: tuple[weakref.ref[object], ...]
    count: int = 0
    graph: Graph | None = None

    @property
    def is_current(self) -> bool:
        """Whether all tensors that it reads still exist."""
        return all(owner() is not None for owner in self.owners)

    @property
    def is_due(self) -> bool:
        """Whether it has just run often enough to be recorded."""
        return self.graph is None and self.count == (RECORD_OWNED_AFTER if self.owners else RECORD_AFTER)


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

    def count(self, shape: tuple[int, ...], key: PassKey) -> KnownPass:
        """Counts one more run of a pass over pictures of a shape, and returns what is known of it."""
        self._drop_orphans()
        # The ids of the owners are unambiguous: while an entry is current, its owners live, so no other object has
        # their ids.
        index = (tuple(shape), key.computation, tuple(id(owner) for owner in key.owners))
        known = self._known.pop(index, None) or KnownPass(tuple(weakref.ref(owner) for owner in key.owners))
        known.count += 1
        self._known[index] = known
        self._drop_oldest()
        return known

    def record_if_due(self, known: KnownPass, pictures: Tensor, compute: Compute) -> None:
        """Records a pass that has just run without a graph, if it has run often enough.

        Where that fails, the pass goes on to run without a graph.
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
            known.graph = record_graph(pictures, compute, self._pool)
        except torch.OutOfMemoryError:
            _log.info("no memory to record a pass of %s", tuple(pictures.shape))
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
            known.graph = None
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
            known.graph = None
