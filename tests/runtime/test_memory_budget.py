"""Work reserves memory before it allocates; what finds no room is refused, and nothing stays reserved."""

from __future__ import annotations

import gc
import io
import math
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from gramlet.errors import InvalidInput, Overloaded
from gramlet.types import Limits, Resize
from gramlet_server import memory_budget
from gramlet_server.memory_budget import PROCESS, Budget
from gramlet_server.pictures.decode import decode, opacity
from gramlet_server.pictures.prepare import prepare
from PIL import Image


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Budget]:
    monkeypatch.setattr(memory_budget, "WAIT_SECONDS", 0.0)
    gc.collect()
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
