"""Sweeps against the real service."""

from __future__ import annotations

from typing import Any

import gramlet

from tests.clients.servers import acollect


async def test_a_sweep_ends_with_its_grid_and_can_be_resumed(client: gramlet.AsyncClient, png: bytes) -> None:
    options: Any = {"ratios": [1.0], "deepest_stages": ["maxpool"], "size": 64, "iterations": 1, "scales": 1}
    events = await acollect(client.sweep(png, png, **options))
    again = await client.resume_sweep(events[0].run_id).result()
    result = events[-1]
    assert result.image.width > 64
    assert again.png == result.png
