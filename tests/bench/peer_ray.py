"""Ray Serve with the bare embedder: `python peer_ray.py PORT`. POST / a JPEG file gives float32 bytes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

ROOT = str(Path(__file__).parents[2])
BATCH = 16
PATIENCE = 0.02


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})  # type: ignore[untyped-decorator]
class Embedding:
    def __init__(self) -> None:
        from tests.bench.embedding import Embedder

        self.embedder = Embedder()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=PATIENCE)  # type: ignore[untyped-decorator]
    async def embed(self, files: list[bytes]) -> list[bytes]:
        # In a thread: the replica goes on taking requests meanwhile.
        pooled = await asyncio.to_thread(self.embedder.embed_files, files)
        return [row.tobytes() for row in pooled]

    async def __call__(self, request: Request) -> Response:
        return Response(await self.embed(await request.body()))


if __name__ == "__main__":
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threads = {"OMP_NUM_THREADS": str(os.cpu_count()), "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    ray.init(
        num_cpus=4,  # of its accounting: the replica, its controller and its proxy
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": threads},
        logging_level="warning",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Embedding.bind(), name="embedding", route_prefix="/")
    print("ready", flush=True)
    while not stop.wait(1):
        pass
    serve.shutdown()
    ray.shutdown()
