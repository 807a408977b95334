"""Training on synthetic embeddings: it learns, it is deterministic, and it can be cut off anywhere."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from gramlet.train.configuration import ClassWeights, HeadKind, Metric, Optimizer, Recipe, Schedule, Strategy
from gramlet.train.types import Epoch
from gramlet_server.train.classifier import PowerNormalization, build_head
from gramlet_server.train.data import Samples, TrainingData
from gramlet_server.train.fit import Fit
from gramlet_server.train.optimizers import schedule, stage_learning_rate
from torch import nn

CHANNELS, CLASSES = 32, ("ant", "bee", "cat")


def blobs(count: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Three Gaussian clouds of embeddings, (count, 32), without their negative parts, with their labels."""
    centers = 2 * np.random.default_rng(99).standard_normal((3, CHANNELS))
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    points = centers[labels] + noise * rng.standard_normal((count, CHANNELS))
    return np.maximum(points, 0).astype(np.float32), labels


def samples(count: int, seed: int, noise: float = 1.0) -> Samples:
    array, labels = blobs(count, seed, noise)
    return Samples(array, np.arange(count), labels)


@pytest.fixture
def data() -> TrainingData:
    return TrainingData(CLASSES, {"train": samples(65, 0), "val": samples(31, 1)})


class Late(nn.Module):
    """Stands in for a network's last stage: (N, C, 2, 2) → (N, 32)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer4 = nn.Sequential(nn.Conv2d(8, CHANNELS, 1), nn.BatchNorm2d(CHANNELS), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer4(x).mean(dim=(2, 3))


@pytest.fixture
def late_data() -> tuple[TrainingData, Late]:
    late = Late().eval()
    sets = {}
    for seed, (name, count) in enumerate({"train": 40, "val": 20}.items()):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 3
        array = (np.eye(8)[labels][:, :, None, None] + rng.standard_normal((count, 8, 2, 2))).astype(np.float16)
        sets[name] = Samples(array, np.arange(count), labels)
    with torch.inference_mode():
        embeddings = {
            name: replace(s, array=late(torch.from_numpy(s.array).float()).numpy()) for name, s in sets.items()
        }
    return TrainingData(CLASSES, embeddings, {"layer4": sets}), late


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices this small are slower with several threads, and much slower beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cut_off(fit: Fit, epochs: int) -> Fit:
    """Trains for so many epochs, then closes the generator."""
    events = fit.epochs()
    while fit.epoch < epochs:
        next(events)
    events.close()
    return fit


def train(fit: Fit) -> list[Epoch]:
    return [event for event in fit.epochs() if isinstance(event, Epoch)]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_mlp_is_linear_batchnorm_relu_linear_on_powers_of_the_embedding():
    head = build_head(HeadKind.MLP, 2048, 7, seed=0)
    assert [type(layer) for layer in head] == [PowerNormalization, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    hidden, output = head.hidden, head.output
    assert (hidden.in_features, hidden.out_features, output.in_features, output.out_features) == (2048, 500, 500, 7)


def test_powers_have_a_mean_square_of_1_whatever_the_scale_and_a_gradient_at_0():
    # Beside 0 the power is not exact, so that it has a gradient there.
    x = 0.05 + torch.rand(5, CHANNELS, generator=torch.Generator().manual_seed(0))
    expected = x.double() ** 0.75
    expected /= expected.square().mean(dim=1, keepdim=True).sqrt()
    layer = PowerNormalization()
    torch.testing.assert_close(layer(x), expected.float())
    torch.testing.assert_close(layer(7 * x), layer(x))
    empty = torch.zeros(1, CHANNELS, requires_grad=True)
    layer(empty).sum().backward()
    assert torch.isfinite(empty.grad).all()


def test_a_new_head_depends_on_its_seed_alone():
    torch.manual_seed(1)
    first = build_head(HeadKind.MLP, 32, 3, seed=5)
    torch.manual_seed(2)
    assert same(first.state_dict(), build_head(HeadKind.MLP, 32, 3, seed=5).state_dict())
    assert not same(first.state_dict(), build_head(HeadKind.MLP, 32, 3, seed=6).state_dict())


@pytest.mark.parametrize("optimizer", Optimizer)
@pytest.mark.parametrize("kind", HeadKind)
def test_every_optimizer_learns_the_clouds(kind, optimizer, data):
    if optimizer is Optimizer.LBFGS and kind is HeadKind.MLP:
        pytest.skip("L-BFGS is for linear probes")
    fit = Fit(Recipe(kind=kind, optimizer=optimizer, epochs=120, patience=0), data)
    epochs = train(fit)
    assert max(epoch.accuracy for epoch in epochs) > 0.95
    lowest = min(epochs, key=lambda epoch: epoch.validation_loss)
    assert lowest.best
    assert fit.best.epoch >= lowest.epoch


def test_lbfgs_finds_the_minimum_of_the_regularized_loss(data):
    recipe = Recipe(kind=HeadKind.LINEAR, optimizer=Optimizer.LBFGS, epochs=30, patience=0, weight_decay=0.1)
    fit = Fit(recipe, data)
    train(fit)
    train_set = data.embeddings["train"]
    weight, bias = fit.head.output.weight.double(), fit.head.output.bias.double()
    weight, bias = (w.detach().requires_grad_() for w in (weight, bias))
    logits = torch.from_numpy(train_set.array).double() @ weight.T + bias
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(train_set.labels)) + 0.05 * weight.square().sum()
    loss.backward()
    assert weight.grad.norm() < 1e-3


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=6, patience=0),
        Recipe(epochs=6, patience=0, optimizer=Optimizer.SGD, schedule=Schedule.LINEAR, warmup_epochs=2),
        Recipe(epochs=6, patience=0, kind=HeadKind.LINEAR, optimizer=Optimizer.LBFGS),
    ],
)
@pytest.mark.parametrize("cut", [1, 3, 6])
def test_a_training_cut_off_and_resumed_gives_the_same_head_bit_for_bit(recipe, cut, data):
    whole = Fit(recipe, data)
    train(whole)

    first = cut_off(Fit(recipe, data), cut)
    second = Fit(recipe, data, checkpoint=first.checkpoint())
    assert second.epoch == cut
    train(second)

    assert same(second.best.head, whole.best.head)
    assert same(second.head.state_dict(), whole.head.state_dict())
    assert [(e.epoch, e.loss, e.validation_loss) for e in second.history] == [
        (e.epoch, e.loss, e.validation_loss) for e in whole.history
    ]


@pytest.mark.parametrize("strategy", [Strategy.ALL_AT_ONCE, Strategy.HEAD_THEN_STAGES])
@pytest.mark.parametrize("cut", [1, 3, 5])
def test_unfrozen_stages_are_trained_resumably_and_the_base_is_never_written_to(strategy, cut, late_data):
    data, late = late_data
    before = {name: value.clone() for name, value in late.state_dict().items()}
    recipe = Recipe(strategy=strategy, stages=("layer4",), epochs=3, stage_epochs=3, patience=0, batch_size=8)
    whole = Fit(recipe, data, late=late)
    train(whole)
    first = cut_off(Fit(recipe, data, late=late), min(cut, whole.epoch))
    second = Fit(recipe, data, late=late, checkpoint=first.checkpoint())
    train(second)
    assert same(second.best.head, whole.best.head)
    assert same(second.best.late, whole.best.late)
    assert same(late.state_dict(), before)


def test_batch_norm_statistics_of_unfrozen_stages_stay_unless_asked(late_data):
    data, late = late_data
    recipe = Recipe(strategy=Strategy.ALL_AT_ONCE, stages=("layer4",), stage_epochs=2, batch_size=8)
    for asked in (False, True):
        fit = Fit(replace(recipe, update_batch_norm=asked), data, late=late)
        train(fit)
        moved = not torch.equal(fit.best.late["layer4.1.running_mean"], late.state_dict()["layer4.1.running_mean"])
        assert moved is asked
        assert not torch.equal(fit.best.late["layer4.0.weight"], late.state_dict()["layer4.0.weight"])


def test_each_stage_has_its_learning_rate_and_the_head_slows_down_in_the_second_phase(late_data):
    data, late = late_data
    recipe = Recipe(
        strategy=Strategy.HEAD_THEN_STAGES,
        stages=("layer4",),
        stage_rates={"layer4": 3e-5},
        learning_rate=1e-2,
        head_rate_factor=0.1,
        epochs=1,
        stage_epochs=1,
        schedule=Schedule.CONSTANT,
        warmup_epochs=0,
    )
    head, stages = train(Fit(recipe, data, late=late))
    assert (head.phase, dict(head.rates)) == ("head", {"head": 1e-2})
    assert stages.phase == "stages"
    assert stages.rates == pytest.approx({"head": 1e-3, "layer4": 3e-5})


def test_early_stopping_watches_the_chosen_metric(data):
    recipe = Recipe(epochs=200, patience=4, metric=Metric.ACCURACY, schedule=Schedule.CONSTANT)
    fit = Fit(recipe, data)
    epochs = train(fit)
    accuracies = [epoch.accuracy for epoch in epochs]
    assert len(epochs) == accuracies.index(max(accuracies)) + 1 + 4
    assert [epoch.epoch for epoch in epochs if epoch.best][-1] == fit.best.epoch


def test_schedules():
    recipe = Recipe(schedule=Schedule.COSINE, warmup_epochs=2)
    factors = [schedule(recipe, epoch, 10) for epoch in range(10)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert factors[6] == pytest.approx(0.5)
    assert schedule(replace(recipe, schedule=Schedule.LINEAR, warmup_epochs=0), 4, 8) == 0.5
    assert schedule(replace(recipe, schedule=Schedule.CONSTANT), 9, 10) == 1


def test_balanced_class_weights_raise_the_recall_of_a_rare_class_and_are_the_default_where_classes_differ():
    array, labels = blobs(300, 0, noise=4.0)
    rows = np.concatenate([np.flatnonzero(labels != 2), np.flatnonzero(labels == 2)[:8]])
    unbalanced = TrainingData(CLASSES, {"train": Samples(array, rows, labels[rows]), "val": samples(300, 1, noise=4.0)})
    recalls = {}
    for weights in ClassWeights:
        fit = Fit(Recipe(class_weights=weights, kind=HeadKind.LINEAR, epochs=30), unbalanced)
        train(fit)
        logits = fit.logits(unbalanced.embeddings["val"], fit.best)
        rare = unbalanced.embeddings["val"].labels == 2
        recalls[weights] = (logits.argmax(axis=1)[rare] == 2).mean()
    assert recalls[ClassWeights.BALANCED] > recalls[ClassWeights.NONE]
    assert recalls[ClassWeights.AUTO] == recalls[ClassWeights.BALANCED]


def test_label_smoothing_lowers_confidence(data):
    def confidence(smoothing: float) -> float:
        fit = Fit(Recipe(label_smoothing=smoothing, epochs=30, patience=0), data)
        train(fit)
        logits = fit.logits(data.embeddings["val"], fit.best)
        return float(np.ptp(logits, axis=1).mean())

    assert confidence(0.3) < confidence(0.0)


def test_calibration_lowers_the_loss_on_unseen_pictures_and_changes_no_answer():
    clear = TrainingData(CLASSES, {"train": samples(90, 0), "val": samples(300, 1)})
    # Smoothed labels make a head less sure than it should be.
    recipe = Recipe(epochs=40, label_smoothing=0.4, patience=0)
    reports = {}
    for calibrated in (True, False):
        fit = Fit(replace(recipe, calibrate=calibrated), clear)
        train(fit)
        trained = fit.finish()
        reports[calibrated] = trained.outcome.report("val")
        assert (trained.outcome.temperature != 1) is calibrated
    assert reports[True].loss < reports[False].loss
    assert reports[True].accuracy == reports[False].accuracy


def test_the_report_is_about_pictures_that_neither_training_nor_the_choice_of_the_epoch_has_seen():
    # Labels that have nothing to do with the pictures: any accuracy above chance would come from having seen them.
    rng = np.random.default_rng(0)
    array, labels = np.abs(rng.standard_normal((240, CHANNELS))).astype(np.float32), np.arange(240) % 3
    fit = Fit(
        Recipe(epochs=60, patience=0, metric=Metric.ACCURACY),
        TrainingData(CLASSES, {"train": Samples(array, np.arange(240), rng.permutation(labels))}),
    )
    history = train(fit)
    found = fit.finish().outcome.report()
    assert found.pictures == 240
    assert found.accuracy_low < 1 / 3
    assert found.accuracy <= max(epoch.accuracy for epoch in history)


def test_the_final_model_is_trained_on_every_picture(data):
    fit = Fit(Recipe(epochs=2, kind=HeadKind.LINEAR, patience=0), data)
    alone = Fit(Recipe(epochs=2, kind=HeadKind.LINEAR, patience=0), replace(data, folds=1))
    train(fit)
    train(alone)
    assert same(fit.head.state_dict(), alone.head.state_dict())
    assert (fit.finish().outcome.report().pictures, alone.finish().outcome.report().pictures) == (65, 13)


def test_augmented_views_of_a_held_out_picture_are_held_out_too():
    rng = np.random.default_rng(0)
    # A view is its picture: a model that saw views of held-out pictures would know them by heart.
    pictures = np.abs(rng.standard_normal((60, CHANNELS))).astype(np.float32)
    labels = rng.permutation(np.arange(60) % 3)
    viewed = Samples(pictures.repeat(3, axis=0), np.arange(180), labels.repeat(3))
    fit = Fit(Recipe(epochs=30, patience=0), TrainingData(CLASSES, {"train": viewed}, views=2))
    train(fit)
    found = fit.finish().outcome.report()
    assert found.pictures == 60
    assert found.accuracy < 0.6


def test_stages_that_do_not_help_leave_the_head_as_it_was(late_data):
    data, late = late_data
    recipe = Recipe(
        strategy=Strategy.HEAD_THEN_STAGES, stages=("layer4",), stage_learning_rate=10.0, epochs=20, stage_epochs=6
    )
    fit = Fit(recipe, data, late=late)
    epochs = train(fit)
    assert [epoch.phase for epoch in epochs].count("stages") == 3  # it stopped early
    trained = fit.finish()
    head = Fit(Recipe(epochs=20), replace(data, folds=3))
    train(head)
    assert trained.stages == ()
    assert same(trained.weights.head, head.finish().weights.head)


def test_stages_start_slowly_and_early_stages_change_less():
    recipe = Recipe(strategy=Strategy.ALL_AT_ONCE, stages=("layer3", "layer4"), stage_rates={"layer2": 1.0})
    assert stage_learning_rate(recipe, "layer4") == 1e-5
    assert stage_learning_rate(recipe, "layer3") == pytest.approx(3e-6)
    assert schedule(recipe, 0, 6, warmup=1) == 0.5


def test_a_last_batch_of_one_joins_the_one_before_so_that_batchnorm_can_normalize():
    odd = TrainingData(CLASSES, {"train": samples(33, 0), "val": samples(10, 1)})
    assert len(train(Fit(Recipe(epochs=1, batch_size=32), odd))) == 1


def test_closing_the_generator_leaves_a_training_that_can_be_checkpointed(data):
    fit = cut_off(Fit(Recipe(epochs=10), data), 1)
    assert fit.epoch == 1
    assert Fit(Recipe(epochs=10), data, checkpoint=fit.checkpoint()).epoch == 1
