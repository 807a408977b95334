"""`gramlet-server` with a fake in the place of CUDA, for `check.sh --dry-run`: it can also decode "by the device"."""

from __future__ import annotations

import sys
from pathlib import Path

from gramlet_server.__main__ import main
from gramlet_server.services import Shared

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.gpu.fake_cuda import FakeCudaDevice

if __name__ == "__main__":
    sys.exit(main(shared=lambda settings: Shared(settings, FakeCudaDevice(records=True))))
