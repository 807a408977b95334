"""What must hold in every schedule of the simulation.

- After a take-over, no write of an earlier owner that arrives later is ever read.
- Durable progress never goes back: no reader gets less than a write that had succeeded, or an earlier read, before it
  began. "Nothing there" is less than anything.
- A finished result, an order, an entry of a log are never lost.
- A run of which a deletion has begun is not found again, and its values are not read in a run of the same id.
- A sweep does not delete a run that was just taken over.
- Of several processes one creates a run.
- When all is over, a run that is deleted has left nothing in the store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field


class Violation(AssertionError):
    """Something that must hold does not."""


@dataclass
class Life:
    """A run from its creation to its deletion."""

    number: int
    folder: str
    deleted: int | None = None  # when its deletion began
    is_found: bool = False  # by another process than its creator
    floor: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by name: the progress that is durable
    takeovers: list[tuple[int, int]] = field(default_factory=list)  # epoch, when it returned


@dataclass(frozen=True)
class Before:
    """What was durable when a call began."""

    time: int
    life: Life | None
    floor: dict[str, int]


class Judge:
    """Follows what processes do, and raises Violation."""

    def __init__(self, now: Callable[[], int], old: int) -> None:
        self._now = now
        self._old = old
        self.lives: list[Life] = []
        self._buried: dict[str, int] = {}  # by folder: when the key arrived with which its run is deleted
        self._owned: dict[str, int] = {}  # by folder: when the last owner arrived
        self._arrivals: dict[bytes, tuple[int, int]] = {}  # of a value: when it first arrived, and its epoch
        self._writes = 0

    # --- what arrives at the store ---

    def arrived(self, key: str, data: bytes, action: str) -> None:
        """A write of the process and action `action` has arrived."""
        parts = key.split("/")
        if parts[-1] == "owner" and data:
            self._owned[parts[3]] = self._now()
        if parts[-1] == "owner" and not data and parts[3] not in self._buried:
            if action.endswith("sweep") and self._now() - self._owned.get(parts[3], 0) < self._old:
                raise Violation(f"a sweep deletes a run that was taken over at {self._owned[parts[3]]}")
            self._buried[parts[3]] = self._now()
            for life in self.lives:
                if life.folder == parts[3] and life.deleted is None:
                    life.deleted = self._now()
        if data.startswith(b"life "):
            self._arrivals.setdefault(data, (self._now(), int(parts[4]) if parts[4].isdigit() else 0))

    # --- what processes do ---

    def value(self, life: Life, progress: int) -> bytes:
        """A value to write, different from every other."""
        self._writes += 1
        return f"life {life.number} progress {progress} write {self._writes}".encode()

    def before(self) -> Before:
        """Call it before a call that is judged."""
        life = self._living()
        return Before(self._now(), life, dict(life.floor) if life else {})

    def created(self, before: Before, folder: str) -> Life:
        """A run was created."""
        if before.life and before.life.deleted is None:
            raise Violation(f"a run was created, but life {before.life.number} exists")
        for life in self.lives:  # another process may have found it before its creator knew
            if life.folder == folder and life.is_found:
                life.is_found = False
                return life
        buried = self._buried.get(folder, -1)
        life = Life(len(self.lives), folder, buried if buried >= before.time else None)
        self.lives.append(life)
        return life

    def life_in(self, folder: str) -> Life:
        """The life whose keys are in a folder. Its creator may have crashed before it knew that it was created."""
        for life in reversed(self.lives):
            if life.folder == folder:
                return life
        self.lives.append(Life(len(self.lives), folder, self._buried.get(folder), is_found=True))
        return self.lives[-1]

    def taken_over(self, life: Life, epoch: int) -> None:
        """A take-over has returned."""
        life.takeovers.append((epoch, self._now()))

    def durable(self, life: Life, name: str, progress: int) -> None:
        """A write has succeeded."""
        life.floor[name] = max(life.floor[name], progress)

    def not_found(self, before: Before) -> None:
        """There was no run."""
        if before.life and before.life.deleted is None:
            raise Violation(f"life {before.life.number} was not found")

    def read(self, before: Before, bound: Life, name: str, data: bytes | None) -> int:
        """A value was read in a life, or none. Returns the progress that it says."""
        is_alive = bound is before.life and bound.deleted is None
        floor = before.floor.get(name, 0) if is_alive else 0
        if data is None:
            if floor and not (name == "state" and bound.floor["result"]):
                raise Violation(f"{name} was not there, but {floor} was durable")
            return 0
        if not data:
            raise Violation(f"{name} was read while it was dropped")
        words = data.split()
        life, progress = self.lives[int(words[1])], int(words[3])
        if life is not bound:
            raise Violation(f"{name} of life {life.number} was read in life {bound.number}")
        if life.deleted is not None and life.deleted < before.time:
            raise Violation(f"{name} of life {life.number} was read, which was deleted before")
        self._check_owner(before, life, name, data)
        if progress < floor:
            raise Violation(f"{name} went back: {progress}, after {floor} was durable")
        self.durable(life, name, progress)
        return progress

    def read_log(self, before: Before, bound: Life, entries: list[bytes]) -> int:
        """A log was read. Returns the number of its entries."""
        numbers = [int(entry.split()[3]) for entry in entries]
        if numbers != list(range(1, len(numbers) + 1)):
            raise Violation(f"the log has the entries {numbers}")
        if bound is before.life and bound.deleted is None and len(entries) < before.floor.get("log", 0):
            raise Violation(f"the log has {len(entries)} entries, after {before.floor['log']} were durable")
        return len(entries)

    def _living(self) -> Life | None:
        return next((life for life in self.lives if life.deleted is None), None)

    def _check_owner(self, before: Before, life: Life, name: str, data: bytes) -> None:
        arrived, epoch = self._arrivals[data]
        for taken, returned in life.takeovers:
            if epoch < taken and returned <= before.time and arrived > returned:
                raise Violation(f"{name} of epoch {epoch} was read, which arrived after the take-over of epoch {taken}")
