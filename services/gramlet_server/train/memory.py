"""The memory that training, predicting and exporting take at most, from sizes and settings alone.

The factors were measured: `python tests/bench/bench_reserved.py train export`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from gramlet.train.configuration import TRAIN, Entry, HeadKind, Optimizer, Recipe
from gramlet.train.types import Head
from torch import Tensor

from gramlet_server.backbone.architecture import Architecture
from gramlet_server.train import findings, labels
from gramlet_server.train.arrays import BLOCK_ELEMENTS
from gramlet_server.train.classifier import EMBEDDING, HIDDEN
from gramlet_server.train.data import TrainingData
from gramlet_server.train.folds import fold_count
from gramlet_server.train.optimizers import is_full_batch

_FLOAT = 4
_FIXED = 96 * 2**20
_LBFGS_HISTORY = 2 * 100
_MOMENTS = {Optimizer.ADAMW: 2, Optimizer.SGD: 1, Optimizer.LBFGS: _LBFGS_HISTORY}
"""Copies of the weights in the state of an optimizer."""
_BATCH_COPIES = 6
"""Of a batch's embeddings, in a head: their powers, and what the gradient needs."""
_STAGE_COPIES = 4.0
"""Of a batch's activations, in stages that are trained: outputs of convolutions, batch norms and ReLUs."""
_WHITENING_BYTES = 7 * 8
"""Bytes for each number of the sample that is whitened: the sample in double precision, and its decomposition. The
centered embeddings of fewer pictures take less."""
_NEIGHBOR_BYTES = 32
"""For each neighbor that is remembered of a picture."""
_COMPARED_BYTES = 21
"""For each pair of pictures that are compared at once: the cosine, its negative, its position in the order, a flag."""
_LOADED_COPIES = 3
"""Of the weights of a head, while it is loaded: its file, its tensors and its modules."""
_EXPORT_COPIES = 6
"""Of the weights in an ONNX file: modules, torch's graph, the messages and their bytes."""


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """What they take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def late_bytes(weights: Mapping[str, Tensor], stages: Iterable[str]) -> int:
    """What the weights of these stages take."""
    return bytes_of(tensor for name, tensor in weights.items() if name.startswith(tuple(f"{s}." for s in stages)))


def fit_bytes(recipe: Recipe, data: TrainingData, late: int, network: Architecture, size: int, *, resumed: bool) -> int:
    """Bytes of a training by one recipe, on a CPU.

    Args:
        recipe: How to train.
        data: What to train on.
        late: Bytes of the weights of the stages that it unfreezes.
        network: Whose stages they are.
        size: Side of the square that the network sees, in pixels.
        resumed: Whether it begins with a checkpoint.
    """
    samples = data.embeddings[TRAIN]
    channels, rows = int(samples.array.shape[1]), len(samples)
    models = 1 + (data.folds or fold_count(len(data.picture_labels), unfrozen=bool(recipe.stages)))
    weights = late + _FLOAT * _head_numbers(recipe, channels, len(data.classes))
    moments = _LBFGS_HISTORY if is_full_batch(recipe) else _MOMENTS[recipe.optimizer]
    # Weights, the optimizer's state, and the best weights so far of all models; gradients of one.
    trained = weights * (models * (2 + moments) + 1)
    in_batch = rows if is_full_batch(recipe) else min(recipe.batch_size, rows)
    batch = _BATCH_COPIES * _FLOAT * in_batch * channels
    if recipe.stages:
        batch += in_batch * _sample_bytes(network, recipe.stages, size)
    checkpoint = trained * (2 if resumed else 1)
    return _FIXED + late + trained + max(batch, checkpoint)


def _head_numbers(recipe: Recipe, channels: int, classes: int) -> int:
    if recipe.kind is HeadKind.MLP:
        return HIDDEN * (channels + classes + 5) + classes
    return classes * (channels + 1)


def _sample_bytes(network: Architecture, stages: Iterable[str], size: int) -> int:
    """What one picture takes in a batch of stages that are trained."""
    numbers = 0
    for stage in stages:
        channels, height, width = network.activation_shape(stage, size, size)
        numbers += channels * height * width
    return int(_STAGE_COPIES * _FLOAT * numbers)


def findings_bytes(entries: Sequence[Entry], network: Architecture) -> int:
    """Bytes of the search for near-copies and for wrong labels: its largest step, with the embeddings copied for it.

    Args:
        entries: The whole data set.
        network: Whose embeddings are compared.
    """
    pictures, channels = len(entries), network.stage(EMBEDDING).channels
    classes = len({entry.label for entry in entries})
    compared = _COMPARED_BYTES * min(BLOCK_ELEMENTS, pictures * pictures)
    whitening = _WHITENING_BYTES * min(findings.SAMPLE, pictures) * channels
    copies = compared + 2 * _FLOAT * pictures * findings.COMPONENTS
    votes = pictures * (_NEIGHBOR_BYTES * labels.SPARE * labels.NEIGHBORS + 2 * 8 * classes)
    suspects = compared + _FLOAT * min(labels.REFERENCE, pictures) * channels + votes
    return _FLOAT * pictures * channels + max(whitening, copies, suspects)


def loading_bytes(head: int, late: int) -> int:
    """Bytes that it takes to load a head.

    Args:
        head: Bytes of its file.
        late: Bytes of the network's weights of the stages that were trained.
    """
    return _LOADED_COPIES * (head + late)


def judging_bytes(pictures: int, network: Architecture, head: Head) -> int:
    """Bytes that it takes a head to judge so many pictures, from the features of which it starts."""
    numbers = math.prod(network.activation_shape(head.feature_stage, head.size, head.size))
    return pictures * (2 * _FLOAT * numbers + _sample_bytes(network, head.stages, head.size))


def export_bytes(network: int, head: int) -> int:
    """Bytes that it takes to make an ONNX file.

    Args:
        network: Bytes of the network's weights in the file.
        head: Bytes of the head's file, which has the differences of the stages that were trained.
    """
    return _EXPORT_COPIES * (network + head)
