"""Python's garbage collector: which objects it looks at.

A full collection looks at every object that could be part of a cycle, and no thread runs Python meanwhile. The modules
of a server with torch and matplotlib have 400,000 such objects, which takes 0.2 to 0.5 s, longer on a busy machine.
They stay for as long as the process, so there is nothing to find among them.
"""

from __future__ import annotations

import gc


def keep_for_good() -> None:
    """Has the collector never look again at what exists now. Call this after what a process keeps has been loaded.

    What becomes part of a cycle that nobody uses is still freed if it is made later.
    """
    gc.freeze()
