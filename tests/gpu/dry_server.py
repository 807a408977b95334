"""`gramlet-server` for `check.sh --dry-run`: with a fake in the place of CUDA, and a network that costs nothing.

It can also decode "by the device".
"""

from __future__ import annotations

import sys
from pathlib import Path

from gramlet_server.__main__ import main
from gramlet_server.backbone.network import Network
from gramlet_server.services import Shared

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.ingress_server import free
from tests.gpu.fake_cuda import FakeCudaDevice

if __name__ == "__main__":
    Network.by_stage = free  # type: ignore[method-assign,assignment]
    sys.exit(main(shared=lambda settings: Shared(settings, FakeCudaDevice(records=True))))
