"""Where the program `gramlet` begins. It is no part of the package, whose import takes a third of a second.

Ctrl-C in that time would end in a traceback of the import. Until the command line is read it ends the process instead,
as it ends programs that have no handler.
"""

import _signal  # `signal` imports others, and takes longer than all of Python's start


def main() -> None:
    """Runs `gramlet`, which ends the process."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # a background job of a shell ignores it
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from gramlet.cli.__main__ import console

    console()
