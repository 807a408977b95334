"""Whether a picture is like those that a head was trained on.

The distance of a picture is its mean cosine distance to the nearest training pictures in the features of the network
(Sun et al., ICML 2022). Its p-value is the share of training pictures that are at least as far from their own nearest
ones (Bates et al., Annals of Statistics 2023). Of pictures from the same source, 5 % have a p-value of 0.05 or less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEIGHBORS = 10
REFERENCE = 2_000
"""Training pictures that are kept with a head at most: 8 MB of embeddings in half precision."""


def typicality_reference(features: NDArray[Any], rows: NDArray[np.int64], seed: int) -> dict[str, Tensor]:
    """What a head keeps, to judge pictures later.

    Args:
        features: (M, C) features, or activations (M, C, H, W).
        rows: (n,) those of the training pictures.
        seed: Draws the pictures that are kept if there are more than `REFERENCE`.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(rows)[:REFERENCE])
    reference = _unit(features[chosen]).astype(np.float16)
    similar = reference.astype(np.float32) @ reference.T.astype(np.float32)
    np.fill_diagonal(similar, -np.inf)
    distances = np.sort(_distance(similar, len(reference) - 1))
    return {"reference": torch.from_numpy(reference), "distances": torch.from_numpy(distances)}


def typicality(kept: dict[str, Tensor], features: NDArray[Any]) -> NDArray[np.float64]:
    """(N,) p-values, between 0 and 1, of features (N, C) or activations (N, C, H, W)."""
    similar = _unit(features) @ kept["reference"].float().numpy().T
    distances = kept["distances"].numpy()
    further = len(distances) - np.searchsorted(distances, _distance(similar, len(distances)), side="left")
    result: NDArray[np.float64] = (further + 1) / (len(distances) + 1)
    return result


def _unit(features: NDArray[Any]) -> NDArray[np.float32]:
    pooled = np.asarray(features, dtype=np.float32)
    if pooled.ndim == 4:
        pooled = pooled.mean(axis=(2, 3))
    result: NDArray[np.float32] = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
    return result


def _distance(similar: NDArray[np.float32], others: int) -> NDArray[np.float32]:
    """Mean cosine distance to the nearest of `others` pictures, from similarities (N, m)."""
    count = min(NEIGHBORS, others)
    result: NDArray[np.float32] = 1 - np.sort(similar, axis=1)[:, -count:].mean(axis=1)
    return result
