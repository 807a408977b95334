"""`gramlet-server`: which services this process offers, and what they share.

A service is a function below that says how to build it, and a line in SERVICES. What it needs is imported when it is
built, so that a process loads nothing that it does not serve: `gramlet-server embed` never imports torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gramlet.errors import GramletError, InvalidInput

from gramlet_server import __version__
from gramlet_server.runtime import logs
from gramlet_server.runtime.config import Settings, add_settings, format_address, read_settings
from gramlet_server.runtime.flags import Parser
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.server import Server, Service, serve

if TYPE_CHECKING:
    from gramlet_server.feature.engine import Engine
    from gramlet_server.feature.service import FeatureServicer
    from gramlet_server.feature_source import FeatureSource
    from gramlet_server.store import Store
    from gramlet_server.stylize.service import StylizeServicer


class Shared:
    """What the services of a process share. Each part is made when the first service asks for it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()

    @cached_property
    def engine(self) -> Engine:
        """The network in this process."""
        from gramlet_server.backbone import load_network
        from gramlet_server.feature.engine import Engine

        chosen = self.settings.network
        network = load_network(chosen.backbone, chosen.weights, chosen.device, chosen.precision)
        return Engine(network, self.settings.engine, self.metrics)

    @cached_property
    def features(self) -> FeatureSource:
        """The network, wherever it is."""
        chosen = self.settings.features
        if not chosen.features:
            return self.engine
        from gramlet_server.feature_source import RemoteFeatures

        return RemoteFeatures(chosen)

    @cached_property
    def store(self) -> Store:
        """Where checkpoints and results are kept."""
        from gramlet_server.store import Store

        return Store.open(self.settings.store.store)

    def close(self) -> None:
        """Lets go of the network, if it was ever asked for."""
        for part in ("engine", "features"):
            if part in vars(self):
                vars(self)[part].close()


def feature(shared: Shared) -> Service[FeatureServicer]:
    """FeatureService: the network itself."""
    from gramlet.feature.v1.feature_pb2_grpc import add_FeatureServiceServicer_to_server

    def build() -> FeatureServicer:
        from gramlet_server.feature.service import FeatureServicer

        return FeatureServicer(shared.engine, shared.settings.limits)

    return Service("gramlet.feature.v1.FeatureService", build, add_FeatureServiceServicer_to_server)


def stylize(shared: Shared) -> Service[StylizeServicer]:
    """StylizeService: neural style transfer."""
    from gramlet.stylize.v1.stylize_pb2_grpc import add_StylizeServiceServicer_to_server

    def build() -> StylizeServicer:
        from gramlet_server.stylize.service import StylizeServicer

        return StylizeServicer(shared.features, shared.store, shared.settings.stylize, shared.metrics)

    return Service("gramlet.stylize.v1.StylizeService", build, add_StylizeServiceServicer_to_server)


SERVICES: dict[str, Callable[[Shared], Service[Any]]] = {
    "feature": feature,
    "stylize": stylize,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `gramlet-server`; returns its exit code."""
    try:
        names, settings = _parse(sys.argv[1:] if arguments is None else arguments)
    except GramletError as error:
        print(f"gramlet-server: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.server.log_format, settings.server.log_level)
    shared = Shared(settings)
    code = serve(
        [SERVICES[name](shared) for name in names],
        settings.server,
        shared.metrics,
        announce=lambda server: print(_ready_line(names, shared, server), flush=True),
    )
    shared.close()
    return code


def _parse(arguments: Sequence[str]) -> tuple[list[str], Settings]:
    parser = Parser(
        prog="gramlet-server",
        usage="gramlet-server SERVICE [SERVICE ...] [flags]",
        description="Serves what a pretrained network knows about pictures.",
        epilog="Every flag can also be set by the variable beside its default; the command line wins.",
    )
    parser.add_argument("services", nargs="+", choices=("all", *SERVICES), help="the services of this process")
    parser.add_argument("--version", action="version", version=f"gramlet-server {__version__}")
    add_settings(parser, os.environ)
    parsed = parser.parse_args(arguments)
    names = [name for name in SERVICES if name in parsed.services or "all" in parsed.services]
    settings = read_settings(parsed, os.environ)
    if "feature" not in names and not settings.features.features:
        message = f"{' and '.join(names)} needs a network: its address here, or serve `feature` (or `all`) as well"
        raise InvalidInput(message, field="--features")
    if "feature" in names and settings.features.features:
        raise InvalidInput("not together with `feature`, which has the network in this process", field="--features")
    return names, settings


def _ready_line(names: Sequence[str], shared: Shared, server: Server) -> str:
    settings = shared.settings
    if settings.features.features:
        network = f"features from {settings.features.features}"
    else:
        model = shared.features.model()
        network = f"{model.backbone}, {model.device}, weights {model.weights_source}"
    line = (
        f"gramlet-server: serving {', '.join(names)} on {format_address(settings.server.host, server.port)} ({network})"
    )
    if server.metrics_port:
        line += f", metrics on {format_address(settings.server.host, server.metrics_port)}"
    return line


if __name__ == "__main__":
    sys.exit(main())
