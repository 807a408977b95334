"""StylizeService: decodes orders, starts their runs, encodes the events."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from gramlet.stylize import sweep_wire as sweep_messages
from gramlet.stylize import wire as messages
from gramlet.stylize.v1 import stylize_pb2, stylize_pb2_grpc

from gramlet_server.stylize.runs import Runs


class StylizeServicer(stylize_pb2_grpc.StylizeServiceServicer):
    """Stylizations over gRPC."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def Stylize(
        self, request: stylize_pb2.StylizeRequest, context: grpc.ServicerContext
    ) -> Iterator[stylize_pb2.StylizeResponse]:
        """The events of a run."""
        watch = self._runs.start(messages.decode_order(request))
        watch.cancel_with_call(context.add_callback)
        for event in watch.beating():
            yield messages.encode_event(event, watch.run_id)

    def Sweep(
        self, request: stylize_pb2.SweepRequest, context: grpc.ServicerContext
    ) -> Iterator[stylize_pb2.SweepResponse]:
        """The events of a sweep."""
        watch = self._runs.sweep(sweep_messages.decode_sweep_order(request))
        watch.cancel_with_call(context.add_callback)
        for event in watch.beating():
            yield sweep_messages.encode_sweep_event(event, watch.run_id)

    def Adjust(self, request: stylize_pb2.AdjustRequest, context: grpc.ServicerContext) -> stylize_pb2.AdjustResponse:
        """Changes the weights of a run."""
        return messages.encode_adjusted(self._runs.adjust(*messages.decode_adjust(request)))

    def GetStatus(
        self, request: stylize_pb2.GetStatusRequest, context: grpc.ServicerContext
    ) -> stylize_pb2.GetStatusResponse:
        """How busy the process is."""
        return messages.encode_status(self._runs.status())
