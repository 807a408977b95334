"""A thread that computes alone leaves the others as they are."""

from concurrent.futures import ThreadPoolExecutor

import torch
from gramlet_server.backbone import threads


def test_only_the_calling_thread_computes_alone(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_ALL", 2)
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as early, ThreadPoolExecutor(1) as alone, ThreadPoolExecutor(1) as late:
            assert early.submit(torch.get_num_threads).result() == 2
            alone.submit(threads.compute_alone).result()
            assert alone.submit(torch.get_num_threads).result() == 1
            assert early.submit(torch.get_num_threads).result() == 2
            assert late.submit(torch.get_num_threads).result() == 2
            alone.submit(threads.compute_alone, False).result()
            assert alone.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
