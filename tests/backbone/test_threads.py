"""Making one thread single-threaded leaves the others as they are."""

from concurrent.futures import ThreadPoolExecutor

import torch
from gramlet_server.backbone import threads


def test_only_the_calling_thread_becomes_single_threaded(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_ALL", 2)
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as early, ThreadPoolExecutor(1) as single, ThreadPoolExecutor(1) as late:
            assert early.submit(torch.get_num_threads).result() == 2
            single.submit(threads.set_single_threaded).result()
            assert single.submit(torch.get_num_threads).result() == 1
            assert early.submit(torch.get_num_threads).result() == 2
            assert late.submit(torch.get_num_threads).result() == 2
            single.submit(threads.set_single_threaded, False).result()
            assert single.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
