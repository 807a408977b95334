"""Many inputs, as asynchronous callers give them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")


async def aiter_of(values: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """The values, which may come asynchronously or not."""
    if isinstance(values, AsyncIterable):
        async for value in values:
            yield value
    else:
        for value in values:
            yield value
