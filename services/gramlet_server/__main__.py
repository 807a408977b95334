"""`gramlet-server`: which services this process offers, and what they share.

A service is a function below that says how to build it, and a line in SERVICES. What it needs is imported when it is
built, so that a process loads nothing that it does not serve: `gramlet-server embed` never imports torch.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from gramlet.errors import GramletError, InvalidInput

from gramlet_server import __version__
from gramlet_server.runtime import logs
from gramlet_server.runtime.config import Settings, add_settings, format_address, read_settings
from gramlet_server.runtime.flags import Parser
from gramlet_server.runtime.memory import keep_large_blocks
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.probe import probe
from gramlet_server.runtime.server import Built, Server, Service, serve

if TYPE_CHECKING:
    from gramlet_server.feature.engine import Engine
    from gramlet_server.feature_source import FeatureSource
    from gramlet_server.store import Store


class Shared:
    """What the services of a process share. Each part is made when the first service asks for it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()

    @cached_property
    def engine(self) -> Engine:
        """The network in this process."""
        from gramlet_server.backbone import load_network
        from gramlet_server.feature.engine import Engine, EngineSettings
        from gramlet_server.feature.scheduler import Batching

        of_network, of_engine = self.settings.network, self.settings.queue
        network = load_network(of_network.backbone, of_network.weights, of_network.device, of_network.precision)
        settings = EngineSettings(
            batching=Batching(of_engine.batch_pictures, of_engine.batch_pixels, of_engine.queue_limit),
            batch_gradients=of_engine.batch_gradients,
            cache_bytes=of_engine.cache_bytes,
            tile_pixels=of_engine.tile_pixels,
            cuda_graphs=of_network.cuda_graphs,
            feature_cache_bytes=of_engine.feature_cache_bytes,
            simulated_seconds_per_picture=of_engine.simulated_seconds_per_picture,
        )
        engine = Engine(network, settings, self.settings.limits, self.metrics)
        engine.warm_up()
        return engine

    @cached_property
    def features(self) -> FeatureSource:
        """The network, wherever it is."""
        chosen = self.settings.features
        if not chosen.features:
            return self.engine
        from gramlet import Client, Tls

        from gramlet_server.feature_source import RemoteFeatures

        token = chosen.features_token_file.read_text().strip() if chosen.features_token_file else None
        tls = Tls(chosen.features_ca, chosen.features_cert, chosen.features_key) if chosen.speaks_tls else None
        return RemoteFeatures(Client(chosen.features, token=token, tls=tls), chosen.features_patience_seconds)

    @cached_property
    def store(self) -> Store:
        """Where checkpoints and results are kept."""
        from gramlet_server.store import Store

        return Store.open(self.settings.store.store)

    def keep_sweeping(self, kind: str) -> None:
        """Removes old runs of a kind from the store, as long as the process lives."""
        from gramlet_server.store import keep_sweeping

        if days := self.settings.store.keep_runs_days:
            keep_sweeping(self.store, kind, timedelta(days=days))

    def close(self) -> None:
        """Lets go of the network, if it was ever asked for."""
        for part in ("engine", "features"):
            if part in vars(self):
                vars(self)[part].close()


def feature(shared: Shared) -> Service:
    """FeatureService: the network itself."""
    from gramlet.feature.v1.feature_pb2_grpc import add_FeatureServiceServicer_to_server

    def build() -> Built:
        from gramlet_server.feature.service import FeatureServicer

        return Built(FeatureServicer(shared.engine), drain=shared.engine.drain, watch=shared.engine.tell_failure)

    return Service("gramlet.feature.v1.FeatureService", add_FeatureServiceServicer_to_server, build)


def stylize(shared: Shared) -> Service:
    """StylizeService: neural style transfer."""
    from gramlet.stylize.v1.stylize_pb2_grpc import add_StylizeServiceServicer_to_server

    def build() -> Built:
        from gramlet_server.stylize.runs import KIND, SWEEPS, Runs, RunSettings
        from gramlet_server.stylize.service import StylizeServicer

        chosen = shared.settings.stylize
        settings = RunSettings(chosen.stylize_runs, chosen.stylize_queue_limit, chosen.checkpoint_every)
        runs = Runs(shared.features, shared.store, settings, shared.settings.limits, shared.metrics)
        shared.keep_sweeping(KIND)
        shared.keep_sweeping(SWEEPS)
        return Built(StylizeServicer(runs), drain=runs.drain)

    return Service("gramlet.stylize.v1.StylizeService", add_StylizeServiceServicer_to_server, build)


def train(shared: Shared) -> Service:
    """TrainService: transfer-learning heads."""
    from gramlet.train.v1.train_pb2_grpc import add_TrainServiceServicer_to_server

    def build() -> Built:
        from gramlet_server.backbone.weights import load
        from gramlet_server.train.classifier import BaseStages
        from gramlet_server.train.runs import KIND, Runs, RunSettings
        from gramlet_server.train.service import TrainServicer

        chosen, network = shared.settings.train, shared.settings.network
        roots = tuple(root.strip() for root in chosen.dataset_roots.split(",") if root.strip())
        settings = RunSettings(chosen.train_runs, chosen.train_queue_limit, dataset_roots=roots)
        # Read when stages are first unfrozen; frozen networks need no weights here.
        base = BaseStages(lambda: load(network.backbone, network.weights))
        runs = Runs(shared.features, shared.store, base, settings, shared.metrics)
        # Beside the start, not before it: a run that comes at once only waits for what is left.
        threading.Thread(target=runs.warm_up, name="warm-up", daemon=True).start()
        shared.keep_sweeping(KIND)
        return Built(TrainServicer(runs, shared.features, shared.store, base), drain=runs.drain)

    return Service("gramlet.train.v1.TrainService", add_TrainServiceServicer_to_server, build)


def embed(shared: Shared) -> Service:
    """EmbedService: maps of style."""
    from gramlet.embed.v1.embed_pb2_grpc import add_EmbedServiceServicer_to_server

    def build() -> Built:
        from gramlet_server.embed.descriptors import Budget
        from gramlet_server.embed.making import MakingSettings, Maps
        from gramlet_server.embed.service import EmbedServicer

        chosen = shared.settings.embed
        settings = MakingSettings(
            chosen.embed_runs,
            chosen.embed_queue_limit,
            budget=Budget(chosen.embed_memory_bytes, chosen.embed_disk_bytes, chosen.embed_scratch),
        )
        maps = Maps(shared.features, shared.store, settings, shared.settings.limits, shared.metrics)
        return Built(EmbedServicer(maps, shared.features, shared.store), drain=maps.drain)

    return Service("gramlet.embed.v1.EmbedService", add_EmbedServiceServicer_to_server, build)


# Services that others use come first: they are built first, and the last to go.
SERVICES: dict[str, Callable[[Shared], Service]] = {
    "feature": feature,
    "stylize": stylize,
    "train": train,
    "embed": embed,
}


def weights(settings: Settings) -> int:
    """Fetches and checks the weights, for an image or a machine that will start without a way to them."""
    from gramlet_server.backbone.weights import load

    loaded = load(settings.network.backbone, settings.network.weights)
    print(f"gramlet-server: {loaded.backbone}, weights {loaded.source}, digest {loaded.digest}")
    return 0


COMMANDS: dict[str, Callable[[Settings], int]] = {
    "probe": lambda settings: probe(settings.server),
    "weights": weights,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `gramlet-server`; returns its exit code: 0, 1 where something failed, 2 for a wrong command line."""
    try:
        names, settings = _parse(sys.argv[1:] if arguments is None else arguments)
    except GramletError as error:
        print(f"gramlet-server: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.server.log_format, settings.server.log_level)
    try:
        return COMMANDS[names[0]](settings) if names[0] in COMMANDS else _serve(names, settings)
    except GramletError as error:
        print(f"gramlet-server: {error}", file=sys.stderr)
        return 1


def _serve(names: Sequence[str], settings: Settings) -> int:
    if not settings.features.features:
        keep_large_blocks()
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
    parser.add_argument(
        "services",
        nargs="+",
        choices=("all", *SERVICES, *COMMANDS),
        help="services to run in this process; or `probe`: does it serve? or `weights`: fetch and check them",
    )
    parser.add_argument("--version", action="version", version=f"gramlet-server {__version__}")
    add_settings(parser, os.environ)
    parsed = parser.parse_args(arguments)
    settings = read_settings(parsed, os.environ)
    if any(name in COMMANDS for name in parsed.services):
        if len(parsed.services) > 1:
            parser.error(f"{' and '.join(COMMANDS)} stand alone")
        return parsed.services, settings
    names = [name for name in SERVICES if name in parsed.services or "all" in parsed.services]
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
