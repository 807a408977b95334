"""A client, and what it returned to be read later, cannot be copied nor sent to another process: the error says so."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gramlet
import pytest

from tests.clients._async.calls import MANY, OBJECTIVE, START

ADDRESS = "127.0.0.1:1"  # which no call reaches
HELD: dict[str, Any] = {
    **MANY,
    "client": lambda client: client,
    "options": lambda client: client.with_options(timeout=1.0),
    "run": lambda client: client.run("name"),
    "differentiation": lambda client: client.differentiate(OBJECTIVE),
    "descent": lambda client: client.descend(START),
    "in a list": lambda client: [client],
}
COPIES: dict[str, Any] = {
    "copy": copy.deepcopy,
    **{f"protocol {number}": lambda held, number=number: pickle.dumps(held, number) for number in range(6)},
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("made", HELD.values(), ids=HELD.keys())
async def test_a_client_and_what_it_returned_is_not_copied(made: Any, copied: Any) -> None:
    async with gramlet.AsyncClient(ADDRESS) as client:
        held = made(client)
        with pytest.raises(gramlet.InvalidCall, match="make a client in each process"):
            copied(held)


async def test_a_shallow_copy_of_a_client_is_refused() -> None:
    async with gramlet.AsyncClient(ADDRESS) as client:
        with pytest.raises(TypeError, match="make a client in each process"):
            copy.copy(client)
