"""The composition root: how each service of this process is built, and what they share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from gramlet_server.runtime.config import Settings
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.server import Built, Service

if TYPE_CHECKING:
    from gramlet_server.feature.engine import Engine
    from gramlet_server.feature_source import FeatureSource
    from gramlet_server.runs.store import Store


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

        from gramlet_server.remote_features import RemoteFeatures

        token = chosen.features_token_file.read_text().strip() if chosen.features_token_file else None
        tls = Tls(chosen.features_ca, chosen.features_cert, chosen.features_key) if chosen.speaks_tls else None
        return RemoteFeatures(Client(chosen.features, token=token, tls=tls), chosen.features_patience_seconds)

    @cached_property
    def store(self) -> Store:
        """Where checkpoints and results are kept."""
        from gramlet_server.runs.store import Store

        return Store.open(self.settings.store.store)

    def keep_sweeping(self, kind: str) -> None:
        """Removes old runs of a kind from the store, as long as the process lives."""
        from gramlet_server.runs.retention import keep_sweeping

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
        return Built(TrainServicer(runs, shared.features, shared.store, base), drain=runs.lifecycle.drain)

    return Service("gramlet.train.v1.TrainService", add_TrainServiceServicer_to_server, build)


def embed(shared: Shared) -> Service:
    """EmbedService: maps of style."""
    from gramlet.embed.v1.embed_pb2_grpc import add_EmbedServiceServicer_to_server

    def build() -> Built:
        from gramlet_server.embed.distances import Budget
        from gramlet_server.embed.runs import Maps, RunSettings
        from gramlet_server.embed.service import EmbedServicer

        chosen = shared.settings.embed
        settings = RunSettings(
            chosen.embed_runs,
            chosen.embed_queue_limit,
            budget=Budget(chosen.embed_memory_bytes, chosen.embed_disk_bytes, chosen.embed_scratch),
        )
        maps = Maps(shared.features, shared.store, settings, shared.settings.limits, shared.metrics)
        return Built(EmbedServicer(maps, shared.features, shared.store), drain=maps.lifecycle.drain)

    return Service("gramlet.embed.v1.EmbedService", add_EmbedServiceServicer_to_server, build)


# Services that others use come first: they are built first, and the last to go.
SERVICES: dict[str, Callable[[Shared], Service]] = {
    "feature": feature,
    "stylize": stylize,
    "train": train,
    "embed": embed,
}
