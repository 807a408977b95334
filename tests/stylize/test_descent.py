"""A descent evaluates no picture twice, goes back after a divergence, and takes the same steps from a stored state."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gramlet.errors import FailedPrecondition
from gramlet.feature.types import Evaluation
from gramlet.stylize.types import LineSearch, Optimizer, StylizeSettings
from gramlet.types import Array
from gramlet_server.feature.engine import Engine
from gramlet_server.stylize.descent import MOST_RESTARTS, Descent

from .conftest import prepared_of

OPTIMIZERS: dict[str, Any] = {
    "L-BFGS": {},
    "strong Wolfe": {"line_search": LineSearch.STRONG_WOLFE},
    "Adam": {"optimizer": Optimizer.ADAM, "learning_rate": 0.02},
}
START = np.random.default_rng(0).random((3, 8, 9), dtype=np.float32)


def parabola(picture: Array) -> Evaluation:
    """The loss is smallest at a gray picture."""
    scale = np.linspace(1, 4, picture.size, dtype=np.float32).reshape(picture.shape)
    loss = float((scale * (picture - 0.5) ** 2).sum())
    return Evaluation(loss, loss, 0.0, 0.0, {"conv1": loss}, gradient=2 * scale * (picture - 0.5))


def not_a_number(picture: Array) -> Evaluation:
    return Evaluation(float("nan"), 0.0, 0.0, 0.0, {}, gradient=np.zeros_like(picture))


def settings(**changes: Any) -> StylizeSettings:
    return StylizeSettings(**{"learning_rate": 1.0, "history_size": 4, **changes})


@pytest.mark.parametrize("changes", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_descent_from_a_stored_state_takes_the_same_steps(changes: Any, after: int) -> None:
    descent = Descent(START, settings(**changes))
    for _ in range(after):
        descent.step(parabola)
    other = Descent.from_bytes(descent.to_bytes())
    for _ in range(4):
        assert descent.step(parabola).loss == other.step(parabola).loss  # type: ignore[union-attr]
        np.testing.assert_array_equal(descent.picture, other.picture)
    assert other.iteration == descent.iteration == after + 4


def test_a_state_keeps_the_best_picture_and_the_restarts() -> None:
    descent = Descent(START, settings())
    descent.step(parabola)
    assert descent.step(not_a_number) is None
    other = Descent.from_bytes(descent.to_bytes())
    np.testing.assert_array_equal(other.picture, START)
    np.testing.assert_array_equal(other.finish(parabola)[0], descent.finish(parabola)[0])
    for _ in range(3):
        descent.step(parabola)
        other.step(parabola)
    np.testing.assert_array_equal(other.picture, descent.picture)


def test_a_state_is_a_safetensors_file() -> None:
    descent = Descent(START, settings())
    descent.step(parabola)
    state = descent.to_bytes()
    header = json.loads(state[8 : 8 + int.from_bytes(state[:8], "little")])
    assert header["picture"]["shape"] == [3, 8, 9]
    assert json.loads(header["__metadata__"]["progress"])["iteration"] == 1


def test_a_loss_that_is_never_a_number_ends_the_descent() -> None:
    descent = Descent(START, settings())
    descent.step(parabola)
    for _ in range(MOST_RESTARTS):
        assert descent.step(not_a_number) is None
    with pytest.raises(FailedPrecondition, match="not a number"):
        descent.step(not_a_number)


def test_a_line_search_evaluates_no_picture_twice(engine: Engine, content: Array, style: Array) -> None:
    prepared = prepared_of(engine, content, style, line_search=LineSearch.STRONG_WOLFE)
    seen: list[bytes] = []

    def evaluate(picture: Array) -> Evaluation:
        seen.append(picture.tobytes())
        return differentiation.evaluate(picture)

    descent = Descent(content, prepared.settings)
    with engine.differentiate(prepared.objective()) as differentiation:
        for _ in range(4):
            descent.step(evaluate)
        descent.finish(evaluate)
        assert len(seen) == len(set(seen)) > 4
