"""When a descent makes a state for its caller."""

from __future__ import annotations

import pytest
from gramlet.feature.descent_types import DescentSettings
from gramlet_server.feature.descent_requests import STATE_BYTES_PER_SECOND, STATES_SHARE, Requests
from gramlet_server.feature.memory import state_bytes


@pytest.mark.parametrize(
    ("wanted", "made", "taken", "elapsed", "due"),
    [
        (0.0, 0.0, 0.0, 1e9, False),  # none are wanted
        (10.0, 0.001, 0.0005, 0.9, False),
        (10.0, 0.001, 0.0005, 1.0, True),
        (0.8, 0.0, 0.0, 0.8, True),
        (10.0, 0.5, 0.25, 98.0, False),  # a second for each of two states: 2 % of 100
        (10.0, 0.5, 0.25, 100.0, True),
    ],
)
def test_states_take_at_most_a_fiftieth_of_the_time(
    wanted: float, made: float, taken: float, elapsed: float, due: bool
) -> None:
    requests = Requests()
    requests.state_made(made, 0.5, 0)
    assert not requests.state_due(wanted, elapsed + 0.5, 0, 0.0)  # the reader has not taken the last one
    requests.state_taken(taken)
    assert requests.state_due(wanted, elapsed + 0.5, 0, 0.0) is due


@pytest.mark.parametrize(
    ("wanted", "elapsed", "size", "remaining", "due"),
    [
        (0.0, 1e9, 0, 1e9, False),  # none are wanted
        (10.0, 0.4, 0, 100.0, False),
        (10.0, 0.5, 0, 0.0, True),
        (0.3, 0.3, 0, 0.0, True),
        (10.0, 1.0, 600_000_000, 1.0, False),  # two seconds for a state of a descent of two
        (10.0, 10.0, 600_000_000, 1.0, False),
        (10.0, 99.0, 600_000_000, 1.0, True),
        (1e-9, 1e-6, 3_000_000, 0.0, True),  # small ones do not depend on the time
        (10.0, 1.0, 600_000_000, 99.0, True),  # a fiftieth of the descent
    ],
)
def test_the_first_state_comes_early_where_it_is_cheap(
    wanted: float, elapsed: float, size: int, remaining: float, due: bool
) -> None:
    assert Requests().state_due(wanted, elapsed, size, remaining) is due


def test_a_state_that_has_grown_is_expected_to_take_longer_than_the_last_one() -> None:
    requests = Requests()
    requests.state_made(0.02, 1.0, 10_000_000)
    requests.state_taken(0.02)
    for size, due in ((10_000_000, True), (40_000_000, False)):
        assert requests.state_due(10.0, 7.0, size, 100.0) is due


def test_a_descent_that_was_interrupted_has_its_next_state_within_a_few_seconds() -> None:
    requests = Requests()
    requests.was_interrupted = True
    due = [elapsed for elapsed in range(10) if requests.state_due(10.0, elapsed, 160_000_000, 1.0)]
    assert due[0] == 3
    requests.state_made(0.2, 3.0, 160_000_000)
    requests.state_taken(0.1)
    assert not requests.state_due(10.0, 9.0, 160_000_000, 1.0)


@pytest.mark.parametrize("seconds", [0.07, 0.09])
def test_a_run_of_a_few_seconds_has_a_state_before_its_history_is_too_large(seconds: float) -> None:
    requests, size = Requests(), 3 * 256 * 256  # classic at 256 pixels; `seconds` for an iteration
    settings, length = DescentSettings(history_size=100), 3.5
    spent = []
    for iteration in range(1, round(length / seconds) + 1):
        elapsed, bytes_now = iteration * seconds, state_bytes(settings, size, iteration)
        if requests.state_due(10.0, elapsed, bytes_now, length - elapsed):
            spent.append(bytes_now / STATE_BYTES_PER_SECOND)
            requests.state_made(spent[-1] / 3, elapsed, bytes_now)
            requests.state_taken(spent[-1] / 3)
    assert spent
    assert sum(spent) <= STATES_SHARE * length


def test_states_come_at_distances_that_double_up_to_what_is_asked_for() -> None:
    requests, made = Requests(), []
    for elapsed in (half / 2 for half in range(100)):
        if requests.state_due(10.0, elapsed, 0, 0.0):
            made.append(elapsed)
            requests.state_made(0.0, elapsed, 0)
            requests.state_taken(0.0)
    assert made == [0.5, 1.5, 3.5, 7.5, 15.5, 25.5, 35.5, 45.5]
