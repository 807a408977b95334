"""A flat map from keys to bytes: a local directory, or S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import obstore
from gramlet.errors import AlreadyExists, InvalidInput, NotFound, Unavailable
from obstore import exceptions
from obstore.store import LocalStore, ObjectStore, S3Store


@dataclass(frozen=True)
class Entry:
    """A key of the store, with its size in bytes and when it was written."""

    key: str
    size: int
    modified: datetime


class Store:
    """A flat map from keys (`heads/bees/1.safetensors`) to bytes. A reader sees a whole value or none."""

    def __init__(self, backend: ObjectStore, address: str) -> None:
        self._backend = backend
        self.address = address

    @classmethod
    def open(cls, address: str) -> Store:
        """Opens a directory, which is created if it is missing, or `s3://bucket/prefix`.

        S3 takes its endpoint and credentials from the usual variables: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...

        Raises:
            InvalidInput: Neither kind of address, or a directory that cannot be created.
        """
        if address.startswith("s3://"):
            bucket, _, prefix = address.removeprefix("s3://").partition("/")
            if not bucket:
                raise InvalidInput(f"{address} names no bucket; write s3://bucket/prefix", field="store")
            # For endpoints such as MinIO or SeaweedFS inside a cluster. S3 itself is reached over https.
            return cls(S3Store(bucket, prefix=prefix or None, client_options={"allow_http": True}), address)
        if "://" in address:
            raise InvalidInput(f"{address} is neither a directory nor s3://bucket/prefix", field="store")
        try:
            return cls(LocalStore(Path(address), mkdir=True), address)
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise InvalidInput(f"{address} cannot be created or opened: {error}", field="store") from None

    def put(self, key: str, data: bytes) -> None:
        """Writes a value. Readers see the value before or this one, never a part."""
        with self._errors(key):
            obstore.put(self._backend, key, data)

    def create(self, key: str, data: bytes) -> None:
        """Writes a value under a key that must be free. Of several concurrent calls exactly one succeeds.

        Raises:
            AlreadyExists: The key is taken.
        """
        with self._errors(key):
            obstore.put(self._backend, key, data, mode="create")

    def get(self, key: str) -> bytes:
        """The value of a key.

        Raises:
            NotFound: The key does not exist.
        """
        with self._errors(key):
            return bytes(obstore.get(self._backend, key).bytes())

    def list(self, prefix: str) -> list[Entry]:
        """The keys below a prefix, which ends at a `/` of the key, in order."""
        with self._errors(prefix):
            found = [meta for chunk in obstore.list(self._backend, prefix) for meta in chunk]
        return sorted((Entry(m["path"], m["size"], m["last_modified"]) for m in found), key=lambda entry: entry.key)

    def delete(self, key: str) -> None:
        """Deletes a key, if it exists."""
        with self._errors(key), suppress(exceptions.NotFoundError, FileNotFoundError):
            obstore.delete(self._backend, key)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (exceptions.NotFoundError, FileNotFoundError):
            raise NotFound(f"the store has no {key}") from None
        except exceptions.AlreadyExistsError:
            raise AlreadyExists(f"the store already has {key}") from None
        except (exceptions.BaseError, OSError) as error:
            raise Unavailable(f"the store {self.address} failed at {key}: {error}") from error
