"""Whether a picture is like those that a head was trained on.

The distance of a picture is its mean cosine distance to the nearest training pictures in the features of the network
(Sun et al., ICML 2022). Its p-value is the share of training pictures that are at least as far from their own nearest
ones (Bates et al., Annals of Statistics 2023). Of pictures from the same source, 5 % have a p-value of 0.05 or less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gramlet_server.train.arrays import Floats, Labels

NEIGHBORS = 10
REFERENCE = 2_000
"""Training pictures that are kept with a head at most: 8 MB of embeddings in half precision."""


def typicality_reference(features: NDArray[Any], rows: Labels, seed: int) -> dict[str, Tensor]:
    """What a head keeps, to judge pictures later.

    Args:
        features: (M, C) features, or activations (M, C, H, W).
        rows: (n,) those of the training pictures.
        seed: Draws the pictures that are kept if there are more than `REFERENCE`.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(rows)[:REFERENCE])
    reference = _unit(torch.from_numpy(np.asarray(features[chosen], dtype=np.float32))).half()
    similar = reference.float() @ reference.float().T
    similar.fill_diagonal_(-torch.inf)
    distances = _distance(similar, len(reference) - 1)
    return {"reference": reference, "distances": distances.sort().values}


def typicality(kept: Mapping[str, Tensor], features: NDArray[Any]) -> Floats:
    """(N,) p-values of features (N, C) or activations (N, C, H, W), as `Typicality` gives them."""
    with torch.inference_mode():
        found = Typicality(kept)(torch.from_numpy(np.asarray(features, dtype=np.float32)))
    result: Floats = found.double().numpy()
    return result


class Typicality(nn.Module):
    """(N, C) features, or (N, C, H, W) activations, → (N,) p-values above 0 and at most 1.

    Args:
        kept: From `typicality_reference`.
    """

    reference: Tensor
    distances: Tensor

    def __init__(self, kept: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("reference", kept["reference"])  # (m, C), unit vectors in half precision
        self.register_buffer("distances", kept["distances"])  # (m,), sorted

    def forward(self, x: Tensor) -> Tensor:
        """The p-values of a batch."""
        count = len(self.distances)
        distance = _distance(_unit(x) @ self.reference.float().T, count)
        further = (self.distances >= distance[:, None]).sum(dim=1)
        return (further + 1) / (count + 1)


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features.mean(dim=(2, 3)) if features.ndim == 4 else features, dim=1)


def _distance(similar: Tensor, others: int) -> Tensor:
    """(N,) mean cosine distance to the nearest of `others` pictures, from similarities (N, m)."""
    return 1 - similar.topk(min(NEIGHBORS, others), dim=1).values.mean(dim=1)
