"""What may be wrong with a data set, and what the figures about a head cannot tell."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from gramlet.errors import counted, quoted
from gramlet.inputs.values import lookalikes
from gramlet.train.configuration import OUT_OF_FOLD, TRAIN, ClassWeights, Entry
from gramlet.train.types import Duplicate, NearDuplicate, Outcome
from numpy.typing import NDArray
from scipy import stats
from sklearn.decomposition import PCA

from gramlet_server.train.arrays import Floats, Labels, blocks

# Near-copies, chosen by measurement: tests/quality/heads.py.
WHITENED_FROM = 100
"""Fewer pictures cannot tell the directions in which pictures differ, so their embeddings are only centered."""
COMPONENTS = 128
SIMILAR, SIMILAR_CENTERED = 0.7, 0.85
"""Least cosine of two near-copies: of whitened and of centered embeddings."""
CLOSER = 0.55
"""A copy is at most this share of the distance away at which a picture has its `NEIGHBOR`-th nearest picture."""
NEIGHBOR = 5
ROUNDING = 1e-5
"""Pictures with the same pixels are no farther from each other, however many there are."""
SAMPLE = 5_000
_TAKEN = -2.0
"""In place of the cosine of a neighbor that was found; less than any cosine."""

FEW_PICTURES = 10
"""A class with fewer is named in a warning."""
WIDE = 0.1
"""An interval of an accuracy that is wider than this is named in a warning."""
IMBALANCE = 3.0
"""The classes are imbalanced if the largest has so many times the pictures of the smallest."""
SAME = 0.05
"""Recipes whose accuracies differ with at least this p-value cannot be told apart."""


def duplicates(entries: Sequence[Entry]) -> tuple[list[Entry], tuple[Duplicate, ...]]:
    """Removes copies of pictures, byte for byte: the later copies, or all copies if their labels differ.

    Otherwise a head could be evaluated on pictures that it was trained on. Entries must have their `sha256`.

    Returns:
        The entries that are kept, and the copies.
    """
    labels = defaultdict(set)
    for entry in entries:
        labels[entry.sha256].add(entry.label)
    first: dict[str, Entry] = {}
    kept, found = [], []
    for entry in entries:
        earlier = first.setdefault(entry.sha256, entry)
        conflicting = len(labels[entry.sha256]) > 1
        if earlier is not entry:
            found.append(Duplicate(entry.name, earlier.name, conflicting))
        elif not conflicting:
            kept.append(entry)
    return kept, tuple(found)


def near_duplicates(entries: Sequence[Entry], embeddings: NDArray[np.float32]) -> tuple[NearDuplicate, ...]:
    """Pairs of pictures that are copies of each other in another size, crop, mirror or compression.

    Two pictures are a pair if the cosine of their whitened embeddings is high, and if they are much nearer to each
    other than the fifth nearest picture is to either. The second test keeps apart the pictures of a class that the
    network sees as one. Of pictures that are exactly alike, each is paired with five at most.

    Args:
        entries: The pictures.
        embeddings: (n, C), in the order of the entries.
    """
    points, least = _directions(embeddings)
    count = len(points)
    neighbor = min(NEIGHBOR, count - 1)
    pairs: dict[tuple[int, int], float] = {}
    rim = np.ones(count)  # the distance 1 - cosine of the fifth nearest picture
    for block in blocks(count, count):
        similar = _cosines(points, block)
        rows = np.arange(len(similar))
        # A pair is among the nearest of one of its pictures, by the second test. So a few for each picture are enough,
        # however alike all pictures are. Of equals argmax takes the first, which then ties all of them together.
        for _ in range(neighbor):
            nearest = similar.argmax(axis=1)
            cosines = similar[rows, nearest]
            for row in np.flatnonzero(cosines >= least):
                one, other = sorted((block.start + int(row), int(nearest[row])))
                pairs[one, other] = float(cosines[row])
            rim[block] = 1 - cosines
            similar[rows, nearest] = _TAKEN
    found = [
        NearDuplicate(
            name=entries[b].name,
            set=entries[b].set,
            first=entries[a].name,
            first_set=entries[a].set,
            similarity=min(similarity, 1.0),
            conflicting=entries[a].label != entries[b].label,
        )
        for (a, b), similarity in pairs.items()
        if 1 - similarity <= max(CLOSER * max(rim[a], rim[b]), ROUNDING)
    ]
    return tuple(sorted(found, key=lambda pair: (-pair.similarity, pair.name, pair.first)))


def _directions(embeddings: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Unit vectors (n, c) whose cosine tells near-copies, and the least cosine of a pair."""
    count, channels = embeddings.shape
    if count < WHITENED_FROM:
        points = np.asarray(embeddings, dtype=np.float64)
        return _unit(points - points.mean(axis=0)), SIMILAR_CENTERED
    sample = np.asarray(embeddings[:: -(-count // SAMPLE)], dtype=np.float64)
    components = min(COMPONENTS, count // 3, channels)
    whitening = PCA(components, whiten=True, svd_solver="full", copy=False).fit(sample)
    del sample
    found = np.empty((count, components), np.float32)
    for block in blocks(count, channels):
        found[block] = _unit(whitening.transform(np.asarray(embeddings[block], dtype=np.float64)))
    return found, SIMILAR


def _unit(points: Floats) -> NDArray[np.float32]:
    result: Floats = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    return result.astype(np.float32)


def _cosines(points: NDArray[np.float32], block: slice) -> NDArray[np.float32]:
    """(block, n) of the pictures of a block with all of them; -1 for a picture with itself."""
    similar: NDArray[np.float32] = points[block] @ points.T
    here = np.arange(len(similar))
    similar[here, block.start + here] = -1
    return similar


def copy_groups(entries: Sequence[Entry], pairs: Sequence[NearDuplicate]) -> Labels:
    """(n,) the same number for entries that are near-copies of each other, directly or through others."""
    position = {entry.name: number for number, entry in enumerate(entries)}
    groups = np.arange(len(entries))
    for pair in pairs:
        if pair.name in position and pair.first in position:
            a, b = groups[position[pair.name]], groups[position[pair.first]]
            groups[groups == max(a, b)] = min(a, b)
    return groups


def warnings(outcome: Outcome, counts: Mapping[str, int], pairs: Sequence[NearDuplicate]) -> list[str]:
    """What a reader of the figures should know, as sentences.

    Args:
        outcome: Of the recipe that was kept.
        counts: Training pictures of each class.
        pairs: Near-copies.
    """
    return [
        *_about_size(outcome, counts),
        *_about_balance(outcome, counts),
        *_about_leaks(pairs),
        *lookalikes(counts),
    ]


def told_apart(labels: Labels, kept: Floats, other: Floats) -> float:
    """The p-value of McNemar's exact test that two recipes are equally accurate, from logits (n, classes)."""
    right, other_right = kept.argmax(axis=1) == labels, other.argmax(axis=1) == labels
    wins, losses = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def _about_size(outcome: Outcome, counts: Mapping[str, int]) -> list[str]:
    few = [f"{quoted(label)} ({count})" for label, count in counts.items() if count < FEW_PICTURES]
    found = []
    if few:
        more = f" and {len(few) - 3} more" if len(few) > 3 else ""
        found.append(f"few training pictures in class {', '.join(few[:3])}{more}: what is reported on them is vague")
    for item in outcome.reports:
        if item.accuracy_high - item.accuracy_low > WIDE:
            what = "out-of-fold predictions" if item.set == OUT_OF_FOLD else f"set {item.set}"
            found.append(
                f"the accuracy of the {what} is uncertain: {item.accuracy_low:.0%} to {item.accuracy_high:.0%} "
                f"(95 %), from {counted(item.pictures, 'picture')}"
            )
    return found


def _about_balance(outcome: Outcome, counts: Mapping[str, int]) -> list[str]:
    (large, most), (small, least) = Counter(counts).most_common()[0], Counter(counts).most_common()[-1]
    if most < IMBALANCE * least:
        return []
    weighted = outcome.recipe.class_weights is not ClassWeights.NONE
    advice = "classes were weighted, so that each counts the same" if weighted else "use class weights `balanced`"
    sizes = f"{counted(most, 'picture')} of {quoted(large)}, {least} of {quoted(small)}"
    return [f"imbalanced classes: {sizes}; {advice}. See the recall of each"]


def _about_leaks(pairs: Sequence[NearDuplicate]) -> list[str]:
    found = []
    leaks = [{pair.set, pair.first_set} - {TRAIN} for pair in pairs if TRAIN in (pair.set, pair.first_set)]
    across = Counter(name for names in leaks for name in names)
    for name, count in sorted(across.items()):
        copies = (
            "1 near-copy of a training picture is" if count == 1 else f"{count} near-copies of training pictures are"
        )
        found.append(f"{copies} in set {name}: its report is too good if they are copies")
    if conflicting := sum(pair.conflicting for pair in pairs):
        found.append(f"pairs of near-copies with two labels: {conflicting}; if they are copies, one label is wrong")
    return found
