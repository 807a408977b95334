"""The state of a descent, as a file that another process can go on from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gramlet.errors import InvalidInput
from gramlet.feature.descent_types import DescentSettings
from gramlet.json_codec import from_json, to_json
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from gramlet_server.backbone.tensor_file import metadata_of_file, parts_of_file

CHUNK_BYTES = 3 * 2**20
"""A state travels in messages of this size, which every server and client takes: gRPC's default limit is 4 MiB."""

_FORMAT = "gramlet-descent-1"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a state holds beside tensors.

    Attributes:
        iteration: Iterations done.
        evaluations: Evaluations of loss and gradient so far.
        number: Of the weights in force.
        restarts: How often the descent has diverged.
        bound: A larger loss is divergence; None before the first one is known.
        best: The loss terms at the best picture; None before the first are known.
        reached: The loss terms where a line search ended; None where none did.
        queue_seconds, compute_seconds: The time of all iterations.
        settings: Of the optimizer whose history it holds; None where it holds none.
    """

    iteration: int = 0
    evaluations: int = 0
    number: int = 0
    restarts: int = 0
    bound: float | None = None
    best: tuple[float, ...] | None = None
    reached: tuple[float, ...] | None = None
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    settings: DescentSettings | None = None


@dataclass(frozen=True)
class Snapshot:
    """A descent between two iterations.

    Attributes:
        counts: Its numbers.
        picture: (C, H, W): the canvas.
        tensors: `best` and `reached` (a gradient), each like the picture, as far as they exist.
        optimizer: The optimizer's state; empty for one that starts without a history.
        reweighted: New weights came into force here. Not written.
        seconds: How long it took to make. Not written.
    """

    counts: Counts
    picture: Tensor
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    reweighted: bool = False
    seconds: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether it holds more than the picture: a descent of the same size goes on as if it had never stopped."""
        return self.counts.settings is not None

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The same in parts of at most CHUNK_BYTES.

        A state may have 600 MB; no part of it is copied before it is sent.
        """
        optimizer = {f"optimizer.{name}": tensor for name, tensor in self.optimizer.items()}
        tensors = {"picture": self.picture, **self.tensors, **optimizer}
        for part in parts_of_file(tensors, {"format": _FORMAT, "counts": to_json(self.counts).decode()}):
            for begin in range(0, len(part), CHUNK_BYTES):
                yield bytes(part[begin : begin + CHUNK_BYTES])

    @classmethod
    def from_bytes(cls, data: bytes, field: str = "state") -> Snapshot:
        """What `to_bytes` wrote.

        Raises:
            InvalidInput: The data is no such file.
        """
        try:
            tensors = load(data)
            counts = _counts(data)
            picture = tensors.pop("picture")
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise InvalidInput("this is not a state of a descent: send one as it was handed out", field=field) from None
        optimizer = {name.removeprefix("optimizer."): tensors.pop(name) for name in [*tensors] if "." in name}
        if picture.ndim != 3 or any(each.shape != picture.shape for each in tensors.values()):
            raise InvalidInput("the state's tensors do not go together", field=field)
        return cls(counts, picture, tensors, optimizer)


def _counts(data: bytes) -> Counts:
    metadata = metadata_of_file(data)
    if metadata["format"] != _FORMAT:
        raise ValueError(metadata["format"])
    return from_json(Counts, metadata["counts"].encode())
