"""A descent takes the optimizer's steps, whatever is asked of it on the way and however late its losses are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from gramlet.errors import FailedPrecondition, InvalidInput
from gramlet.feature.descent_types import (
    DescentEnding,
    DescentFinished,
    DescentIteration,
    DescentRecovered,
    DescentReweighted,
    DescentSettings,
    DescentWaiting,
    LineSearch,
    Optimizer,
)
from gramlet_server.feature.canvas import AllColors, LuminanceOnly, luminance, resized
from gramlet_server.feature.descent import MOST_RESTARTS, Descent
from gramlet_server.feature.descent_parts import Control, Happening, PreviewPixels
from gramlet_server.feature.device import Device
from gramlet_server.feature.snapshot import Snapshot
from gramlet_server.feature.steps import Steps
from torch import Tensor

from tests.feature.formula import (
    START,
    WANTED,
    Formula,
    descent,
    finished,
    iterations,
    run,
    same,
    start,
)

SETTINGS = {
    "L-BFGS": DescentSettings(history_size=5),
    "strong Wolfe": DescentSettings(history_size=5, line_search=LineSearch.STRONG_WOLFE),
    "Adam": DescentSettings(optimizer=Optimizer.ADAM, learning_rate=0.05),
    "momentum": DescentSettings(optimizer=Optimizer.GRADIENT_DESCENT, learning_rate=0.05, momentum=0.8),
}


every_optimizer = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


@every_optimizer
def test_it_finds_the_minimum(settings: DescentSettings) -> None:
    happened = run(descent(start(150, settings=settings)))
    assert [event.iteration for event in iterations(happened)] == [*range(1, 151)]
    assert finished(happened).loss < 1e-3 * iterations(happened)[0].loss
    torch.testing.assert_close(torch.from_numpy(finished(happened).picture), WANTED, rtol=0, atol=0.02)


def test_its_steps_are_those_of_torch() -> None:
    parameter = START.clone().requires_grad_()
    reference = torch.optim.LBFGS([parameter], max_iter=1, history_size=5, tolerance_grad=0, tolerance_change=0)
    losses: list[float] = []

    def closure() -> float:
        terms, parameter.grad = evaluated(Formula(), parameter.detach())
        losses.append(float(terms[0]))
        return losses[-1]

    for _ in range(8):
        reference.step(closure)  # type: ignore[no-untyped-call]
    ours = [event.loss for event in iterations(run(descent(start(8))))]
    assert ours == pytest.approx(losses, rel=1e-4)


def evaluated(loss: Formula, picture: Tensor) -> tuple[Tensor, Tensor]:
    evaluation = loss.evaluate(picture)
    try:
        while True:
            next(evaluation)
    except StopIteration as ended:
        found: tuple[Tensor, Tensor] = ended.value
        return found


@every_optimizer
@pytest.mark.parametrize("late", [0, 1, 3])
@pytest.mark.parametrize("pauses", [0, 2])
def test_in_pieces_it_is_what_it_is_in_one(settings: DescentSettings, late: int, pauses: int) -> None:
    whole = run(descent(start(settings=settings)))
    snapshot: Snapshot | None = None
    pieces: list[Happening] = []
    for _ in range(50):
        control = Control()
        for happening in descent(start(settings=settings), Formula(pauses=pauses), control, late, snapshot).run():
            if isinstance(happening, Snapshot):
                snapshot = Snapshot.from_bytes(happening.to_bytes())
            elif happening is not None:
                pieces.append(happening)
            control.stop = len(iterations(pieces)) % 3 == 0
        if isinstance(pieces[-1], DescentFinished):
            break
    assert same(whole, pieces)


def test_a_state_is_copied_in_parts_between_which_others_have_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = snapshots(run(descent(start(6, ending=DescentEnding.STATE))))[-1]
    monkeypatch.setattr("gramlet_server.feature.descent_parts.COPIED_AT_ONCE", 10)
    happened = [*descent(start(6, ending=DescentEnding.STATE)).run()]
    assert happened[-1].to_bytes() == whole.to_bytes()  # type: ignore[union-attr]
    # The history alone has five pairs of 90 numbers.
    assert happened.count(None) > 2 * 5 * 90 / 10


def test_a_state_that_is_asked_for_twice_while_it_is_copied_is_one_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gramlet_server.feature.descent_parts.COPIED_AT_ONCE", 10)
    control = Control(state=True)
    happened: list[Happening] = []
    for happening in descent(start(6), control=control).run():
        if happening is not None:
            happened.append(happening)
        elif not snapshots(happened):
            control.state = True
    assert len(snapshots(happened)) == 1


@every_optimizer
def test_nothing_that_is_asked_for_changes_a_step(settings: DescentSettings) -> None:
    plain = run(descent(start(settings=settings)))
    control = Control()
    asked = []
    for happening in descent(
        start(settings=settings, preview_every=2, confirm_last=True), Formula(pauses=1), control, late=2
    ).run():
        asked.append(happening)
        control.state = isinstance(happening, DescentIteration)
        control.proceed = isinstance(happening, DescentWaiting)
    happened = [each for each in asked if each is not None]
    assert same(plain, happened)
    assert [each.iteration for each in happened if isinstance(each, PreviewPixels)] == [2, 4, 6, 8, 10, 12]
    assert [each.iteration for each in happened if isinstance(each, DescentWaiting)] == [11]
    assert any(isinstance(each, Snapshot) for each in happened)


def diverging(late: int, settings: DescentSettings = SETTINGS["L-BFGS"]) -> list[Happening]:
    """A descent whose fifth loss is no number."""
    points: list[Tensor] = []

    class Spoiled(Formula):
        def evaluate(self, picture: Tensor) -> Steps[tuple[Tensor, Tensor]]:
            known = any(torch.equal(picture, point) for point in points)
            if not known and len(points) < 5:
                points.append(picture)
            terms, gradient = yield from super().evaluate(picture)
            bad = len(points) == 5 and torch.equal(picture, points[4])
            return (terms * float("nan"), gradient) if bad else (terms, gradient)

    return run(descent(start(20, settings=settings), Spoiled(), late=late))


@pytest.mark.parametrize("late", [1, 3])
def test_a_divergence_that_is_seen_late_is_the_same_divergence(late: int) -> None:
    at_once = diverging(0)
    assert [(e.iteration, e.restarts) for e in at_once if isinstance(e, DescentRecovered)] == [(5, 1)]
    assert [event.iteration for event in iterations(at_once)] == [*range(1, 21)]
    assert same(at_once, diverging(late))


def test_after_a_divergence_a_line_search_finds_the_minimum() -> None:
    happened = diverging(1)
    assert finished(happened).loss < iterations(happened)[3].loss
    # A search evaluates several points in an iteration, and begins where the one before has ended.
    assert iterations(happened)[-1].evaluations > 21


def test_adam_starts_again_with_shorter_steps() -> None:
    happened = diverging(2, SETTINGS["Adam"])
    assert [event.iteration for event in iterations(happened)] == [*range(1, 21)]


def test_a_loss_that_is_never_a_number_is_an_error() -> None:
    with pytest.raises(FailedPrecondition, match="initial picture"):
        run(descent(start(), Formula(spoiled=lambda n: True)))
    loss = Formula(spoiled=lambda n: n > 3)
    with pytest.raises(FailedPrecondition, match="however short"):
        run(descent(start(), loss))
    assert loss.evaluations >= MOST_RESTARTS


@pytest.mark.parametrize("late", [0, 2])
def test_new_weights_start_a_new_history_where_the_picture_is(late: int) -> None:
    control = Control()
    happened: list[Happening] = []
    for happening in descent(start(), control=control, late=late).run():
        if happening is not None:
            happened.append(happening)
        if len(iterations(happened)) == 6 and control.weights is None and not snapshots(happened):
            control.weights = Formula(weight=2.0), 7
    reweighted = next(each for each in happened if isinstance(each, DescentReweighted))
    assert reweighted.number == 7
    snapshot = snapshots(happened)[0]
    assert happened.index(snapshot) == happened.index(reweighted) - 1
    assert (snapshot.counts.number, snapshot.counts.iteration) == (7, reweighted.iteration)
    on_its_own = run(descent(start(), Formula(weight=2.0), snapshot=Snapshot.from_bytes(snapshot.to_bytes())))
    assert iterations(on_its_own) == iterations(happened)[reweighted.iteration :]
    assert same(happened[happened.index(reweighted) :], on_its_own)


def snapshots(happened: list[Happening]) -> list[Snapshot]:
    return [each for each in happened if isinstance(each, Snapshot)]


def test_weights_before_the_last_iteration_are_confirmed_too() -> None:
    control = Control()
    happened: list[Happening] = []
    for happening in descent(start(4, confirm_last=True), control=control, late=1).run():
        if happening is None:
            continue
        happened.append(happening)
        if isinstance(happening, DescentWaiting):
            if snapshots(happened):
                control.proceed = True
            else:
                control.weights = Formula(weight=3.0), 1
    kinds = [type(each) for each in happened[3:]]
    assert kinds == [
        DescentWaiting, Snapshot, DescentReweighted, DescentWaiting, DescentIteration, DescentFinished
    ]  # fmt: skip


def test_another_size_goes_on_with_the_picture_only() -> None:
    coarse = run(descent(start(6, ending=DescentEnding.PICTURE)))
    snapshot = snapshots(coarse)[-1]
    assert coarse[-1] is snapshot
    assert not snapshot.optimizer
    larger = resized(snapshot.picture, 12, 10)
    fine = run(Descent(start(9), Formula(), AllColors(), Device(), Control(), larger, snapshot))
    assert [event.iteration for event in iterations(fine)] == [7, 8, 9]
    assert finished(fine).picture.shape == (3, 12, 10)


def test_the_same_size_on_another_objective_keeps_the_history() -> None:
    whole = run(descent(start(12)))
    rough = snapshots(run(descent(start(6, ending=DescentEnding.STATE))))[-1]
    assert same(iterations(whole)[6:] + whole[-1:], run(descent(start(12), snapshot=rough)))


def test_only_the_luminance_moves() -> None:
    canvas = LuminanceOnly(START)
    happened = run(descent(start(30), canvas=canvas))
    picture = torch.from_numpy(finished(happened).picture)
    chroma = picture - luminance(picture)
    torch.testing.assert_close(chroma, START - luminance(START), rtol=0, atol=1e-6)
    assert finished(happened).loss < iterations(happened)[0].loss


def test_a_preview_is_the_picture_after_its_iteration() -> None:
    order = start(4, preview_every=2)
    previews = [each for each in run(descent(order, late=3)) if isinstance(each, PreviewPixels)]
    for preview in previews:
        reached = snapshots(run(descent(start(preview.iteration, ending=DescentEnding.PICTURE))))[0].picture
        assert torch.equal(preview.pixels(), reached.clamp(0, 1).mul(255).round().to(torch.uint8))


@pytest.mark.parametrize(("side", "shape"), [(0, (3, 51, 512)), (100, (3, 10, 100)), (4000, (3, 100, 1000))])
def test_a_large_preview_is_reduced(side: int, shape: tuple[int, ...]) -> None:
    class Flat(Formula):
        def evaluate(self, picture: Tensor) -> Steps[tuple[Tensor, Tensor]]:
            yield
            return torch.ones(5), torch.zeros_like(picture)

    wide = torch.zeros(3, 100, 1000)
    order = start(1, preview_every=1, preview_side=side)
    made = Descent(order, Flat(), AllColors(), Device(), Control(), wide)
    preview = next(each for each in made.run() if isinstance(each, PreviewPixels))
    assert preview.pixels().shape == shape


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-10],
    "other file": lambda data: b"PK" + data,
    "header only": lambda data: data[:20],
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_a_broken_state_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    data = snapshots(run(descent(start(6, ending=DescentEnding.STATE))))[-1].to_bytes()
    with pytest.raises(InvalidInput) as refused:
        Snapshot.from_bytes(spoil(data))
    assert refused.value.field == "state"


def test_a_state_of_other_settings_is_refused() -> None:
    snapshot = snapshots(run(descent(start(6, ending=DescentEnding.STATE))))[-1]
    with pytest.raises(InvalidInput, match="other settings"):
        descent(start(settings=replace(SETTINGS["L-BFGS"], history_size=9)), snapshot=snapshot)


def test_closing_it_ends_it_within_an_evaluation() -> None:
    loss = Formula(pauses=3)
    happenings: Iterator[Happening | None] = descent(start(1000), loss).run()
    next(happenings)
    happenings.close()  # type: ignore[attr-defined]
    assert loss.evaluations == 0
