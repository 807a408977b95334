"""The element types that a network can compute in, and which device can compute in which."""

from __future__ import annotations

from enum import Enum

import torch
from gramlet.errors import FailedPrecondition


class Precision(Enum):
    """The element type that the network computes in. TF32 and FLOAT16 are for CUDA devices only.

    MIXED is float32, except for passes that ask for reduced precision, which compute in bfloat16.
    """

    FLOAT32 = "float32"
    TF32 = "tf32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    MIXED = "mixed"

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights and of the activations."""
        return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.value, torch.float32)

    @property
    def reduced(self) -> torch.dtype:
        """The same in passes that ask for reduced precision."""
        return torch.bfloat16 if self is Precision.MIXED else self.dtype


AUTO = "auto"
"""TF32 on a CUDA device that has it, as in torch's own convolutions; float32 elsewhere."""

_CUDA_ONLY = (Precision.TF32, Precision.FLOAT16)
_AMPERE = (8, 0)
_FROM_AMPERE_ON = (Precision.TF32, Precision.BFLOAT16, Precision.MIXED)


def choose_precision(device: torch.device, wanted: str) -> Precision:
    """The precision of a name, which may be AUTO."""
    if wanted != AUTO:
        return Precision(wanted)
    has_tf32 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE
    return Precision.TF32 if has_tf32 else Precision.FLOAT32


def check_precision(device: torch.device, precision: Precision) -> None:
    """Rejects a precision that the device cannot compute in.

    Raises:
        FailedPrecondition: Naming the precisions that it can.
    """
    if device.type != "cuda":
        if precision in _CUDA_ONLY:
            raise FailedPrecondition(
                f"precision {precision.value} needs a CUDA device; on {device} use bfloat16 or float32",
                field="precision",
            )
    elif precision in _FROM_AMPERE_ON and torch.cuda.get_device_capability(device) < _AMPERE:
        raise FailedPrecondition(
            f"{torch.cuda.get_device_name(device)} has no {precision.value}: use float16 or float32", field="precision"
        )


def set_arithmetic(device: torch.device, precision: Precision) -> None:
    """Sets how CUDA's libraries compute the next pass. These settings belong to the whole process."""
    if device.type != "cuda":
        return
    # cuDNN rounds float32 to TF32 by default. That would also affect what is kept in float32 beside half precision:
    # the first layer and the Gram matrices.
    rounded = precision is Precision.TF32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = rounded
    # A resumed stylization must end at the same bits. So sums may not depend on the order in which threads finish, nor
    # the choice of an algorithm on a measured time (benchmark).
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
