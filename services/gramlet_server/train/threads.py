"""How many processor threads one thread of this process computes with."""

from __future__ import annotations

import threading

import torch

_ALL = torch.get_num_threads()


def compute_alone(alone: bool = True) -> None:
    """Lets the calling thread compute by itself, or with all cores again. Other threads are not affected.

    A head's matrices are so small that a second thread gains nothing. Where the network keeps all cores busy it costs
    much: the two wait for each other, core in hand, ten times as long as the work takes.
    """
    # A thread takes the process's count when it first asks or computes; that must be behind it.
    torch.get_num_threads()
    # Setting it sets the count of the calling thread, and the process's for threads that have not begun. The latter is
    # put back by a thread that then ends.
    torch.set_num_threads(1 if alone else _ALL)
    restore = threading.Thread(target=torch.set_num_threads, args=(_ALL,))
    restore.start()
    restore.join()
