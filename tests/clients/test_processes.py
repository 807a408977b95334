"""The synchronous client in processes that were forked or spawned, that use gevent, and that end during calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_FORKED = """
import os, sys, gramlet, numpy as np
picture = np.zeros((64, 64, 3), np.uint8)
client = gramlet.Client(sys.argv[1])
events = client.stylize(picture, picture, size=64, iterations=10_000)
next(events)

def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            print(work(), flush=True)
        except gramlet.GramletError as error:
            print(type(error).__name__, error.message.split(":")[0].rstrip("0123456789"), flush=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)

in_child(lambda: client.features(picture, stages="conv1").height)
in_child(lambda: next(events))
in_child(client.close)
print("parent", next(events).run_id == events.run_id)
events.close()
"""

_WITH_GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys, gevent, gramlet, numpy as np
picture = np.zeros((64, 64, 3), np.uint8)
with gramlet.Client(sys.argv[1]) as client:
    jobs = [gevent.spawn(lambda: client.features(picture, stages="conv1").height) for _ in range(3)]
    print([job.get() for job in jobs], client.stylize(picture, picture, size=64, iterations=2).result().iteration)
"""


_SPAWNED = """
import multiprocessing, sys, gramlet, numpy as np

def height(client):
    with gramlet.Client(client) if isinstance(client, str) else client as client:
        return client.features(np.zeros((64, 64, 3), np.uint8), stages="conv1").height

def refused(address):
    with gramlet.Client(address) as client:
        client.features(np.zeros((64, 64, 3), np.uint8), stages="no_stage")

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    with gramlet.Client(sys.argv[1]) as client, spawn.Pool(1) as pool:
        for work, argument in [(height, client), (height, sys.argv[1]), (refused, sys.argv[1])]:
            try:
                print(pool.apply(work, [argument]))
            except gramlet.GramletError as error:
                print(type(error).__name__, error.message.rpartition(": ")[2], error.field)
        try:
            spawn.Process(target=height, args=[client]).start()
        except TypeError as error:
            print(type(error).__name__)
"""


# What is registered first at exit runs last: after the calls were ended. Otherwise some such programs never end.
_ENDING = """
import atexit, threading
atexit.register(lambda: print("threads", threading.active_count(), flush=True))
import sys, gramlet, numpy as np
picture = np.zeros((64, 64, 3), np.uint8)
client = gramlet.Client(sys.argv[1])
events = client.stylize(picture, picture, size=64, iterations=10_000)
next(events)
outcomes = client.features((picture for _ in iter(int, 1)), stages="conv1", pooled=True)
next(outcomes)
begun = threading.Event()
def read():
    for event in client.stylize(picture, picture, size=64, iterations=10_000):
        begun.set()
threading.Thread(target=read, daemon=True).start()
begun.wait()
print("ends")
"""


def run(script: str, address: str) -> list[str]:
    """What a script prints, in a process of its own."""
    return run_command([sys.executable, "-c", script, address])


def run_command(command: list[str]) -> list[str]:
    """What a command prints. It reports no failure that nobody expects."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "Traceback" not in ended.stderr
    return ended.stdout.splitlines()


def test_a_forked_process_has_a_channel_of_its_own_and_no_streams(address: str) -> None:
    assert run(_FORKED, address) == [
        "64",
        "FailedPrecondition this call belongs to process ",
        "None",
        "parent True",
    ]


def test_a_client_that_is_sent_to_a_spawned_process_is_refused_and_errors_come_back(
    address: str, tmp_path: Path
) -> None:
    script = tmp_path / "spawns.py"
    script.write_text(_SPAWNED)  # a spawned process imports the main module from its file
    refused, height, failed, process = run_command([sys.executable, str(script), address])
    assert refused == "InvalidCall make a client in each process "
    assert (height, process) == ("64", "InvalidCall")
    assert failed.startswith("InvalidInput ")
    assert failed.endswith(" stages[0]")


def test_the_client_works_with_gevent(address: str) -> None:
    assert run(_WITH_GEVENT, address) == ["[64, 64, 64] 2"]


def test_a_program_that_ends_with_calls_under_way_ends_the_threads_of_grpc(address: str) -> None:
    assert run(_ENDING, address) == ["ends", "threads 2"]  # the daemon, whom nobody hears
