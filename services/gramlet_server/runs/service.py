"""RunService: decodes, asks the store's runs, encodes."""

from __future__ import annotations

import grpc
from gramlet.run import wire as messages
from gramlet.run.v1 import run_pb2, run_pb2_grpc

from gramlet_server.runs.control import RunControl


class RunServicer(run_pb2_grpc.RunServiceServicer):
    """The runs of the store over gRPC."""

    def __init__(self, control: RunControl) -> None:
        self._control = control

    def ListRuns(self, request: run_pb2.ListRunsRequest, context: grpc.ServicerContext) -> run_pb2.ListRunsResponse:
        """A page of runs."""
        return messages.encode_page(self._control.page(messages.decode_list_runs(request)))

    def GetRun(self, request: run_pb2.GetRunRequest, context: grpc.ServicerContext) -> run_pb2.GetRunResponse:
        """A run."""
        return messages.encode_details(self._control.get(*messages.decode_get_run(request)))

    def StopRun(self, request: run_pb2.StopRunRequest, context: grpc.ServicerContext) -> run_pb2.StopRunResponse:
        """Stops a run."""
        return messages.encode_stopped(self._control.stop(messages.decode_stop_run(request)))

    def DeleteRun(self, request: run_pb2.DeleteRunRequest, context: grpc.ServicerContext) -> run_pb2.DeleteRunResponse:
        """Deletes a run."""
        self._control.delete(messages.decode_delete_run(request))
        return messages.encode_deleted()
