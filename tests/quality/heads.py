"""Heads on real pictures beside scikit-learn and torch on the same features: the tables of docs/heads.md.

    python -m tests.quality.heads hymenoptera=DIR flowers=DIR drawn:renditions --out heads.md

Sets are given as tests.quality.sets says. Features are extracted once and kept in --cache. A minute or two for each
part on a set of 400 pictures, on one core; much longer for unfrozen stages (tests/quality/stages.py).
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gramlet.train.configuration import ClassWeights, Entry, HeadKind
from gramlet.train.types import Findings
from gramlet_server.train import calibration, comparison, findings, report
from gramlet_server.train.data import Prepared
from gramlet_server.train.labels import mislabelled
from gramlet_server.train.typicality import typicality as p_values
from gramlet_server.train.typicality import typicality_reference
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from tests.quality import stages, typicality
from tests.quality.sets import Array, Folder, drawn, embed, folder, task, trained

DRAWS, SPLITS = 5, 20
BOTH = 2
"""Position in what `_few` returns."""


# --- few pictures ---


REFERENCES = ("logistic regression CV", "kNN", "torch mlp")
COLUMNS = (*REFERENCES, "`mlp`", "`logistic`", "both", "both less the best reference", "NLL", "ECE", "T", "interval")


def few_shot(of: Folder, given: argparse.Namespace) -> Iterator[str]:
    """Accuracy in % of the references and of both kinds. NLL and calibration error of `mlp` without a temperature, with
    the one that is kept, and with the one that is fitted without asking for evidence, which is T. The difference to the
    reference with the highest mean has its standard error over the draws."""
    yield f"\n| {of.name} | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for shots in map(int, given.few.split(",")):
        draws = [_draw(of, shots, seed, given.resplit) for seed in range(given.draws)]
        kept = given.cache / f"{of.name}-references-{shots}-{given.draws}{'-resplit' * given.resplit}-draws.npy"
        if not kept.exists():
            np.save(kept, [_references(of, *draw) for draw in draws])
        references, own = np.load(kept), np.array([_few(of, *draw) for draw in draws])
        mean = [*references.mean(axis=0), *own.mean(axis=0)]
        cells = [f"{100 * value:.1f}" for value in mean[:6]]
        cells.append(_difference(own[:, BOTH], references[:, int(np.argmax(mean[: len(REFERENCES)]))]))
        cells += [" / ".join(f"{value:.3f}" for value in three) for three in (mean[6:9], mean[9:12])]
        yield f"| {shots} | " + " | ".join([*cells, f"{mean[12]:.2f}", f"{mean[13]:.0%}"]) + " |"


def _difference(own: Array, reference: Array) -> str:
    """In points, with the standard error of its mean; accuracies (draws,)."""
    gains = 100 * (own - reference)
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
    return f"{gains.mean():+.1f} ± {error:.1f}"


def _draw(of: Folder, shots: int, seed: int, resplit: bool) -> tuple[Array, Array]:
    """Positions to train on and to test on."""
    if not resplit:
        return drawn(of, shots, seed), of.test
    whole = replace(of, train=np.ones(len(of.y), bool))
    rows = drawn(whole, shots, seed)
    return rows, np.setdiff1d(np.arange(len(of.y)), rows)


def _few(of: Folder, rows: Array, test: Array) -> list[float]:
    """Accuracy of `mlp`, of `logistic` and of both; three losses, three calibration errors, T, and whether the interval
    holds the accuracy."""
    heads = [trained(task(of, rows, test), kind=kind) for kind in (HeadKind.MLP, HeadKind.LOGISTIC)]
    both = comparison.choose(heads, Prepared(task(of, rows, test), {}, Findings())).outcome
    found = [outcome.report("test").accuracy for outcome in (heads[0].outcome, heads[1].outcome, both)]  # type: ignore[union-attr]
    temperature, own = heads[0].outcome.temperature, heads[0].outcome.report()
    assert own is not None
    within = float(own.accuracy_low <= found[0] <= own.accuracy_high)
    raw = heads[0].logits["test"] * temperature
    fitted = calibration.fit_temperature(heads[0].out_of_fold.logits * temperature, of.y[rows])
    tried = [report.report("test", of.classes, raw / each, of.y[test]) for each in (1.0, temperature, fitted)]
    losses, errors = [each.loss for each in tried], [each.calibration_error for each in tried]
    return [*found, *losses, *errors, fitted, within]


def _references(of: Folder, rows: Array, test: Array) -> Array:
    """Accuracy of logistic regression with cross-validation, kNN, and a plain mlp."""
    x, y, unseen, truth = of.x[rows], of.y[rows], of.x[test], of.y[test]
    folds = min(5, int(np.bincount(y).min()))
    regression = LogisticRegressionCV(
        Cs=np.logspace(-4, 2, 7), cv=folds, max_iter=500, scoring="neg_log_loss", use_legacy_attributes=False
    )
    neighbors = KNeighborsClassifier(min(5, len(rows) // len(of.classes)), metric="cosine")
    found = [float((model.fit(x, y).predict(unseen) == truth).mean()) for model in (regression, neighbors)]
    return np.array([*found, (plain_mlp(x, y, unseen, len(of.classes)).argmax(axis=1) == truth).mean()])


def plain_mlp(x: Array, y: Array, unseen: Array, classes: int, epochs: int = 60) -> Array:
    """The mlp of the notebooks: every epoch of a cosine schedule, no validation."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(x.shape[1], 500), nn.BatchNorm1d(500), nn.ReLU(), nn.Linear(500, classes))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(epochs):
        order = torch.randperm(len(inputs))
        for batch in (order[start : start + 32] for start in range(0, len(order), 32)):
            if len(batch) > 1:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(inputs[batch]), labels[batch]).backward()
                optimizer.step()
        schedule.step()
    net.eval()
    with torch.no_grad():
        return net(torch.from_numpy(unseen)).numpy()


# --- coverage and typicality ---


def coverage(of: Folder, others: dict[str, Array]) -> Iterator[str]:
    """Random halves of all pictures, so that both halves come from one source."""
    rows = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(of.y))
        half, test = order[: len(order) // 2], order[len(order) // 2 :]
        data = task(of, half, test)
        head = trained(data, kind=HeadKind.LOGISTIC)
        scores = calibration.conformal_scores(report.softmax(head.out_of_fold.logits), of.y[half])
        probabilities = report.softmax(head.logits["test"])
        sets = np.array([calibration.prediction_set(p, scores, 0.9) for p in probabilities])
        kept = typicality_reference(of.x, half, seed)
        flagged = [float((p_values(kept, x) <= 0.05).mean()) for x in (of.x[test], *others.values())]
        rows.append([sets[np.arange(len(test)), of.y[test]].mean(), sets.sum(axis=1).mean(), *flagged])
    mean, deviation = np.mean(rows, axis=0), np.std(rows, axis=0)
    flagged = ", ".join(f"{name} {share:.1%}" for name, share in zip(others, mean[3:], strict=True))
    yield (
        f"\n{of.name}: coverage of the 0.9 sets {mean[0]:.3f} (deviation {deviation[0]:.3f} over {SPLITS} splits), "
        f"{mean[1]:.2f} classes a set; flagged as unlike: own pictures {mean[2]:.1%}, {flagged}"
    )


# --- copies and wrong labels ---


def copies(of: Folder, weights: str) -> Iterator[str]:
    picked = np.random.default_rng(0).permutation(len(of.files))[:40]
    variants = [(int(i), name, data) for i in picked for name, data in _variants(Image.open(of.files[i]))]
    x = embed([data for *_, data in variants], weights)
    entries = [Entry(file, "", "train", file) for file in of.files]
    false = findings.near_duplicates(entries, of.x)
    yield f"\n{of.name}: {len(false)} near-copies among {len(of.files)} pictures"
    for name in dict.fromkeys(name for _, name, _ in variants):
        own = [n for n, item in enumerate(variants) if item[1] == name]
        named = [*entries, *(Entry(f"copy of {variants[n][0]}", "", "test", str(n)) for n in own)]
        pairs = findings.near_duplicates(named, np.concatenate([of.x, x[own]]))
        right = {(of.files[variants[n][0]], f"copy of {variants[n][0]}") for n in own}
        found = {(pair.first, pair.name) for pair in pairs} - {(pair.first, pair.name) for pair in false}
        yield f"- {name}: {len(found & right)} of {len(own)} found, {len(found - right)} others"


def _variants(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    image = picture.convert("RGB")
    width, height = image.size
    yield "JPEG at quality 30", _jpeg(image, 30)
    yield "half the size", _jpeg(image.resize((width // 2, height // 2), Image.Resampling.LANCZOS))
    yield "central 90 %", _jpeg(image.crop((width // 20, height // 20, width * 19 // 20, height * 19 // 20)))
    yield "a corner, 80 %", _jpeg(image.crop((0, 0, width * 4 // 5, height * 4 // 5)))
    yield "mirrored", _jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def _jpeg(image: Image.Image, quality: int = 92) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def noise(of: Folder) -> Iterator[str]:
    """Wrong labels planted: a tenth of all pictures, or 40 % of one class, which get the label of another."""
    rows = np.flatnonzero(of.train)
    first = rows[of.y[rows] == 0]
    plans: dict[str, Callable[[np.random.Generator], Array]] = {
        "none": lambda rng: rows[:0],
        "spread (10 % of all)": lambda rng: rng.permutation(rows)[: len(rows) // 10],
        "concentrated (40 % of one class)": lambda rng: rng.permutation(first)[: int(0.4 * len(first))],
    }
    for title, plan in plans.items():
        counts = []
        for seed in range(DRAWS):
            rng = np.random.default_rng(100 + seed)  # the margin was chosen on other draws
            wrong, labels = plan(rng), of.y.copy()
            labels[wrong] = (labels[wrong] + 1) % len(of.classes)
            found = mislabelled(of.x[rows], labels[rows], np.arange(len(rows)), len(of.classes))
            hits = sum(rows[item.picture] in set(wrong.tolist()) for item in found)
            counts.append([len(wrong), hits, len(found) - hits])
        planted, hits, false = np.mean(counts, axis=0)
        yield (
            f"- {of.name}, {title}: {planted:.0f} planted, {hits:.1f} found ({hits / max(planted, 1e-9):.0%}), "
            f"{false:.1f} false (precision {hits / max(hits + false, 1e-9):.0%})"
        )


def imbalance(of: Folder) -> Iterator[str]:
    rows = np.concatenate(
        [np.flatnonzero(of.train & (of.y == c))[: 5 if c == 0 else 1000] for c in range(len(of.classes))]
    )
    test = np.flatnonzero(~of.train)
    for weights in (ClassWeights.NONE, ClassWeights.AUTO):
        found = trained(task(of, rows, test), kind=HeadKind.LOGISTIC, class_weights=weights).outcome.report("test")
        assert found is not None
        recall = np.mean([item.recall for item in found.classes])
        yield f"- {of.name}, 5 pictures of {of.classes[0]}, class weights {weights.value}: mean recall {recall:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="NAME=DIR|drawn:NAME")
    parser.add_argument("--only", default="few,coverage,copies,noise,imbalance,stages,rates,typicality,groups")
    parser.add_argument("--few", default="5,10,20,50", help="pictures a class")
    parser.add_argument("--draws", type=int, default=DRAWS, help="of few pictures")
    parser.add_argument("--resplit", action="store_true", help="draw few pictures from all sets, and test on the rest")
    parser.add_argument("--size", type=int, default=128, help="pixels that unfrozen stages are compared at")
    parser.add_argument("--shots", default="15,0", help="pictures a class for unfrozen stages; 0: all")
    parser.add_argument("--weights", default="../shared/weights/resnet50.safetensors")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/heads"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/heads/heads.md"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folders = [folder(name, given.cache, given.weights) for name in given.folders]
    statistics = {}
    if "typicality" in given.only:
        statistics = {of.name: typicality.statistics(of, given.cache, given.weights) for of in folders}
    others = {of.name: {f.name: f.x for f in folders if f is not of} for of in folders}
    unfrozen = partial(stages.prepared, size=given.size, shots=given.shots, cache=given.cache, weights=given.weights)
    parts: dict[str, Callable[[Folder], Iterator[str]]] = {
        "few": lambda of: few_shot(of, given),
        "coverage": lambda of: coverage(of, others[of.name]),
        "copies": lambda of: copies(of, given.weights),
        "noise": noise,
        "imbalance": imbalance,
        "stages": lambda of: (line for data in unfrozen(of) for line in stages.strategies(of, *data)),
        "groups": lambda of: typicality.groups(of, others[of.name]),
        "typicality": lambda of: typicality.compare(of, statistics, given.weights),
        "rates": lambda of: (line for data in unfrozen(of) for line in stages.rates(of, *data)),
    }
    with given.out.open("w") as out:
        for part in given.only.split(","):
            for of in folders:
                for line in parts[part](of):
                    print(line, flush=True)
                    out.write(line + "\n")


if __name__ == "__main__":
    main()
