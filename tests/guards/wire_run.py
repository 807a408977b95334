"""The messages of RunService."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from gramlet.run.v1 import run_pb2 as pb

from tests.guards.product import run_types as types
from tests.guards.product import run_wire as wire
from tests.guards.wire_cases import FILE, Case, with_each

PROGRESS = types.Progress(3, 50, 0.5, "iterations")
RUN = types.RunInfo(
    run_id="run",
    kind=types.RunKind.STYLIZE,
    created=1.5e9,
    updated=1.5e9 + 1,
    ended=1.5e9 + 2,
    state=types.RunState.FAILED,
    owner="ann",
    detached=True,
    progress=PROGRESS,
    error=types.RunError(3, "no picture", "stylization.content"),
    settings="classic, 512 px, 50 iterations",
    bytes=1024,
)


def cases() -> Iterator[Case]:
    """Every request and reply."""
    wanted = types.RunFilter(types.RunKind.TRAIN, types.RunState.RUNNING, "ann", 10, "token")
    yield Case("list runs", wire.encode_list_runs(wanted), wire.decode_list_runs, wanted)
    yield Case("list all runs", wire.encode_list_runs(types.RunFilter()), wire.decode_list_runs, types.RunFilter())
    page = types.RunPage((RUN, types.RunInfo("other", types.RunKind.SWEEP, 1.5e9)), "next")
    yield Case("runs", wire.encode_page(page), wire.decode_page, page)
    ref = types.RunRef("run", types.RunKind.EMBED)
    yield Case("get run", wire.encode_get_run(ref, True), wire.decode_get_run, (ref, True))
    yield Case("stop run", wire.encode_stop_run(ref), wire.decode_stop_run, ref)
    yield Case("stopped run", wire.encode_stopped(RUN), wire.decode_stopped, RUN)
    yield Case("delete run", wire.encode_delete_run(ref), wire.decode_delete_run, ref)
    yield Case("deleted run", pb.DeleteRunResponse())
    for field, members in (("kind", types.RunKind), ("state", types.RunState)):
        for name, run in with_each(RUN, field, members):
            details = types.RunDetails(run)
            yield Case(f"run, {name}", wire.encode_details(details), wire.decode_details, details)
    for field, value in (("png", FILE), ("head", "bees/3"), ("map_id", "map")):
        details = types.RunDetails(RUN, dataclasses.replace(types.RunResult(), **{field: value}))
        yield Case(f"run with {field}", wire.encode_details(details), wire.decode_details, details)
