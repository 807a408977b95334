"""The settings of a map: plain frozen dataclasses. The defaults here are the service's defaults."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gramlet.types import Resize, ResizeMode

DEFAULT_RESIZE = Resize(ResizeMode.CENTER_CROP, 224)
"""Every picture gets the shape that the network was trained on."""


class Preset(Enum):
    """A named choice of settings: none, or the flattened Grams of four early stages as they are."""

    NONE = "none"
    CLASSIC = "classic"


class Descriptor(Enum):
    """What represents an item when items are compared: Gram matrices, pooled activations, or a vector sent with it."""

    GRAM = "gram"
    POOLED = "pooled"
    VECTOR = "vector"


class Metric(Enum):
    """The distance between two descriptors x and y.

    EUCLIDEAN is |x - y|; COSINE is |x/|x| - y/|y||, the chord between directions; CORRELATION is COSINE after the mean
    of each descriptor's elements is taken off.
    """

    EUCLIDEAN = "euclidean"
    COSINE = "cosine"
    CORRELATION = "correlation"


class Exactness(Enum):
    """Distances from every element, from random sketches, or the server's choice between the two."""

    AUTO = "auto"
    EXACT = "exact"
    SKETCH = "sketch"


class Method(Enum):
    """How descriptors become coordinates."""

    TSNE = "tsne"
    PCA = "pca"
    UMAP = "umap"
    ISOMAP = "isomap"
    MDS = "mds"
    LLE = "lle"


class Gradient(Enum):
    """How the repulsion of t-SNE is computed: all pairs, a tree of cells, a grid, or the fastest of these."""

    AUTO = "auto"
    EXACT = "exact"
    BARNES_HUT = "barnes-hut"
    INTERPOLATION = "interpolation"


@dataclass(frozen=True)
class Tsne:
    """What t-SNE needs to know.

    Attributes:
        perplexities: One layout for each. A single perplexity can mislead.
        iterations: Those of the early exaggeration included.
        early_exaggeration: Factor of the attraction in the first phase.
        early_iterations: Iterations of the first phase.
        learning_rate: Step length; None: items / exaggeration (Belkina et al., 2019).
        angle: Of Barnes-Hut, 0 to 1; smaller is more exact.
        gradient: How the repulsion is computed.
    """

    perplexities: tuple[float, ...] = (30.0,)
    iterations: int = 750
    early_exaggeration: float = 12.0
    early_iterations: int = 250
    learning_rate: float | None = None
    angle: float = 0.5
    gradient: Gradient = Gradient.AUTO


@dataclass(frozen=True)
class MapSettings:
    """What map to make.

    Attributes:
        descriptor: What represents an item.
        stages: Of the network, for Grams and pooled activations. Empty: the network's own.
        resize: Applied to every picture before the network sees it.
        balance_stages: Scale each stage's part of each descriptor to length 1. Several stages count the same then;
            otherwise the one with the largest values dominates. With one stage, distances are cosine distances.
        metric: The distance between descriptors.
        exactness: How exactly distances are computed.
        sketch_size: Elements of a sketch; None: 4096, and less for more than 16,384 items.
        method: How descriptors become coordinates.
        dimensions: Of the map: 1, 2 or 3.
        tsne: For Method.TSNE.
        neighbors: Of UMAP, Isomap and LLE.
        seed: Of everything random. Same seed, same items, same map.
        quality_neighbors: Neighborhood of the quality measures.
        preset: CLASSIC sets the descriptor to GRAM, the metric to EUCLIDEAN and balance_stages to False, and the
            stages unless some are given.
        compare: Also compare other descriptors of the same pictures by the labels of the items.
    """

    descriptor: Descriptor = Descriptor.GRAM
    stages: tuple[str, ...] = ()
    resize: Resize = DEFAULT_RESIZE
    balance_stages: bool = True
    metric: Metric = Metric.EUCLIDEAN
    exactness: Exactness = Exactness.AUTO
    sketch_size: int | None = None
    method: Method = Method.TSNE
    dimensions: int = 2
    tsne: Tsne = Tsne()
    neighbors: int = 15
    seed: int = 0
    quality_neighbors: int = 10
    preset: Preset = Preset.NONE
    compare: bool = False
