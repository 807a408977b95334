"""How the SDK speaks to a server: channels, deadlines, retries, failures to exceptions.

gRPC prints to stderr, in C++, what it does at the level INFO: each handshake of TLS that fails, for example, which
raises an error here. It reads its level when it is imported first, from a variable, and ERROR is what it documents as
the default. The variable is gone afterwards, so that other processes do not inherit it.
"""

import os
import sys

_LEVEL = "GRPC_VERBOSITY"

if "grpc" not in sys.modules and _LEVEL not in os.environ:
    os.environ[_LEVEL] = "ERROR"
    try:
        import grpc  # noqa: F401
    finally:
        del os.environ[_LEVEL]
