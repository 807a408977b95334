"""Random messages, valid and mutated, to every RPC: the server never fails with a bug, and is afterwards as before.

GRAMLET_LONG_TESTS=1 sends 30,000 messages in place of some hundreds.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from gramlet.stylize.v1 import stylize_pb2, stylize_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.cluster import wait_until
from tests.guards.product import serving_all

EXAMPLES = 1200 if os.environ.get("GRAMLET_LONG_TESTS") else 6
SECONDS = 3.0
"""How long a call may take: then it is cancelled, as its caller might do at any moment."""
ALLOWED = {code for code in grpc.StatusCode if code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)}

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000008000000080802000000"
    "4b6d29dc0000001149444154789c63f8cf80159060180612002f2d3fc1b90f8a480000000049454e44ae426082"
)
WORDS = [
    "",
    "a",
    "run-1",
    "conv1",
    "layer1",
    "layer4",
    "avgpool",
    "train",
    "val",
    "../x",
    "x" * 70,
    "\u202e\0",
    "{{data}}",
]
FLOATS = [0.0, 1.0, 1e-3, 0.5, -1.0, 1e308, float("nan"), float("inf"), 1e-308]
WHOLE = [0, 1, 2, 3, 8, 16, 64, 1000, 2**31 - 1, 2**32 - 1]


def methods() -> list[MethodDescriptor]:
    return [
        method
        for name in ("feature", "stylize", "train", "embed", "run")
        for service in import_module(f"gramlet.{name}.v1.{name}_pb2").DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def value_of(field: FieldDescriptor, rng: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return rng.choice([b"", PNG, PNG[:40], rng.randbytes(24), bytes(192)])
            return rng.choice(WORDS)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return rng.choice(FLOATS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice([value.number for value in field.enum_type.values] + [99])
        case FieldDescriptor.CPPTYPE_INT32:
            return rng.choice([number for number in WHOLE if number < 2**31])
        case _:
            return rng.choice(WHOLE)


def message_of(descriptor: Descriptor, rng: random.Random, depth: int = 0) -> Any:
    """A message with a random choice of its fields."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if rng.random() < (0.4 if depth < 5 else 0.9):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)[rng.choice(WORDS)] = rng.choice(FLOATS)
        elif field.message_type is not None:
            for _ in range(rng.choice([1, 2, 40]) if field.is_repeated else 1):
                made = message_of(field.message_type, rng, depth + 1)
                into = getattr(message, field.name)
                into.add().CopyFrom(made) if field.is_repeated else into.CopyFrom(made)
        elif field.is_repeated:
            getattr(message, field.name).extend(value_of(field, rng) for _ in range(rng.choice([1, 2, 40])))
        else:
            setattr(message, field.name, value_of(field, rng))
    return message


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a message with some of them changed, lost or doubled."""
    changed = bytearray(data)
    for _ in range(rng.choice([0, 0, 1, 4])):
        if changed:
            at = rng.randrange(len(changed))
            changed[at : at + rng.choice([0, 1, 1, 8])] = rng.randbytes(rng.choice([0, 1, 4]))
    return bytes(changed)


def outcome(
    channel: grpc.Channel, method: MethodDescriptor, seed: int, metadata: tuple[tuple[str, str], ...] = ()
) -> grpc.StatusCode:
    """Sends some messages to an RPC, reads some replies and leaves."""
    rng = random.Random(seed)
    count = rng.choice([1, 2, 5]) if method.client_streaming else 1
    requests = [mutated(message_of(method.input_type, rng).SerializeToString(), rng) for _ in range(count)]
    call: Any = channel.stream_stream(f"/{method.containing_service.full_name}/{method.name}")(
        iter(requests), timeout=SECONDS, metadata=metadata
    )
    try:
        for _ in zip(range(rng.choice([1, 5, 50])), call, strict=False):
            pass
        if rng.random() < 0.5:
            call.cancel()
        return grpc.StatusCode.OK
    except grpc.RpcError:
        code: grpc.StatusCode = call.code()
        return code
    finally:
        call.cancel()


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    store: Path = tmp_path_factory.mktemp("store")
    with serving_all("--weights", "random:0", "--store", str(store)) as address, grpc.insecure_channel(address) as made:
        yield made


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_no_message_is_a_bug(channel: grpc.Channel, method: MethodDescriptor) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(seed=st.integers(0, 2**32))
    def send(seed: int) -> None:
        assert outcome(channel, method, seed) in ALLOWED, seed

    send()


def test_nothing_is_left_behind(channel: grpc.Channel) -> None:
    """Runs after the others of this file: no run goes on without its caller, and no thread stays with one."""
    stub: Any = stylize_pb2_grpc.StylizeServiceStub(channel)

    def is_idle() -> bool:
        status = stub.GetStatus(stylize_pb2.GetStatusRequest(), timeout=30)
        return not (status.running or status.queued)

    def runs() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name in ("run", "keeper", "descent-requests")]

    wait_until(lambda: not runs(), what="the threads of all runs have ended")
    wait_until(is_idle, what="no stylization is left")
