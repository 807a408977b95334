"""The calls of TrainService, as a part of the client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import replace
from typing import Unpack, cast, overload

from gramlet._async.calls import AsyncCalls, AsyncEvents
from gramlet.errors import GramletError
from gramlet.inputs.pictures import PictureInput, is_one_picture
from gramlet.inputs.values import choose, flag, name_or_new, text
from gramlet.signatures import checks_calls
from gramlet.train.configuration import Recipe
from gramlet.train.head_wire import (
    DELETE_HEAD,
    EXPORT_HEAD,
    GET_HEAD,
    LIST_HEADS,
    PREDICT,
    decode_details,
    decode_export_chunk,
    decode_heads,
    encode_delete_head,
    encode_export_request,
    encode_get_head,
    encode_list_heads,
)
from gramlet.train.inputs import HeadInput, PicturesInput, TrainOptions, head_ref, make_order, resume_order
from gramlet.train.predictions import Prediction
from gramlet.train.sessions import PredictBatches, TrainRun
from gramlet.train.types import Event, ExportFormat, Head, HeadDetails, Result
from gramlet.train.wire import TRAIN
from gramlet.transport.aio import blocking, one_reader


@checks_calls
class AsyncTrainCalls(AsyncCalls):
    """Training heads, using them, and looking after them."""

    def train(
        self,
        pictures: PicturesInput,
        *,
        name: str,
        recipes: Sequence[Recipe] | None = None,
        on_server: bool = False,
        run_id: str | None = None,
        detached: bool = False,
        timeout: float | None = None,
        **options: Unpack[TrainOptions],
    ) -> AsyncEvents[Event, Result]:
        """Trains a classification head on a handful of labeled pictures. It can be used a moment later.

        Returns events as they come: the pass of the pictures through the frozen network, every epoch, and in the end
        the `Result` with the head and its reports. Pictures that the server has seen before are not sent again. If the
        server is lost, the run is resumed. Closing the events cancels the run, unless it is detached.

        Args:
            pictures: A folder `<class>/*` or `{train,val,...}/<class>/*`; an s3:// URI in that layout, read by the
                server; pictures by class, `{"bee": [...], "ant": [...]}`; or tuples (picture, class) or
                (picture, class, set).
            name: Of the head. Training again under one name gives the next version.
            recipes: Several recipes to compare, trained on the same data; the one with the best
                out-of-fold predictions, by the metric of the first, is kept. Default: an mlp and logistic regression;
                with any field of `Recipe` among the options, that recipe alone.
            on_server: `pictures` names a folder that the server reads, below one of its --dataset-roots.
            run_id: Name of the run, with which it can be resumed. Default: a random one.
            detached: The run goes on without its caller, once all pictures have been sent, even if its server is lost.
                Find it again with `client.run(run_id)`.
            timeout: Seconds for the whole run.
            options: The fields of `Recipe` for a single recipe, and those of `Configuration` about the data.

        Raises:
            NotFound: There is no such folder.
            InvalidInput: There are fewer than two classes or duplicate names, or a setting is wrong.
            FailedPrecondition: Stages cannot be unfrozen on this server.
            Unavailable: The server was lost for longer than the client's patience.
        """
        known_as = name_or_new(run_id, "run_id")

        def start() -> TrainRun:
            order, local = make_order(pictures, name, recipes, options, on_server=on_server, run_id=known_as)
            return TrainRun(replace(order, detached=detached, weights_digest=self._weights_digest), local)

        return AsyncEvents(known_as, self._events(TRAIN, blocking(start), self._attempts(timeout)), Result)

    def resume_training(
        self,
        run_id: str,
        pictures: PicturesInput | None = None,
        *,
        detached: bool = False,
        timeout: float | None = None,
    ) -> AsyncEvents[Event, Result]:
        """Continues a training that was interrupted; it ends with the same head.

        A training that is executed is joined instead, and one that has succeeded gives its result.

        Args:
            run_id: Of the run.
            pictures: The same as before; only needed if the run was interrupted before the server had seen all of them.
            detached: The run goes on without its callers from now on.
            timeout: Seconds for the whole run.

        Raises:
            NotFound: The server's store has no such run.
        """

        def start() -> TrainRun:
            order, local = resume_order(run_id, pictures)
            return TrainRun(replace(order, detached=detached), local)

        return AsyncEvents(run_id, self._events(TRAIN, blocking(start), self._attempts(timeout)), Result)

    @overload
    def predict(  # type: ignore[overload-overlap]  # a path is also an iterable of strings, but one picture
        self,
        head: HeadInput,
        pictures: PictureInput,
        *,
        top_k: int = 5,
        coverage: float = 0.9,
        heat_maps: bool = False,
        timeout: float | None = None,
    ) -> Awaitable[Prediction]: ...

    @overload
    def predict(
        self,
        head: HeadInput,
        pictures: Iterable[PictureInput],
        *,
        top_k: int = 5,
        coverage: float = 0.9,
        heat_maps: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[Prediction | GramletError]: ...

    def predict(
        self,
        head: HeadInput,
        pictures: PictureInput | Iterable[PictureInput],
        *,
        top_k: int = 5,
        coverage: float = 0.9,
        heat_maps: bool = False,
        timeout: float | None = None,
    ) -> Awaitable[Prediction] | AsyncIterator[Prediction | GramletError]:
        """Classes of a picture, or of many, with calibrated probabilities.

            prediction = await client.predict("bees", "photo.jpg")

        Args:
            head: `"bees"` is its newest version, `"bees/3"` the third; or what `train` or `heads` gave.
            pictures: One gives its `Prediction`; several give an iterator of one outcome for each picture, in order: a
                `Prediction`, or as a value the error of a picture that could not be read.
            top_k: Classes to return for each picture.
            coverage: How often the right class is in `prediction_set`, above 0 and below 1.
            heat_maps: Whether to return where the most probable class is seen.
            timeout: Seconds for each call.

        Raises:
            NotFound: There is no such head.
            OtherWeights: The head was trained on other weights than the servers', or than the client wants.
        """
        self._connection.check_open()
        options = top_k, coverage, heat_maps, self._weights_digest
        if is_one_picture(pictures) or not isinstance(pictures, Iterable):
            return self._predict(PredictBatches(head, [cast(PictureInput, pictures)], *options), timeout)
        batches = PredictBatches(head, cast(Iterable[PictureInput], pictures), *options)
        return one_reader(self._predictions(batches, timeout))

    async def heads(self, name: str = "", *, timeout: float | None = None) -> list[Head]:
        """All heads, or all versions of one, without histories and confusion matrices."""
        return decode_heads(await self._unary(LIST_HEADS, encode_list_heads(text(name, "name")), timeout))

    async def head(self, head: HeadInput, *, timeout: float | None = None) -> HeadDetails:
        """A head with its reports, history and drawings.

        Raises:
            NotFound: There is no such head.
        """
        return decode_details(await self._unary(GET_HEAD, encode_get_head(head_ref(head)), timeout))

    async def delete_head(self, head: HeadInput, *, timeout: float | None = None) -> None:
        """Removes one version of a head; `"bees/3"`. Its number is not used again.

        Raises:
            NotFound: There is no such head.
            InvalidInput: No version is given.
        """
        await self._unary(DELETE_HEAD, encode_delete_head(head_ref(head)), timeout)

    async def export_head(
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
        kind, whole = choose(ExportFormat, format, "format"), flag(with_backbone, "with_backbone")
        request = encode_export_request(head_ref(head), kind, whole)
        return await self._download(EXPORT_HEAD, request, decode_export_chunk, timeout)

    async def _predict(self, batches: PredictBatches, timeout: float | None) -> Prediction:
        await blocking(batches.fill)
        (outcome,) = await self._answers(batches, timeout)
        if isinstance(outcome, GramletError):
            raise outcome
        return outcome

    async def _predictions(
        self, batches: PredictBatches, timeout: float | None
    ) -> AsyncGenerator[Prediction | GramletError, None]:
        while await blocking(batches.fill):
            for outcome in await self._answers(batches, timeout):
                yield outcome

    async def _answers(self, batches: PredictBatches, timeout: float | None) -> Iterable[Prediction | GramletError]:
        reply = await self._unary(PREDICT, batches.request(), timeout) if batches.readable else None
        return batches.outcomes(reply)
