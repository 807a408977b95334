"""Services and how they are built, while the server already listens."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from gramlet.errors import FailedPrecondition, GramletError, InternalError, Unavailable

# When a caller may try again at a server that still loads its network, or whose store fails.
_RETRY_SECONDS = 2.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


def ignore(*_: object) -> None:
    """Does nothing: the default of callbacks."""


@dataclass(frozen=True)
class Built:
    """A service that is ready.

    Attributes:
        servicer: Implements its calls.
        drain: Called when the process is about to end. The service should soon end long streams with Unavailable whose
            work can go on elsewhere. New calls are already refused by then.
        close: Releases everything, after the last call.
        on_failure: Registers what to call if the service fails for good, as when its device is lost.
        on_readiness: Registers what to call, at once and from any thread, with the reason when the service cannot work
            for a while, as when its store fails, and with None when it can again.
    """

    servicer: Any
    drain: Callable[[], None] = ignore
    close: Callable[[], None] = ignore
    on_failure: Callable[[Callable[[GramletError], None]], None] = ignore
    on_readiness: Callable[[Callable[[GramletError | None], None]], None] = ignore


@dataclass(frozen=True)
class Service:
    """A gRPC service that the process offers.

    Attributes:
        name: Its full name, such as `gramlet.feature.v1.FeatureService`.
        add: The generated `add_..._to_server`.
        build: Loads it and warms it up. Runs once, in the background, while the server already listens.
        check: Raises what `build` would raise later for settings that are wrong, as far as that takes no time. Runs
            before any service is built.
    """

    name: str
    add: Callable[[Any, grpc.Server], None]
    build: Callable[[], Built]
    check: Callable[[], object] = ignore


class Deferred:
    """Stands before a servicer. Calls fail with Unavailable until it is built, and as long as it cannot work.

    Attributes:
        service: What is built.
        built: The built service; None until then.
        lacks: The reason why it cannot work now; None if it can.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.built: Built | None = None
        self.lacks: GramletError | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it is built and can work."""
        return self.built is not None and self.lacks is None

    def __getattr__(self, method: str) -> Callable[[Any, grpc.ServicerContext], Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            if self.built is None:
                raise Unavailable(f"{self.service.name} is still loading", retry_after=_RETRY_SECONDS)
            if (error := self.lacks) is not None:
                raise Unavailable(error.message, retry_after=_RETRY_SECONDS)
            return getattr(self.built.servicer, method)(request, context)

        return call

    def build(self) -> Built:
        """Builds the service.

        Raises:
            GramletError: What it failed with; a bug becomes an InternalError, and its traceback is logged.
        """
        started = time.perf_counter()
        self.built = built = self._explained(self.service.build)
        _log.info("%s is ready after %.1f s", self.service.name, time.perf_counter() - started)
        return built

    def check(self) -> None:
        """Checks the settings of the service. Raises as `build`."""
        self._explained(self.service.check)

    def _explained(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except GramletError:
            raise
        except ModuleNotFoundError as error:
            message = f"{error.name} is not installed; get it with: pip install 'gramlet-server[all]'"
            raise FailedPrecondition(message) from error
        except Exception as error:
            _log.exception("%s could not be built", self.service.name)
            raise InternalError(f"{type(error).__name__}: {error}") from error
