"""The calls of TrainService, as a part of the synchronous client. `gramlet._async.train` is its twin."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Unpack, cast, overload

from gramlet.errors import GramletError
from gramlet.inputs import PictureInput, choose, is_one_picture
from gramlet.train import head_wire
from gramlet.train.configuration import Recipe
from gramlet.train.inputs import HeadInput, PicturesInput, TrainOptions, head_ref, make_order, resume_order
from gramlet.train.sessions import PredictBatches, TrainRun
from gramlet.train.types import Event, ExportFormat, Head, HeadDetails, Prediction, Result
from gramlet.train.v1 import train_pb2, train_pb2_grpc
from gramlet.transport.events import Events
from gramlet.transport.retry import Attempts
from gramlet.transport.sync import Calls


class TrainCalls(Calls):
    """Training heads, using them, and looking after them."""

    @property
    def _train_stub(self) -> train_pb2_grpc.TrainServiceStub:
        return train_pb2_grpc.TrainServiceStub(self._connection.channel)

    def train(
        self,
        pictures: PicturesInput,
        *,
        name: str,
        recipes: Sequence[Recipe] | None = None,
        on_server: bool = False,
        run_id: str | None = None,
        timeout: float | None = None,
        **options: Unpack[TrainOptions],
    ) -> Events[Event, Result]:
        """Trains a classification head on a handful of labelled pictures. It can be used a moment later.

        Returns events as they come: the pass of the pictures through the frozen network, every epoch, and in the end
        the `Result` with the head and its reports. Pictures that the server has seen before are not sent again. If the
        server is lost, the run is resumed. Leaving the loop cancels the run.

        Args:
            pictures: A folder `<class>/*` or `{train,val,...}/<class>/*`; an s3:// URI in that layout, read by the
                server; pictures by class, `{"bee": [...], "ant": [...]}`; or tuples (picture, class) or
                (picture, class, set).
            name: Of the head. Training again under one name gives the next version.
            recipes: Several recipes to compare, trained on the same data; the best on the validation set is kept.
            on_server: `pictures` names a folder that the server reads, below one of its --dataset-roots.
            run_id: Name of the run, with which it can be resumed. Default: a random one.
            timeout: Seconds for the whole run.
            options: The fields of `Recipe` for a single recipe, and those of `Configuration` about the data.

        Raises:
            NotFound: There is no such folder.
            InvalidInput: Fewer than two classes, duplicate names, a setting that makes no sense.
            FailedPrecondition: Stages cannot be unfrozen on this server.
            Unavailable: The server was lost for longer than the client's patience.
        """
        order, local = make_order(pictures, name, recipes, options, on_server=on_server, run_id=run_id)
        return Events(self._train_events(TrainRun(order, local), self._attempts(timeout)), Result)

    def resume_training(
        self, run_id: str, pictures: PicturesInput | None = None, *, timeout: float | None = None
    ) -> Events[Event, Result]:
        """Goes on with a training that was cut off; it ends with the same head.

        Args:
            run_id: Of the run.
            pictures: The same as before; only needed if the run was cut off before the server had seen all of them.
            timeout: Seconds for the whole run.

        Raises:
            NotFound: The server's store has no such run.
        """
        return Events(self._train_events(TrainRun(*resume_order(run_id, pictures)), self._attempts(timeout)), Result)

    @overload
    def predict(  # type: ignore[overload-overlap]  # a path is also an iterable of strings, but one picture
        self, head: HeadInput, pictures: PictureInput, *, top_k: int = 5, timeout: float | None = None
    ) -> Prediction: ...

    @overload
    def predict(
        self, head: HeadInput, pictures: Iterable[PictureInput], *, top_k: int = 5, timeout: float | None = None
    ) -> Iterator[Prediction | GramletError]: ...

    def predict(
        self,
        head: HeadInput,
        pictures: PictureInput | Iterable[PictureInput],
        *,
        top_k: int = 5,
        timeout: float | None = None,
    ) -> Prediction | Iterator[Prediction | GramletError]:
        """Classes of a picture, or of many, with calibrated probabilities.

        Args:
            head: `"bees"` is its newest version, `"bees/3"` the third; or what `train` or `heads` gave.
            pictures: One gives its `Prediction`; several an iterator of one outcome a picture, in order: a
                `Prediction`, or as a value the error of a picture that could not be read.
            top_k: Classes to return for each picture.
            timeout: Seconds for each call.

        Raises:
            NotFound: There is no such head.
            FailedPrecondition: The head was trained on other weights than the server's.
        """
        if is_one_picture(pictures) or not isinstance(pictures, Iterable):
            outcome = next(self._predict_all(PredictBatches(head, [cast(PictureInput, pictures)], top_k), timeout))
            if isinstance(outcome, GramletError):
                raise outcome
            return outcome
        return self._predict_all(PredictBatches(head, cast(Iterable[PictureInput], pictures), top_k), timeout)

    def heads(self, name: str = "", *, timeout: float | None = None) -> list[Head]:
        """All heads, or all versions of one, without histories and confusion matrices."""
        reply = self._unary(self._train_stub.ListHeads, train_pb2.ListHeadsRequest(name=name), timeout)
        return [head_wire.decode_head(head) for head in reply.heads]

    def head(self, head: HeadInput, *, timeout: float | None = None) -> HeadDetails:
        """A head with its reports, history and drawings.

        Raises:
            NotFound: There is no such head.
        """
        request = train_pb2.GetHeadRequest(head=head_wire.encode_ref(head_ref(head)))
        return head_wire.decode_details(self._unary(self._train_stub.GetHead, request, timeout))

    def delete_head(self, head: HeadInput, *, timeout: float | None = None) -> None:
        """Removes one version of a head; `"bees/3"`. Its number is not used again.

        Raises:
            NotFound: There is no such head.
            InvalidInput: No version given.
        """
        request = train_pb2.DeleteHeadRequest(head=head_wire.encode_ref(head_ref(head)))
        self._unary(self._train_stub.DeleteHead, request, timeout)

    def export_head(
        self,
        head: HeadInput,
        *,
        format: ExportFormat | str = ExportFormat.SAFETENSORS,
        with_backbone: bool = False,
        timeout: float | None = None,
    ) -> bytes:
        """A head as a file.

        Args:
            head: The head.
            format: `safetensors` or `onnx`.
            with_backbone: For ONNX: the network and the head in one graph, from pictures to probabilities.
            timeout: Seconds for the whole file.

        Raises:
            NotFound: There is no such head.
        """
        request = head_wire.encode_export_request(head_ref(head), choose(ExportFormat, format, "format"), with_backbone)
        attempts = self._attempts(timeout)
        while True:
            try:
                with closing(self._connection.server_stream(self._train_stub.ExportHead, request, attempts)) as stream:
                    return b"".join(reply.chunk for reply in stream.remaining())
            except GramletError as error:
                delay = attempts.delay_after(error)
            time.sleep(delay)

    def _predict_all(
        self, batches: PredictBatches, timeout: float | None
    ) -> Generator[Prediction | GramletError, None, None]:
        for request in batches.requests():
            reply = self._unary(self._train_stub.Predict, request, timeout) if request.pictures else None
            yield from batches.outcomes(reply)

    def _train_events(self, run: TrainRun, attempts: Attempts) -> Generator[Event, None, None]:
        while not run.done:
            try:
                with closing(self._connection.stream(self._train_stub.Train, attempts)) as stream:
                    stream.send(run.request())
                    while not run.done:
                        message = stream.receive()
                        if (wanted := run.asked(message)) is not None:
                            for picture in wanted:
                                stream.send_later(picture)
                            stream.end()
                        event = run.accept(message)
                        attempts.answered(new=event is not None)
                        if run.done:
                            stream.finish()  # so that the server sees a call that ended in order
                        if event is not None:
                            yield event
            except GramletError as error:
                delay = attempts.delay_after(run.broken(error))
            else:
                return
            time.sleep(delay)
