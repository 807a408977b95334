"""A client of the real services."""

from __future__ import annotations

from collections.abc import AsyncIterator

import gramlet
import pytest


@pytest.fixture
async def client(address: str) -> AsyncIterator[gramlet.AsyncClient]:
    """A client of the real FeatureService and StylizeService."""
    async with gramlet.AsyncClient(address) as client:
        yield client
