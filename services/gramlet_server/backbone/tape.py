"""A forward pass that is kept for its gradient, which is computed part by part: other work may run in between."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping

import torch
from torch import Tensor


class Tape:
    """A forward pass from pictures to stages, in parts. It can be differentiated once.

    Args:
        starts: What each part is computed from, with the name of its stage; empty where it is none. The first are the
            pictures, which require a gradient. Each other start is the end of the part before.
        ends: The stages that the last part leads to.
    """

    def __init__(self, starts: list[tuple[str, Tensor]], ends: Mapping[str, Tensor]) -> None:
        self._starts = starts
        self._ends = ends

    @classmethod
    def record(cls, pictures: Tensor, computed: Iterable[tuple[str, Tensor]]) -> Generator[None, None, Tape]:
        """Keeps the parts of a pass over pictures, as `Network.by_part` yields them; yields after each."""
        path = [("", pictures)]
        for stage, tensor in computed:
            if stage:
                path[-1] = stage, tensor
                continue
            path.append(("", tensor))
            yield
        *starts, end = path
        return cls(starts, dict([end]))

    def activations(self) -> dict[str, Tensor]:
        """(N, C, H', W') of each stage. They require a gradient, and have no graph back to the pictures."""
        found = [*self._starts, *self._ends.items()]
        return {stage: tensor.detach().requires_grad_() for stage, tensor in found if stage}

    def gradient(self, upstream: dict[str, Tensor]) -> Generator[None, None, Tensor]:
        """The gradient with respect to the pictures (N, 3, H, W); yields after each part.

        The bits are those of one backward pass through all parts. That adds the gradient of a loss at a stage before
        those of the layers that follow, so it is given to the part that starts there.

        Args:
            upstream: The gradient with respect to the activations of each stage. It is emptied.
        """
        ends, given = list(self._ends.values()), [upstream.pop(stage) for stage in self._ends]
        self._ends = {}
        while self._starts:
            stage, start = self._starts.pop()
            if stage:
                ends.append(start)
                given.append(upstream.pop(stage))
            (found,) = torch.autograd.grad(ends, start, given)
            ends, given = [start], [found]
            yield
        return given[0]
