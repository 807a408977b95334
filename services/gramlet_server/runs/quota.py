"""The bytes that each name has in the store, compared with its limit before it starts a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gramlet.errors import Overloaded

from gramlet_server.process.identity import caller

Sizes = Callable[[], Iterable[tuple[str, int]]]
"""The owner and the bytes of everything of one kind in the store."""

_RETRY_SECONDS = 60.0


class StoreQuota:
    """The limit of each name's bytes in the store.

    What a run writes while it goes on is not foreseen: a name may pass its limit by the runs that it has under way.

    Args:
        kinds: Of everything that counts: runs, which maps are as well, and heads.
    """

    def __init__(self, kinds: Sequence[Sizes]) -> None:
        self._kinds = kinds

    def check(self) -> None:
        """Refuses to store more for a caller whose name takes as much as it may.

        Raises:
            Overloaded: It does.
        """
        who = caller.get()
        if not (who.name and who.most_bytes):
            return
        used = sum(size for kind in self._kinds for owner, size in kind() if owner == who.name)
        if used >= who.most_bytes:
            message = (
                f"{who.name} has {used:,} bytes in the store, at most {who.most_bytes:,}: delete runs, maps or heads"
            )
            raise Overloaded(message, retry_after=_RETRY_SECONDS)
