"""A flat map from keys to bytes: a local directory, or S3."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gramlet.errors import AlreadyExists, DataLoss, GramletError, InvalidInput, NotFound, Unavailable, shown
from gramlet.types import new_name
from obstore import exceptions
from obstore.store import LocalStore, ObjectStore, S3Store

from gramlet_server.process.memory_budget import PROCESS

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

# For endpoints such as MinIO or SeaweedFS inside a cluster, plain http too. S3 itself is reached over https.
_CLIENT: ClientConfig = {"allow_http": True, "connect_timeout": timedelta(seconds=2)}
# A server that is away for longer is not waited for: callers of a service try again, or go to another replica.
_RETRIES: RetryConfig = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
}

_LARGE = 2**20
"""Values of more bytes reserve the memory that it takes to read them."""
_CHECKS = "check"
"""The folder of the keys that `check` writes."""
_CHECK_LASTS = timedelta(hours=1)
_CAUSE = re.compile(r'message: "([^"]*)"')
_IS_FULL = os.strerror(errno.ENOSPC)
_BEING_WRITTEN = re.compile(r".*#\d+")
"""The files of a directory that obstore writes before it renames them."""
_MOST_REPORTS = 10_000
_MOST_OWNERS = 200_000

_log = logging.getLogger(__name__)


class Owners:
    """Names by key, some of which may be forgotten. Threads may share it."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        """The owner; None if it is not known."""
        return self._names.get(key)

    def note(self, key: str, owner: str) -> None:
        """Remembers the owner."""
        if len(self._names) >= _MOST_OWNERS:
            self._names = {}
        self._names[key] = owner


@dataclass(frozen=True)
class Entry:
    """A key of the store, with its size in bytes and when it was written."""

    key: str
    size: int
    modified: datetime


class Store:
    """A flat map from keys (`heads/bees/1.safetensors`) to bytes. A reader sees a whole value or none.

    Every method raises Unavailable when the store fails. Its message is for clients: it names no address. The log has
    the reason.

    Attributes:
        address: The directory, or `s3://bucket/prefix`.
        failed: Set when a method has raised Unavailable. Whoever watches the store clears it.
        owners: Of what is in the store, by keys of it. They never change, so that lists read only once what their
            caller may not see, however much others have.
    """

    def __init__(self, backend: ObjectStore, address: str) -> None:
        self._backend = backend
        self.address = address
        self.failed = threading.Event()
        self.owners = Owners()
        self._reported: set[str] = set()

    @classmethod
    def open(cls, address: str) -> Store:
        """Opens a directory, which is created if it is missing, or `s3://bucket/prefix`.

        S3 takes its endpoint and credentials from the usual variables: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...

        Raises:
            InvalidInput: Neither kind of address, or a directory that cannot be created or written.
        """
        if address.startswith("s3://"):
            bucket, _, prefix = address.removeprefix("s3://").partition("/")
            if not bucket:
                raise InvalidInput(f"{address} names no bucket; write s3://bucket/prefix", field="--store")
            backend = S3Store(bucket, prefix=prefix or None, client_options=_CLIENT, retry_config=_RETRIES)
            return cls(backend, address)
        if "://" in address:
            raise InvalidInput(f"{address} is neither a directory nor s3://bucket/prefix", field="--store")
        return cls(_directory(address), address)

    def put(self, key: str, data: bytes) -> None:
        """Writes a value. Readers see the value before or this one, never a part."""
        with self._errors(key, writes=True):
            self._backend.put(key, data)

    def create(self, key: str, data: bytes) -> None:
        """Writes a value under a key that must be free. Of several concurrent calls exactly one succeeds.

        Raises:
            AlreadyExists: The key is taken. It may be taken by this call: requests are repeated when no answer comes.
        """
        with self._errors(key, writes=True):
            self._backend.put(key, data, mode="create")

    def get(self, key: str) -> bytes:
        """The value of a key.

        Raises:
            NotFound: The key does not exist.
            DataLoss: There is a file in its place that cannot be read.
            Overloaded: The value is large, and the server's memory has no room for it now.
        """
        with self._errors(key):
            try:
                found = self._backend.get(key)
                size = found.meta["size"]
                with PROCESS.reserve(2 * size if size > _LARGE else 0):
                    return bytes(found.bytes())
            except exceptions.GenericError:
                self._check_file(key)
                raise

    def list(self, prefix: str) -> list[Entry]:
        """The keys below a prefix, which ends at a `/` of the key, in order.

        It is no snapshot: of the keys that are written or deleted meanwhile it may show some and not others. Files of a
        directory that cannot be keys, or cannot be looked at, are left out.
        """
        with self._errors(prefix):
            try:
                chunks = [meta for chunk in self._backend.list(prefix) for meta in chunk]
                found = [Entry(meta["path"], meta["size"], meta["last_modified"]) for meta in chunks]
            except (exceptions.GenericError, exceptions.InvalidPathError):
                if not isinstance(self._backend, LocalStore):
                    raise
                found = list(self._walk(prefix))
        return sorted(found, key=lambda entry: entry.key)

    def delete(self, key: str) -> None:
        """Deletes a key, if it exists. On a directory, folders that are empty then are deleted as well."""
        with self._errors(key), suppress(exceptions.NotFoundError, FileNotFoundError):
            self._backend.delete(key)

    def clear(self, prefix: str) -> None:
        """Deletes all keys below a prefix; on a directory, also the parts of values whose writers were killed."""
        for entry in self.list(prefix):
            self.delete(entry.key)
        if isinstance(self._backend, LocalStore):
            shutil.rmtree(Path(self.address, prefix), ignore_errors=True)

    def check(self) -> None:
        """Tries every operation.

        Raises:
            Unavailable: One of them fails.
        """
        key, content = f"{_CHECKS}/{new_name()}", b"gramlet"
        self.create(key, content)
        entries = self.list(_CHECKS)
        if key not in [entry.key for entry in entries] or self._value(key) != content:
            raise self._failure(key, "it does not return what was written to it")
        left = [entry.key for entry in entries if datetime.now(UTC) - entry.modified > _CHECK_LASTS]
        for each in (key, *left):  # the others are of processes that were lost
            self.delete(each)

    def report(self, damage: DataLoss) -> None:
        """Logs something damaged that a list leaves out: once, however often the list is made."""
        if damage.message not in self._reported and len(self._reported) < _MOST_REPORTS:
            self._reported.add(damage.message)
            _log.warning("left out of lists: %s", damage)

    def _check_file(self, key: str) -> None:
        """Says what is in the place of a file, after it could not be read. Otherwise the store itself has failed."""
        if not isinstance(self._backend, LocalStore):
            return
        path = Path(self.address, key)
        try:
            readable = path.is_file() and os.access(path, os.R_OK)
            path.stat()
        except NotADirectoryError:
            raise NotFound(f"the store has no {key}") from None
        except OSError as error:
            if error.errno != errno.ELOOP:
                return
            readable = False
        if not readable:
            raise DataLoss(f"{key} in the store cannot be read: it is no file, or another user's")

    def _walk(self, prefix: str) -> Iterator[Entry]:
        """The keys of a directory in which something stops obstore's own list: links in a circle, odd names."""

        def skip(error: OSError) -> None:
            self.report(DataLoss(f"{shown(os.path.relpath(error.filename, self.address))}: {error.strerror}"))

        for folder, _, names in os.walk(Path(self.address, prefix), onerror=skip):
            for name in names:
                path = os.path.join(folder, name)
                key = os.path.relpath(path, self.address)
                try:
                    status = os.stat(path)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    skip(error)
                    continue
                if not key.isprintable():  # surrogates stand for bytes that are not UTF-8
                    self.report(DataLoss(f"{shown(key)}: no key has such a name"))
                elif not _BEING_WRITTEN.fullmatch(name):
                    yield Entry(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def _value(self, key: str) -> bytes | None:
        try:
            return self.get(key)
        except NotFound:
            return None

    @contextmanager
    def _errors(self, key: str, *, writes: bool = False) -> Iterator[None]:
        if isinstance(self._backend, LocalStore) and not Path(self.address).is_dir():
            # Otherwise a write would make the directory again: in the place of a disk that is not mounted, for example.
            raise self._failure(key, "the directory is gone")
        try:
            yield
        except ValueError:  # from obstore: a key with an empty part, or with ".."
            raise NotFound(f"the store has no {shown(key)}") from None
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            if writes:  # the bucket does not exist
                raise self._failure(key, error) from error
            raise NotFound(f"the store has no {key}") from None
        except exceptions.AlreadyExistsError:
            raise AlreadyExists(f"the store already has {key}") from None
        except (exceptions.BaseError, OSError) as error:
            raise self._failure(key, error) from error

    def _failure(self, key: str, reason: object) -> Unavailable:
        text = _in_one_line(str(reason))
        _log.error("the store %s failed at %s: %s", self.address, key, text)
        self.failed.set()
        if _IS_FULL in str(reason):
            return Unavailable("the store of the server is full: delete runs and maps, or have more room made")
        return Unavailable("the store of the server fails; the log of the server says why")


def _directory(address: str) -> LocalStore:
    if os.path.exists(address) and not os.path.isdir(address):
        raise InvalidInput(f"{address} is no directory", field="--store")
    try:
        backend = LocalStore(Path(address), mkdir=True, automatic_cleanup=True)
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise InvalidInput(f"{address} cannot be created or opened: {error}", field="--store") from None
    if not os.access(address, os.R_OK | os.W_OK | os.X_OK):
        raise InvalidInput(f"{address} cannot be written by the user of this process", field="--store")
    return backend


def _in_one_line(reason: str) -> str:
    """An error of obstore, without the tens of lines that show its types, but with what the system said in them."""
    told, _, types = reason.partition("\n\nDebug source:")
    causes = [cause for cause in _CAUSE.findall(types) if cause not in told]
    return shown("; ".join([told, *causes]))


@contextmanager
def intact(what: str) -> Iterator[None]:
    """Decodes something of the store: whatever goes wrong inside means that it is damaged.

    Args:
        what: What is decoded, for the error.

    Raises:
        DataLoss: It could not be decoded.
    """
    try:
        yield
    except GramletError:
        raise
    except Exception as error:  # the decoders of JSON, arrays and tensors raise errors of many types on damaged bytes
        reason = f"{type(error).__name__}: {error}"
        raise DataLoss(f"{what} in the store is damaged: {shown(reason)}") from error
