"""How many processor threads torch uses for the work of one thread of this process."""

from __future__ import annotations

import threading

import torch

_ALL = torch.get_num_threads()


def set_single_threaded(on: bool = True) -> None:
    """Lets torch compute what the calling thread asks for with one processor thread, or with all of them again.

    Other threads are not affected. This is for work that gains little from a second processor thread: the small
    matrices of a head, or an optimizer's passes over memory. While a network uses all cores, several threads for such
    work cost much: both compete for the cores and wait for each other. And once GNU's OpenMP has more threads than
    there are cores, it puts waiting threads to sleep at once, so that each of the hundreds of operations of a pass
    starts by waking them; measured, that is a tenth of a pass at 512 px.
    """
    # A thread copies the process's count when it first asks for it or computes. Do that now.
    torch.get_num_threads()
    # Setting the count changes it for the calling thread, and for threads that start later. The second is undone in a
    # thread that then ends.
    torch.set_num_threads(1 if on else _ALL)
    restore = threading.Thread(target=torch.set_num_threads, args=(_ALL,))
    restore.start()
    restore.join()
