"""A run in the store, with a fence: the process that created its highest epoch owns it.

Each owner writes only below its own epoch. So a process that has lost its run cannot overwrite the values of the next
owner. It learns of the loss at its next write.
"""

from __future__ import annotations

from datetime import UTC, datetime

from gramlet.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound
from gramlet.types import check_name, new_name

from gramlet_server.runs.store import Store


class Run:
    """A run in the store. The process that created its highest epoch owns it.

    Keys: `runs/<kind>/<run id>/<epoch>/owner`, next to the values of that epoch; and
    `runs/<kind>/<run id>/<log>/<number>`, logs outside of any epoch, which every process may append to.
    """

    def __init__(self, store: Store, kind: str, run_id: str, epoch: int) -> None:
        self._store = store
        self.run_id = run_id
        self.epoch = epoch
        self._prefix = f"runs/{kind}/{run_id}"

    @classmethod
    def create(cls, store: Store, kind: str, run_id: str = "") -> Run:
        """Begins a run. Without an id it gets a random one.

        Raises:
            InvalidInput: The id is not 1 to 64 letters, digits, '-' or '_'.
            AlreadyExists: There is a run of that id.
        """
        run = cls(store, kind, check_name(run_id or new_name(), "run_id"), 1)
        try:
            run._own()
        except AlreadyExists:
            raise AlreadyExists(f"run {run_id} exists: resume it, or choose another name", field="run_id") from None
        return run

    @classmethod
    def take_over(cls, store: Store, kind: str, run_id: str) -> Run:
        """Becomes the owner of a run. The owner before fails at its next write.

        Raises:
            InvalidInput: Not a valid id.
            NotFound: There is no such run.
            Aborted: Another process took it over at the same moment.
        """
        run = cls(store, kind, check_name(run_id, "run_id"), 0)
        newest = run._newest_epoch()
        if newest == 0:
            raise NotFound(f"the store {store.address} has no run {run_id}", field="resume_run_id")
        run.epoch = newest + 1
        try:
            run._own()
        except AlreadyExists:
            raise Aborted(f"run {run_id} was taken over by another process at the same moment") from None
        return run

    @classmethod
    def find(cls, store: Store, kind: str, run_id: str) -> Run:
        """A run to read and to append to, which another process may own.

        Raises:
            InvalidInput: Not a valid id.
            NotFound: There is no such run.
        """
        run = cls(store, kind, check_name(run_id, "run_id"), 0)
        if run._newest_epoch() == 0:
            raise NotFound(f"the store {store.address} has no run {run_id}", field="run_id")
        return run

    def check_weights(self, made_with: str, serving: str, field: str = "resume_run_id") -> None:
        """Compares the digest of the weights that the run was begun with to that of the network here.

        Raises:
            FailedPrecondition: They differ.
        """
        if made_with != serving:
            raise FailedPrecondition(
                f"run {self.run_id} was made with other weights than this network's ({serving[:12]})", field=field
            )

    def append(self, log: str, number: int, data: bytes) -> None:
        """Writes a numbered entry of a log. Every process may, whether it owns the run or not.

        Raises:
            AlreadyExists: The number is taken.
        """
        self._store.create(f"{self._prefix}/{log}/{number:08d}", data)

    def log(self, log: str, after: int = 0) -> list[bytes]:
        """The entries of a log in order, without the first `after` ones."""
        return [self._store.get(entry.key) for entry in self._store.list(f"{self._prefix}/{log}")[after:]]

    def put(self, name: str, data: bytes) -> None:
        """Writes a value of the run, then deletes the copies of earlier epochs.

        Raises:
            Aborted: Another process owns the run now.
        """
        if self._newest_epoch() != self.epoch:
            raise Aborted(f"run {self.run_id} was taken over by another process")
        self._store.put(self._key(self.epoch, name), data)
        for epoch in self._epochs_with(name):
            if epoch < self.epoch:
                self._store.delete(self._key(epoch, name))

    def get(self, name: str) -> bytes:
        """The newest value of that name.

        Raises:
            NotFound: No epoch has one.
        """
        data = self.value(name)
        if data is None:
            raise NotFound(f"run {self.run_id} has no {name}")
        return data

    def value(self, name: str) -> bytes | None:
        """The newest value of that name; None where no epoch has one."""
        epochs = self._epochs_with(name)
        return self._store.get(self._key(max(epochs), name)) if epochs else None

    def has(self, name: str) -> bool:
        """Whether any epoch has a value of that name."""
        return bool(self._epochs_with(name))

    def delete(self) -> None:
        """Deletes the run and all of its values and logs."""
        for entry in self._store.list(self._prefix):
            self._store.delete(entry.key)

    def _own(self) -> None:
        self._store.create(self._key(self.epoch, "owner"), datetime.now(UTC).isoformat().encode())

    def _newest_epoch(self) -> int:
        return max(self._epochs_with("owner"), default=0)

    def _epochs_with(self, name: str) -> list[int]:
        suffix = f"/{name}"
        keys = (entry.key for entry in self._store.list(self._prefix))
        return [int(key.removesuffix(suffix).rpartition("/")[2]) for key in keys if key.endswith(suffix)]

    def _key(self, epoch: int, name: str) -> str:
        return f"{self._prefix}/{epoch:08d}/{name}"
