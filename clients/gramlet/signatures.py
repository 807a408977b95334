"""Turns calls with unknown or missing arguments into InvalidCall, an error of the SDK like any other mistake."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from gramlet.errors import InvalidCall, did_you_mean

T = TypeVar("T")


def checks_calls(kind: type[T]) -> type[T]:
    """Lets the public methods of a class, and its making, raise InvalidCall where Python would raise TypeError.

    InvalidCall is a TypeError as well, and names the argument that may be meant. A call that is right costs nothing.
    """
    for name, value in list(vars(kind).items()):
        if inspect.isfunction(value) and (name == "__init__" or not name.startswith("_")):
            setattr(kind, name, _checked(value))
    return kind


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except TypeError as error:
            raise _explained(error, method, arguments, options) from None

    @functools.wraps(method)
    async def call_async(*arguments: Any, **options: Any) -> Any:
        try:
            return await method(*arguments, **options)
        except TypeError as error:
            raise _explained(error, method, arguments, options) from None

    return call_async if inspect.iscoroutinefunction(method) else call


def _explained(
    error: TypeError, method: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> TypeError:
    """InvalidCall if the method cannot be called like this; otherwise the error, which is of something else."""
    signature = inspect.signature(method)
    takes_all = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    unknown = [name for name in options if name not in signature.parameters and not takes_all]
    if unknown:
        hint = did_you_mean(unknown[0], [name for name in signature.parameters if name != "self"])
        return InvalidCall(f"there is no such argument{hint}", field=unknown[0])
    try:
        signature.bind(*arguments, **options)
    except TypeError as mismatch:
        return InvalidCall(f"{method.__qualname__.removesuffix('.__init__').rpartition('.')[2]}: {mismatch}")
    return error
