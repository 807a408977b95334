"""Who makes the call that is being served, and what that caller may see.

The identity is a context variable, like the request id: a run's threads have that of the call which started them.
Threads of the server itself, such as those that take over lost runs, have no name and see everything.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from gramlet.errors import NotFound
from gramlet.transport.channel import on_behalf_of


@dataclass(frozen=True)
class Caller:
    """Who calls.

    Attributes:
        name: The name of the token, which owns what the caller makes; empty without names.
        sees_all: Whether the caller sees what others own.
        services: The services that the caller may call, such as "stylize"; None: all.
        read_only: Whether the caller may change nothing.
        most_runs: Runs that the name may have under way and waiting in one service; 0: without a limit.
        most_bytes: Bytes of the store that its runs, maps and heads may take before it can start a run; 0: without a
            limit.
        via: The token that speaks for this name; empty if it is the name's own.
        may_represent: Whether the caller may speak for other names.
    """

    name: str = ""
    sees_all: bool = True
    services: frozenset[str] | None = None
    read_only: bool = False
    most_runs: int = 0
    most_bytes: int = 0
    via: str = ""
    may_represent: bool = True


NOBODY = Caller()
"""The server itself, and every caller of a server without tokens."""
caller: ContextVar[Caller] = ContextVar("caller", default=NOBODY)
"""The caller whose call is being served."""


def act_for(who: Caller) -> None:
    """Makes this context serve a caller. Its calls to other servers are made on behalf of the name."""
    caller.set(who)
    on_behalf_of.set(who.name or None)


def may_see(owner: str) -> bool:
    """Whether the current caller may see what this name owns."""
    current = caller.get()
    return current.sees_all or current.name == owner


def check_may_see(owner: str, what: str, field: str) -> None:
    """Hides what another name owns.

    Raises:
        NotFound: It is another's. The error is that of something which does not exist.
    """
    if not may_see(owner):
        raise NotFound(what, field=field)
