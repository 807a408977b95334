"""Ten times more calls than a server can take: it stays small and quick, and says when to come back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore

import grpc
import numpy as np
import pytest
from gramlet import Client
from gramlet.errors import GramletError, Overloaded
from gramlet.feature.types import Extraction, Features, Form
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.feature.wire import encode_extract_request
from gramlet.transport.failures import decode_rpc_error
from gramlet.types import Array

from tests.e2e.cluster import Cluster, GramletServer, ready
from tests.e2e.conftest import LONG

PICTURE_SECONDS = 0.05
QUEUE = 8
BATCH = 4
OFFERED = 10  # times what it can take
SECONDS = 60 if LONG else 5
EXTRACTION = Extraction(stages=("conv1",), forms=(Form.POOLED,))


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[GramletServer]:
    limits = f"--queue-limit={QUEUE}", f"--batch-pictures={BATCH}"
    server = cluster.features(*limits, seconds_per_picture=PICTURE_SECONDS)
    with ready(server):
        yield server


@pytest.fixture(scope="module")
def picture() -> Array:
    return np.random.default_rng(0).random((3, 32, 32), dtype=np.float32)


def test_calls_beyond_the_queue_are_refused_before_any_work_and_cost_the_others_nothing(
    server: GramletServer, picture: Array
):
    refused: list[GramletError] = []
    waited: list[float] = []
    under_way = BoundedSemaphore(1000)

    def ended(call: grpc.Future) -> None:
        error = call.exception()
        if error is None:
            waited.append(call.result().results[0].features.timing.queue_seconds)
        else:
            refused.append(decode_rpc_error(error, server.address))
        under_way.release()

    def offer(seconds: float) -> int:
        """Calls at a fixed rate, whether or not the earlier ones were answered."""
        began, calls = time.perf_counter(), int(seconds * OFFERED / PICTURE_SECONDS)
        for number in range(calls):
            time.sleep(max(0.0, began + number * PICTURE_SECONDS / OFFERED - time.perf_counter()))
            under_way.acquire()
            extract.future(request).add_done_callback(ended)
        for _ in range(1000):
            under_way.acquire()
        for _ in range(1000):
            under_way.release()
        return calls

    request: feature_pb2.ExtractRequest = encode_extract_request(EXTRACTION, [picture])
    with grpc.insecure_channel(server.address) as channel:
        extract = feature_pb2_grpc.FeatureServiceStub(channel).Extract
        offer(1.0)  # threads and buffers that come with the first crowd
        refused.clear()
        waited.clear()
        memory, worked = server.resident_bytes, server.metric("gramlet_device_seconds_total")
        calls = offer(SECONDS)
        memory, worked = server.resident_bytes - memory, server.metric("gramlet_device_seconds_total") - worked

    admitted = f"{len(waited)} admitted, which waited up to {max(waited):.2f} s"
    print(f"{calls} calls offered, {admitted}; memory {memory / 2**20:+.0f} MiB")
    assert len(waited) + len(refused) == calls
    assert all(isinstance(error, Overloaded) for error in refused), {type(error) for error in refused}
    assert all(error.retry_after and error.retry_after > 0 for error in refused)
    assert len(refused) > calls / 2
    # Before any work: the device worked for the admitted alone.
    assert worked < (len(waited) + BATCH) * PICTURE_SECONDS * 1.5
    # Nobody who was admitted waits for more than the queue before him and the pass under way; half as much again for a
    # busy machine.
    assert max(waited) < (QUEUE + BATCH) * PICTURE_SECONDS * 1.5
    assert memory < 32 * 2**20


def test_a_crowd_that_heeds_the_retry_info_gets_through(server: GramletServer, picture: Array):
    crowd = OFFERED * (QUEUE + BATCH)
    with Client(server.address) as client, ThreadPoolExecutor(crowd) as pool:
        calls = [pool.submit(client.features, picture, stages=["conv1"], pooled=True) for _ in range(crowd)]
        assert all(isinstance(call.result(), Features) for call in calls)
    assert server.metric("gramlet_requests_total", code="RESOURCE_EXHAUSTED") > 0
