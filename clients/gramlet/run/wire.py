"""Codecs of gramlet.run.v1: runs, their progress, pages of them, and what is asked of RunService."""

from __future__ import annotations

from gramlet.run.types import (
    Progress,
    RunDetails,
    RunError,
    RunFilter,
    RunInfo,
    RunKind,
    RunPage,
    RunRef,
    RunResult,
    RunState,
)
from gramlet.run.v1 import run_pb2, run_pb2_grpc
from gramlet.tensor.codec import EnumCodec, MessageCodec, checked, each
from gramlet.transport.rpc import Rpc
from gramlet.types import check_name

_KIND = EnumCodec(
    {
        RunKind.STYLIZE: run_pb2.KIND_STYLIZE,
        RunKind.SWEEP: run_pb2.KIND_SWEEP,
        RunKind.TRAIN: run_pb2.KIND_TRAIN,
        RunKind.EMBED: run_pb2.KIND_EMBED,
    }
)
_STATE = EnumCodec(
    {
        RunState.QUEUED: run_pb2.STATE_QUEUED,
        RunState.RUNNING: run_pb2.STATE_RUNNING,
        RunState.SUCCEEDED: run_pb2.STATE_SUCCEEDED,
        RunState.FAILED: run_pb2.STATE_FAILED,
        RunState.STOPPED: run_pb2.STATE_STOPPED,
    }
)
PROGRESS = MessageCodec(Progress, run_pb2.Progress)
_RUN = MessageCodec(
    RunInfo,
    run_pb2.Run,
    kind=_KIND,
    state=_STATE,
    progress=PROGRESS,
    error=MessageCodec(RunError, run_pb2.RunError),
)
_RESULT = MessageCodec(RunResult, run_pb2.RunResult)
_PAGE = MessageCodec(RunPage, run_pb2.ListRunsResponse, runs=each(_RUN))
_DETAILS = MessageCodec(RunDetails, run_pb2.GetRunResponse, run=_RUN, result=_RESULT)
_RUN_ID = checked(check_name)
_GET = MessageCodec(RunRef, run_pb2.GetRunRequest, beside=("include_result",), run_id=_RUN_ID, kind=_KIND)
_STOP = MessageCodec(RunRef, run_pb2.StopRunRequest, run_id=_RUN_ID, kind=_KIND)
_DELETE = MessageCodec(RunRef, run_pb2.DeleteRunRequest, run_id=_RUN_ID, kind=_KIND)
_LIST = MessageCodec(RunFilter, run_pb2.ListRunsRequest, kind=_KIND, state=_STATE)

LIST_RUNS = Rpc(run_pb2_grpc.RunServiceStub, "ListRuns")
GET_RUN = Rpc(run_pb2_grpc.RunServiceStub, "GetRun")
STOP_RUN = Rpc(run_pb2_grpc.RunServiceStub, "StopRun")
DELETE_RUN = Rpc(run_pb2_grpc.RunServiceStub, "DeleteRun")

encode_list_runs, encode_page, decode_page = _LIST.encode, _PAGE.encode, _PAGE.decode
encode_details, decode_details = _DETAILS.encode, _DETAILS.decode
encode_stop_run, encode_delete_run = _STOP.encode, _DELETE.encode


def decode_list_runs(message: run_pb2.ListRunsRequest) -> RunFilter:
    """Which runs to list.

    Raises:
        InvalidInput: A kind or a state that this release does not know.
    """
    return _LIST.decode(message)


def encode_get_run(ref: RunRef, include_result: bool) -> run_pb2.GetRunRequest:
    """Asks for a run."""
    message = _GET.encode(ref)
    message.include_result = include_result
    return message


def decode_get_run(message: run_pb2.GetRunRequest) -> tuple[RunRef, bool]:
    """Which run to return, and whether with its result.

    Raises:
        InvalidInput: No valid id, or a kind that this release does not know.
    """
    return _GET.decode(message), message.include_result


def decode_stop_run(message: run_pb2.StopRunRequest) -> RunRef:
    """Which run to stop.

    Raises:
        InvalidInput: No valid id, or a kind that this release does not know.
    """
    return _STOP.decode(message)


def decode_delete_run(message: run_pb2.DeleteRunRequest) -> RunRef:
    """Which run to delete.

    Raises:
        InvalidInput: No valid id, or a kind that this release does not know.
    """
    return _DELETE.decode(message)


def encode_stopped(run: RunInfo) -> run_pb2.StopRunResponse:
    """The run, which has stopped."""
    return run_pb2.StopRunResponse(run=_RUN.encode(run))


def decode_stopped(message: run_pb2.StopRunResponse) -> RunInfo:
    """The run, which has stopped."""
    return _RUN.decode(message.run, "run")


def encode_deleted() -> run_pb2.DeleteRunResponse:
    """The run is deleted."""
    return run_pb2.DeleteRunResponse()
