"""Work ahead of a reader keeps its order, and waits when its results take too much room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from gramlet_server.feature.ahead import LargestOutcome, MapAhead, groups_of

from tests.e2e.cluster import wait_until


class Source:
    """Numbers in messages; remembers how many were asked for."""

    def __init__(self, *messages: int) -> None:
        self.messages, self.taken = messages, 0

    def __iter__(self) -> Iterator[list[int]]:
        for length in self.messages:
            first, self.taken = self.taken, self.taken + length
            yield list(range(first, self.taken))


def shares(group: Sequence[int]) -> list[Sequence[int]]:
    return [group[start : start + 2] for start in range(0, len(group), 2)]


def groups(ahead: MapAhead[int, int], source: Source, most: int = 4) -> Iterator[list[int]]:
    return ahead.map(list, groups_of(source, most), shares)


@pytest.mark.parametrize(("window", "most_bytes"), [(8, 1e9), (8, 30), (1000, 30), (1000, 1)])
def test_all_results_come_in_order(window: int, most_bytes: float) -> None:
    found = groups(MapAhead(window, most_bytes, lambda: 10), Source(1, 7, 40, 2))
    assert [number for group in found for number in group] == list(range(50))


def test_results_that_nobody_reads_take_no_more_than_their_room() -> None:
    source = Source(*[1] * 40)
    found = groups(MapAhead(1000, 30, lambda: 10), source)
    assert next(found) == [0]
    # Three have room, and the next message is at hand and waits.
    wait_until(lambda: source.taken == 5, what="the work ahead")
    assert next(found) == [1]
    wait_until(lambda: source.taken == 6, what="one more")
    found.close()  # type: ignore[attr-defined]


def test_a_group_that_has_no_room_is_split() -> None:
    found = groups(MapAhead(1000, 30, lambda: 10), Source(4), most=4)
    assert list(found) == [[0, 1, 2], [3]]


def test_the_largest_outcome_counts_once_there_is_one() -> None:
    largest = LargestOutcome(100)
    assert largest() == 100
    for size in (10, 20, 15):
        largest.see(size)
    assert largest() == 20
