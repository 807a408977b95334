"""Where the program `gramlet-server` begins. It is no part of the package, whose import takes seconds.

Ctrl-C in that time would end in a traceback of the import. It ends the process instead, as it ends programs that have
no handler, until the server installs its own, which drains.
"""

import _signal  # `signal` imports others, and takes longer than all of Python's start


def main() -> int:
    """Runs `gramlet-server`."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # a background job of a shell ignores it
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from gramlet_server.__main__ import main as run

    return run()
