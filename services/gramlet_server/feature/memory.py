"""The memory that work on the network takes at most, from sizes and settings alone. No torch here.

Passes over the network take memory of the process where the network is on the CPU. On another device they take that
device's, and only what is copied to the CPU counts. The factors were measured, and `tests/feature/test_memory.py`
compares them with the peaks of processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from gramlet.feature.descent_types import DescentSettings, Optimizer
from gramlet.feature.types import Objective

from gramlet_server.backbone.architecture import Architecture
from gramlet_server.process.allocator import ALLOCATOR
from gramlet_server.process.memory_budget import PROCESS, Budget, OneAtATime, Place

Found = TypeVar("Found", Place, Place | None)

HISTORY_BYTES = 2**30
"""The most memory for the history of L-BFGS, which a state contains: 42 pairs at 1 megapixel, 3 pairs at 12."""

_FLOAT = 4
_VECTORS = 14
"""Tensors like the picture that a descent holds beside its history, such as the gradient and the best point."""
_UNUSED_BYTES, _UNUSED_SHARE = 512 * 2**20, 0.25
"""So much of what was freed stays, also where the budget is nearly used up; a share of the budget in little memory."""
_LOOK_SECONDS = 0.05
"""How often to look at what was freed, for small passes: to look costs as much as to resize a picture."""
_ROOMY = 0.5
"""Share of the budget for a pass with such blocks. A pass that would take more has its large blocks mapped."""
_TILE_SHARE = 0.6
"""Share of the budget for a gradient at one tile."""
_SUSPENDED_SHARE = 0.3
"""Share of the budget for a gradient that is suspended: the gradient at a tile can still run beside it."""
_MOST_TILE_PIXELS = 2 * 2**20


@dataclass(frozen=True)
class _Factors:
    """Measured peaks of passes (`python tests/bench/bench_reserved.py`, docs/operations.md).

    Attributes:
        on_device: Of a forward pass, in tensors as large as the largest stage's, without what a CPU adds.
        first: Of one to the first stage, in tensors as large as that.
        stem: Of one to the stages before the first residual one, in the same.
        forward: Of one beyond, in tensors as large as the largest stage's from there on.
        scattered: How much more that is where freed blocks are kept (`allocator`).
        kept: Of a forward pass that keeps its stages, in sums of them, beside the pass.
        gradient: Of a forward and a backward pass, in sums of the first stages.
        later: The same, for the stages after those.
    """

    on_device: float
    first: float
    stem: float
    forward: float
    scattered: float
    kept: float
    gradient: float
    later: float


_RESIDUAL = _Factors(3.5, 1.85, 2.6, 4.5, 1.22, 2.0, 8.6, 3.6)
_PLAIN = _Factors(2.4, 2.4, 2.4, 2.4, 1.35, 1.0, 4.25, 1.9)
_FIRST_STAGES = 3
_FORWARD_BYTES, _GRADIENT_BYTES = 2**24, 192 * 2**20
"""What passes take of any size: oneDNN's scratch, and the weights in formats that a new size may need, both ways."""
_FIXED_SHARE = 0.1
"""Share of the budget for that, at most: a small server can still compute small pictures."""


def pass_bytes(architecture: Architecture) -> float:
    """Bytes that a forward pass through the whole network takes for each pixel of its pictures."""
    largest = max(_stage_bytes(architecture, stage.name, False) for stage in architecture.stages)
    return _factors_of(architecture).on_device * largest


def _factors_of(architecture: Architecture) -> _Factors:
    return _RESIDUAL if architecture.name.startswith("resnet") else _PLAIN


def _stage_bytes(architecture: Architecture, stage: str, antialiased: bool) -> float:
    """Bytes of a stage's activations for each pixel of the picture."""
    stride = architecture.stride(stage, antialiased)
    return _FLOAT * architecture.stage(stage).channels / stride**2 if stride else 0


class PassMemory:
    """What passes over a network take, and room for it: for the largest one that runs or waits.

    There is a second such room for passes that are suspended while others run: for the largest one of these.

    Args:
        architecture: The network.
        on_cpu: Whether the network is on the CPU.
        budget: Of the process.
    """

    def __init__(self, architecture: Architecture, on_cpu: bool, budget: Budget = PROCESS) -> None:
        self._architecture = architecture
        self._factors = _factors_of(architecture)
        self.on_cpu = on_cpu
        self._budget = budget
        self._room = OneAtATime(budget)
        self._suspended = OneAtATime(budget)
        self._looks_again = 0.0
        self._forward = lru_cache(self._measured_forward)

    @property
    def tile_pixels(self) -> int:
        """Pixels of a tile whose gradient leaves room for other work."""
        if not self.on_cpu or math.isinf(self._budget.limit):
            return _MOST_TILE_PIXELS
        deepest = [stage.name for stage in self._architecture.stages if stage.stride][-1]
        return min(_MOST_TILE_PIXELS, int(_TILE_SHARE * self._budget.limit / self._gradient([deepest], True)))

    def extraction(self, pixels: int, stages: Collection[str], field: str) -> Place:
        """Room for a pass over so many pixels, each stage of which is read and freed before the next.

        Raises:
            InvalidInput: It would take more memory than the server has.
            Overloaded: There is no room now.
        """
        return self._place(*self._extraction(pixels, stages), field)

    def suspended(self, pixels: int, stages: Collection[str]) -> Place | None:
        """Room for such a pass that is suspended while others run. None: there is none now."""
        return self._placed(*self._extraction(pixels, stages), self._suspended.try_to_take)

    def targets(self, pixels: int, stages: Collection[str], antialiased: bool, field: str) -> Place:
        """Room for a pass over so many pixels that keeps all stages until its end. Errors as for `extraction`."""
        kept = self._factors.kept * sum(self._stage(stage, antialiased) for stage in stages)
        tight, scattered = (self._fixed + pixels * (each + kept) for each in self._forward(tuple(stages), antialiased))
        return self._place(tight, scattered, field)

    def gradient(self, pixels: int, stages: Collection[str], antialiased: bool, field: str) -> Place:
        """Room for a gradient at so many pixels. Errors as for `extraction`."""
        size = self._fixed + pixels * self._gradient(stages, antialiased)
        return self._place(size, size, field)

    def suspended_gradient(self, pixels: int, stages: Collection[str], antialiased: bool) -> Place | None:
        """Room for such a pass that is suspended while others run. None: there is none now, or little would be left.

        A descent keeps it until its end.
        """
        size = self._fixed + pixels * self._gradient(stages, antialiased)
        if size > _SUSPENDED_SHARE * self._budget.limit:
            return None
        return self._placed(size, size, self._suspended.try_to_take)

    def kept_targets(self, objective: Objective) -> int:
        """Bytes of the targets of an objective: activations of its content, Gram matrices of its styles."""
        if not self.on_cpu:
            return 0
        architecture, count = self._architecture, 0
        if objective.content is not None and objective.content_weight:
            _, height, width = objective.content.shape
            channels, rows, columns = architecture.activation_shape(
                objective.content_stage, height, width, objective.antialiased
            )
            count += channels * rows * columns
        for stage in objective.style_stages:
            count += (2 * len(objective.styles) + 2) * architecture.stage(stage).channels ** 2
        return _FLOAT * count

    def _place(self, tight: float, scattered: float, field: str) -> Place:
        return self._placed(tight, scattered, lambda count: self._room.take(count, field))

    def _placed(self, tight: float, scattered: float, take: Callable[[int], Found]) -> Found:
        """Room for a pass, by what it takes where large blocks are mapped one by one, and where they are kept."""
        if not self.on_cpu:
            return take(0)
        if scattered <= _ROOMY * self._budget.limit:
            place = take(int(scattered))
        elif (place := take(int(tight))) is not None:
            ALLOCATOR.map_large_blocks()
            place.at_end(ALLOCATOR.stop_mapping)
        self._trim(tight)
        return place

    def _trim(self, size: float) -> None:
        """Returns what was freed, if it is much: a pass does not always fit between the blocks that are in use."""
        now = time.monotonic()
        if math.isinf(self._budget.limit) or (size < _UNUSED_BYTES and now < self._looks_again):
            return
        self._looks_again = now + _LOOK_SECONDS
        unused = ALLOCATOR.freed_bytes()
        most = min(_UNUSED_BYTES, _UNUSED_SHARE * self._budget.limit)
        if unused > most and self._budget.reserved + unused > self._budget.limit:
            ALLOCATOR.trim()

    @property
    def _fixed(self) -> float:
        return min(_GRADIENT_BYTES, _FIXED_SHARE * self._budget.limit)

    def _extraction(self, pixels: int, stages: Collection[str]) -> tuple[float, float]:
        tight, scattered = self._forward(tuple(stages), False)
        return _FORWARD_BYTES + pixels * tight, _FORWARD_BYTES + pixels * scattered

    def _measured_forward(self, stages: tuple[str, ...], antialiased: bool) -> tuple[float, float]:
        """Bytes for each pixel of the picture, where large blocks are mapped and where they are kept."""
        names, factors = self._until(stages), self._factors
        first = self._stage(names[0], antialiased) * (factors.first if len(names) == 1 else factors.stem)
        rest = factors.forward * max((self._stage(name, antialiased) for name in names[2:]), default=0.0)
        return max(first, rest), max(first, factors.scattered * rest)

    def _gradient(self, stages: Collection[str], antialiased: bool) -> float:
        """Bytes for each pixel of the picture."""
        sizes = [self._stage(stage, antialiased) for stage in self._until(stages)]
        first, later = sum(sizes[:_FIRST_STAGES]), sum(sizes[_FIRST_STAGES:])
        return self._factors.gradient * first + self._factors.later * later

    def _stage(self, stage: str, antialiased: bool) -> float:
        return _stage_bytes(self._architecture, stage, antialiased)

    def _until(self, stages: Collection[str]) -> list[str]:
        """All stages up to the last of those."""
        names = [stage.name for stage in self._architecture.stages]
        return names[: 1 + max((names.index(stage) for stage in stages), default=0)]


def history_pairs(settings: DescentSettings, size: int) -> int:
    """The pairs of vectors that L-BFGS remembers for points of so many numbers."""
    return max(1, min(settings.history_size, HISTORY_BYTES // (2 * _FLOAT * size)))


def state_bytes(settings: DescentSettings, size: int, iterations: int) -> int:
    """Bytes of a state at most.

    Args:
        settings: How the optimizer steps.
        size: Numbers of a point.
        iterations: How many the descent has, counted from its first one.
    """
    pairs = 1 if settings.optimizer is not Optimizer.LBFGS else min(history_pairs(settings, size), iterations)
    return _FLOAT * size * (2 * pairs + 5)


def descent_bytes(settings: DescentSettings, size: int, iterations: int, on_cpu: bool) -> int:
    """Bytes of a descent at most, beside its passes: its vectors, its history, and the copy of both in a state."""
    state = state_bytes(settings, size, iterations)
    return state + (state + _VECTORS * _FLOAT * size if on_cpu else 0)
