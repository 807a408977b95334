"""The fence holds in thousands of schedules of crashes and late writes, and each of its parts is needed for that."""

from __future__ import annotations

import pytest

from tests.runs.mutations import MUTATIONS, Mutation
from tests.runs.simulation import search, simulate

SCHEDULES = 10_000


@pytest.mark.parametrize("first", range(0, SCHEDULES, 1000))
def test_no_schedule_breaks_the_fence(first: int) -> None:
    found = search(first, 1000)
    assert found is None, f"python -m tests.runs.simulation {found[0]}: {found[1]}"


def test_a_seed_repeats_its_schedule() -> None:
    first: list[str] = []
    again: list[str] = []
    simulate(7, first.append)
    simulate(7, again.append)
    assert [line.partition(" b'2")[0] for line in first] == [line.partition(" b'2")[0] for line in again]
    assert len(first) > 100


@pytest.mark.parametrize(("mutation", "seed"), MUTATIONS.items(), ids=lambda value: getattr(value, "__name__", value))
def test_a_schedule_shows_what_each_part_of_the_fence_prevents(mutation: Mutation, seed: int) -> None:
    with mutation():
        found = search(seed, SCHEDULES)
    assert found is not None
    print(f"python -m tests.runs.mutations {mutation.__name__} {found[0]}: {found[1]}")
