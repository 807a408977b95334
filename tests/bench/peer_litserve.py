"""LitServe with the bare embedder: `python peer_litserve.py PORT`. It takes {"jpeg": base64}, gives {"pooled": base64}.

Its worker decodes what it batched on all cores, which its own loop would do one by one.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import litserve

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.embedding import Embedder

BATCH = 16
PATIENCE = 0.02


class Embedding(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.embedder = Embedder()

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["jpeg"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, files: list[bytes]) -> Any:
        return self.embedder.embed_files(files)

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, str]:
        return {"pooled": base64.b64encode(output.tobytes()).decode()}


if __name__ == "__main__":
    api = Embedding(max_batch_size=BATCH, batch_timeout=PATIENCE)
    server = litserve.LitServer(api, accelerator="cpu", timeout=120)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
