"""How many processor threads one thread of this process computes with."""

from __future__ import annotations

import threading

import torch

_ALL = torch.get_num_threads()


def compute_alone(alone: bool = True) -> None:
    """Lets the calling thread compute by itself, or with all cores again. Other threads are not affected.

    For work that gains little from a second thread: a head's small matrices, an optimiser's passes over memory. Where a
    network keeps all cores busy it costs much: the two wait for each other, core in hand. And GNU's OpenMP, once it
    has more threads than there are cores, puts those that wait to sleep at once, so that each of a pass's hundreds of
    operations begins with waking them; measured, a tenth of a pass at 512 px.
    """
    # A thread takes the process's count when it first asks or computes; that must be behind it.
    torch.get_num_threads()
    # Setting it sets the count of the calling thread, and the process's for threads that have not begun. The latter is
    # put back by a thread that then ends.
    torch.set_num_threads(1 if alone else _ALL)
    restore = threading.Thread(target=torch.set_num_threads, args=(_ALL,))
    restore.start()
    restore.join()
