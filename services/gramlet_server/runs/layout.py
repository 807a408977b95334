"""The keys of a run, and what a list of them says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gramlet.errors import AlreadyExists, DataLoss, InvalidInput, NotFound
from gramlet.types import check_name, new_name

from gramlet_server.runs.store import Entry, Store


@dataclass(frozen=True, order=True)
class Version:
    """A value as one of the run's owners wrote it. Versions of a name are ordered by epoch, then by number.

    Attributes:
        epoch: Of the owner.
        number: Counts the writes of the owner, from 1. Number 0 is empty, and says that there were earlier versions.
        name: Of the value.
        size: In bytes. An empty version says that the value was dropped.
    """

    epoch: int
    number: int
    name: str
    size: int = field(default=0, compare=False)

    @property
    def path(self) -> str:
        """The key, without the folder of the run."""
        return f"{self.epoch:08d}/{self.name}.{self.number:08d}"


@dataclass(frozen=True)
class Listing:
    """What a list of a run's keys shows.

    Attributes:
        entries: All keys, those of logs included.
        owners: By epoch: the size of the key `owner`. It is 0 in the last epoch of a run that is being deleted.
        versions: Of each name, in order.
    """

    entries: Sequence[Entry] = ()
    owners: Mapping[int, int] = field(default_factory=dict)
    versions: Mapping[str, Sequence[Version]] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Sequence[Entry], prefix: str) -> Listing:
        """Reads a list of the keys below a prefix."""
        owners: dict[int, int] = {}
        versions: dict[str, list[Version]] = defaultdict(list)
        for entry in entries:
            epoch, _, path = entry.key[len(prefix) :].partition("/")
            if not epoch.isdecimal():  # an entry of a log
                continue
            if path == "owner":
                owners[int(epoch)] = entry.size
            elif path != "base":
                name, _, number = path.rpartition(".")
                if name and number.isdecimal():  # not something that gramlet did not write
                    versions[name].append(Version(int(epoch), int(number), name, entry.size))
        return cls(entries, owners, {name: sorted(found) for name, found in versions.items()})

    @property
    def epoch(self) -> int:
        """The highest epoch; 0 if there is none."""
        return max(self.owners, default=0)

    @property
    def is_deleted(self) -> bool:
        """Whether the run is being deleted."""
        return self.owners.get(self.epoch) == 0

    @property
    def is_alive(self) -> bool:
        """Whether the run exists."""
        return bool(self.epoch) and not self.is_deleted

    def newest(self, name: str, epoch: int) -> Version | None:
        """The newest version that the owner of an epoch wrote."""
        return max((version for version in self.versions.get(name, ()) if version.epoch == epoch), default=None)

    def at(self, name: str, path: str) -> Version | None:
        """The version of a name with that path, if it is there."""
        return next((version for version in self.versions.get(name, ()) if version.path == path), None)


class Folder:
    """The folder of a run: all of its keys but `current`.

    Attributes:
        place: `runs/<kind>/<run id>`, below which the folder is.
        name: Its name. A run that is created again under the same id has another one.
    """

    def __init__(self, store: Store, place: str, name: str) -> None:
        self._store = store
        self.place = place
        self.name = name

    @classmethod
    def current(cls, store: Store, place: str) -> Folder | None:
        """The folder that `current` names; None if there is no such run.

        Raises:
            DataLoss: It does not hold a name.
        """
        key = f"{place}/current"
        try:
            data = store.get(key)
        except NotFound:
            return None
        try:
            return cls(store, place, check_name(data.decode(), key))
        except (UnicodeDecodeError, InvalidInput):
            raise DataLoss(f"{key} in the store is damaged") from None

    @classmethod
    def new(cls, store: Store, place: str) -> Folder | None:
        """A folder for a new run, or the one that another process has made for it. None if that was just deleted."""
        folder = cls(store, place, new_name())
        try:
            store.create(f"{place}/current", folder.name.encode())
        except AlreadyExists:
            return cls.current(store, place)
        return folder

    @property
    def is_current(self) -> bool:
        """Whether `current` names this folder."""
        current = Folder.current(self._store, self.place)
        return current is not None and current.name == self.name

    def key(self, path: str) -> str:
        """The key of a path in the folder."""
        return f"{self.place}/{self.name}/{path}"

    def list(self) -> Listing:
        """Lists the folder."""
        return Listing.of(self._store.list(f"{self.place}/{self.name}"), self.key(""))

    def own(self, epoch: int) -> bool:
        """Creates the key `owner` of an epoch; whether this call did."""
        me = f"{datetime.now(UTC).isoformat()} {new_name()}".encode()
        if self._create(epoch, me):
            return True
        try:  # the store's client repeats a request that got no answer, so the key may be ours
            return self._store.get(self.owner(epoch)) == me
        except NotFound:
            return False

    def bury(self, epoch: int) -> bool:
        """Creates an empty key `owner`, with which a run is deleted; whether this call did."""
        return self._create(epoch, b"")

    def is_owned(self, epoch: int) -> bool:
        """Whether the epoch has an owner."""
        try:
            self._store.get(self.owner(epoch))
        except NotFound:
            return False
        return True

    def disown(self, epoch: int) -> None:
        """Deletes the key `owner` of an epoch."""
        self._store.delete(self.owner(epoch))

    def owner(self, epoch: int) -> str:
        """The key `owner` of an epoch."""
        return self.key(f"{epoch:08d}/owner")

    def _create(self, epoch: int, content: bytes) -> bool:
        try:
            self._store.create(self.owner(epoch), content)
        except AlreadyExists:
            return False
        return True
