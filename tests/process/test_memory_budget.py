"""Work reserves memory before it allocates; what finds no room is refused, and nothing stays reserved."""

from __future__ import annotations

import contextlib
import gc
import io
import math
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from gramlet.errors import InvalidInput, Overloaded
from gramlet.types import Limits, Resize
from gramlet_server.feature.cache import Cache
from gramlet_server.pictures.decode import decode, opacity
from gramlet_server.pictures.prepare import prepare
from gramlet_server.process import memory_budget
from gramlet_server.process.allocator import Allocator
from gramlet_server.process.memory_budget import PROCESS, Budget, OneAtATime
from gramlet_server.runtime.memory import FreedMemory
from gramlet_server.telemetry import Observer
from PIL import Image

MEGABYTE = 2**20


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Budget]:
    monkeypatch.setattr(memory_budget, "WAIT_SECONDS", 0.0)
    gc.collect()
    PROCESS.set_limit(1)
    with contextlib.suppress(Overloaded), PROCESS.reserve(1):  # empties the caches of other tests
        pass
    before = PROCESS.reserved
    PROCESS.set_limit(before + 20_000_000)
    yield PROCESS
    PROCESS.set_limit(math.inf)


def test_a_reservation_is_given_back_however_its_work_ends() -> None:
    budget = Budget(100)
    with pytest.raises(ZeroDivisionError), budget.reserve(60):
        raise ZeroDivisionError
    with budget.reserve(60) as room:
        room.resize(90)
        assert budget.reserved == 90
        room.resize(10)
        assert budget.reserved == 10
    assert budget.reserved == 0


def test_what_never_has_room_is_invalid_and_what_has_none_now_is_overloaded() -> None:
    budget = Budget(100)
    with pytest.raises(InvalidInput, match="this server has 100") as caught:
        budget.reserve(101, "picture")
    assert caught.value.field == "picture"
    with budget.reserve(60):
        with pytest.raises(Overloaded) as refused:
            budget.reserve(41, wait=0)
        assert refused.value.retry_after
        assert budget.reserved == 60


def test_work_waits_for_room() -> None:
    budget = Budget(100)
    first = budget.reserve(100)
    got = threading.Event()

    def second() -> None:
        with budget.reserve(100, wait=30):
            got.set()

    thread = threading.Thread(target=second)
    thread.start()
    first.close()
    assert got.wait(30)
    thread.join(30)
    assert budget.reserved == 0


def test_what_is_given_back_while_a_thread_has_the_lock_is_found_by_the_one_that_waits() -> None:
    budget = Budget(100)
    first, waits, taken = budget.reserve(100), threading.Event(), []

    def wait() -> None:
        waits.set()
        taken.append(budget.reserve(100, wait=60.0))

    waiting = threading.Thread(target=wait)
    waiting.start()
    waits.wait()
    while not budget.is_wanted:
        pass
    with budget._changed:  # as another thread's: giving back finds the lock taken, and nobody is woken
        first.close()
    waiting.join(30.0)
    assert len(taken) == 1


def test_an_array_keeps_its_bytes_until_it_is_garbage() -> None:
    budget = Budget(1000)
    array = np.zeros(100, np.uint8)
    budget.reserve(500).keep_for(array)
    assert budget.reserved == 100
    view = array[10:]
    del array
    gc.collect()
    assert budget.reserved == 100
    del view
    gc.collect()
    assert budget.reserved == 0


def test_work_of_which_one_piece_is_done_at_a_time_takes_the_room_of_the_largest() -> None:
    budget = Budget(100)
    room = OneAtATime(budget)
    small, large = room.take(30), room.take(70)
    assert budget.reserved == 70
    with pytest.raises(InvalidInput):
        room.take(101)
    large.close()
    large.close()
    assert budget.reserved == 30
    with budget.reserve(60), room.take(20):
        assert budget.reserved == 90
    del small
    gc.collect()
    assert budget.reserved == 0


def test_a_piece_that_finds_no_room_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "WAIT_SECONDS", 0.0)
    budget = Budget(100)
    room = OneAtATime(budget)
    with budget.reserve(50), room.take(40):
        with pytest.raises(Overloaded):
            room.take(60)
        assert budget.reserved == 90
    assert budget.reserved == 0


def test_caches_give_way_to_requests() -> None:
    budget = Budget(100)
    cache: Cache[bytes] = Cache("test", 80, Observer(), len, budget)
    cache.put("a", bytes(30))
    cache.put("b", bytes(30))
    assert budget.reserved == cache.bytes == 60
    with budget.reserve(50):
        assert cache.bytes == 0
        cache.put("c", bytes(51))  # there is no room for it
        cache.put("d", bytes(50))
        assert (cache.get("c"), cache.get("d")) == (None, bytes(50))
    cache.clear()
    assert budget.reserved == 0


def test_what_the_garbage_collector_gives_back_does_not_wait_for_the_lock() -> None:
    budget = Budget(100)
    reservation = budget.reserve(60)
    with budget._changed:  # as if it ran inside of a reservation
        del reservation
        gc.collect()
    assert budget.reserved == 0


def test_decoded_pictures_are_counted_while_they_live(process: Budget) -> None:
    before = process.reserved
    pixels = decode(png(1000, 700), Limits())
    assert process.reserved - before == pixels.nbytes
    floats = prepare(pixels, Resize(), Limits())
    assert process.reserved - before == pixels.nbytes + floats.nbytes
    del pixels, floats
    gc.collect()
    assert process.reserved == before


@pytest.mark.parametrize("use", [decode, opacity])
def test_a_picture_that_is_too_large_for_the_server_is_refused_from_its_header(process: Budget, use: object) -> None:
    with pytest.raises((InvalidInput, Overloaded), match="memory"):
        use(png(3000, 3000, "RGBA"), Limits())  # type: ignore[operator]


def test_a_full_server_refuses_pictures_with_a_time_to_retry(process: Budget) -> None:
    held = [decode(png(1000, 700), Limits()) for _ in range(6)]
    with pytest.raises(Overloaded):
        decode(png(1000, 700), Limits())
    held.clear()
    gc.collect()
    assert decode(png(1000, 700), Limits()).shape == (700, 1000, 3)


class FakeAllocator(Allocator):
    """Has handed out `used` bytes; what it returns leaves `resident`."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.resident, self.trims = 100 * MEGABYTE, 300 * MEGABYTE, 0  # 200 MiB are libraries

    is_known = True  # type: ignore[assignment]

    def used_bytes(self) -> int:
        return self.used

    def trim(self) -> None:
        self.resident, self.trims = self.used + 200 * MEGABYTE, self.trims + 1


def test_freed_memory_is_returned_once_it_was_long_unused() -> None:
    allocator = FakeAllocator()
    freed = FreedMemory(allocator, lambda: allocator.resident)
    for _ in range(20):
        freed.look()
    allocator.resident += 500 * MEGABYTE
    for _ in range(9):
        freed.look()
    allocator.used += 400 * MEGABYTE  # a pass uses it
    freed.look()
    allocator.used -= 400 * MEGABYTE
    for _ in range(9):
        freed.look()
    assert allocator.trims == 0
    freed.look()
    assert (allocator.trims, allocator.resident) == (1, 300 * MEGABYTE)
    freed.release()
    assert allocator.trims == 1


def test_a_place_is_given_only_where_there_is_room_now() -> None:
    budget = Budget(100)
    whole, suspended = OneAtATime(budget), OneAtATime(budget)
    first = suspended.try_to_take(60)
    assert first is not None
    assert budget.reserved == 60
    assert suspended.try_to_take(40) is not None  # one is done at a time
    assert suspended.try_to_take(101) is None
    assert whole.try_to_take(50) is None
    assert budget.reserved == 60
    with whole.take(40):
        assert budget.reserved == 100
    first.close()
    assert budget.reserved == 0
