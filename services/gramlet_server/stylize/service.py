"""StylizeService: decodes, starts the run, encodes its events."""

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
        stylizing = self._runs.start(messages.decode_order(request))
        # Called however the call ends; a finished run does not mind.
        context.add_callback(stylizing.cancel)
        for event in stylizing:
            yield messages.encode_event(event, stylizing.run_id)

    def Sweep(
        self, request: stylize_pb2.SweepRequest, context: grpc.ServicerContext
    ) -> Iterator[stylize_pb2.SweepResponse]:
        """The events of a sweep."""
        sweeping = self._runs.sweep(sweep_messages.decode_sweep_order(request))
        context.add_callback(sweeping.cancel)
        for event in sweeping:
            yield sweep_messages.encode_sweep_event(event, sweeping.run_id)

    def Adjust(self, request: stylize_pb2.AdjustRequest, context: grpc.ServicerContext) -> stylize_pb2.AdjustResponse:
        """Changes the weights of a run."""
        return messages.encode_adjusted(self._runs.adjust(*messages.decode_adjust(request)))

    def GetStatus(
        self, request: stylize_pb2.GetStatusRequest, context: grpc.ServicerContext
    ) -> stylize_pb2.GetStatusResponse:
        """How busy the process is."""
        return messages.encode_status(self._runs.status())
