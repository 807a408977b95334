"""TrainService: decodes, trains or predicts, encodes."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from gramlet.train import head_wire
from gramlet.train import wire as messages
from gramlet.train.types import HeadDetails
from gramlet.train.v1 import train_pb2, train_pb2_grpc

from gramlet_server.feature_source import FeatureSource
from gramlet_server.runs.store import Store
from gramlet_server.runtime.calls import until_caller_leaves
from gramlet_server.runtime.incoming import hurry
from gramlet_server.train import report
from gramlet_server.train.classifier import BaseStages
from gramlet_server.train.export import Exporter
from gramlet_server.train.predict import Predictor
from gramlet_server.train.registry import Registry
from gramlet_server.train.runs import Runs

CHUNK_BYTES = 1024 * 1024


class TrainServicer(train_pb2_grpc.TrainServiceServicer):
    """Transfer learning over gRPC."""

    def __init__(self, runs: Runs, features: FeatureSource, store: Store, base: BaseStages) -> None:
        self._runs = runs
        self._registry = Registry(store)
        self._predictor = Predictor(features, self._registry, base)
        self._exporter = Exporter(self._registry, base)

    def Train(
        self, request_iterator: Iterator[train_pb2.TrainRequest], context: grpc.ServicerContext
    ) -> Iterator[train_pb2.TrainResponse]:
        """The events of a run."""
        order = messages.decode_order(request_iterator)
        hurry(request_iterator, lambda: self._runs.lifecycle.queue.queued > 0)
        training = self._runs.start(order, messages.decode_uploads(until_caller_leaves(request_iterator)))
        training.cancel_with_call(context.add_callback)
        for event in training.beating():
            yield messages.encode_event(event, training.run_id)

    def Predict(self, request: train_pb2.PredictRequest, context: grpc.ServicerContext) -> train_pb2.PredictResponse:
        """The classes of a few pictures."""
        return head_wire.encode_predict_response(*self._predictor.predict(*head_wire.decode_predict_request(request)))

    def GetHead(self, request: train_pb2.GetHeadRequest, context: grpc.ServicerContext) -> train_pb2.GetHeadResponse:
        """A head and its drawings."""
        head = self._registry.get(head_wire.decode_ref(request.head))
        return head_wire.encode_details(
            HeadDetails(head, report.learning_curves([head.outcome]), report.confusion_matrix(head.outcome))
        )

    def ListHeads(
        self, request: train_pb2.ListHeadsRequest, context: grpc.ServicerContext
    ) -> train_pb2.ListHeadsResponse:
        """All heads, without their histories."""
        heads = self._registry.heads(request.name)
        return train_pb2.ListHeadsResponse(heads=[head_wire.encode_head(head, summary=True) for head in heads])

    def DeleteHead(
        self, request: train_pb2.DeleteHeadRequest, context: grpc.ServicerContext
    ) -> train_pb2.DeleteHeadResponse:
        """Removes a version."""
        self._registry.delete(head_wire.decode_ref(request.head))
        return train_pb2.DeleteHeadResponse()

    def ExportHead(
        self, request: train_pb2.ExportHeadRequest, context: grpc.ServicerContext
    ) -> Iterator[train_pb2.ExportHeadResponse]:
        """A head as a file."""
        data = self._exporter.export(
            head_wire.decode_ref(request.head),
            head_wire.EXPORT_FORMAT.decode(request.format, "format"),
            with_backbone=request.with_backbone,
        )
        for start in range(0, len(data), CHUNK_BYTES):
            yield train_pb2.ExportHeadResponse(chunk=data[start : start + CHUNK_BYTES], total_bytes=len(data))
