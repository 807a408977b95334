"""The composition root: what the services of a process share, and how each is built.

Everything that a service needs is imported when it is built. So a process loads only what it serves: `gramlet-server
embed` never imports torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gramlet_server.process.garbage import keep_for_good
from gramlet_server.runtime.build import Built, Service, ignore
from gramlet_server.runtime.config import Settings
from gramlet_server.runtime.metrics import Metrics

if TYPE_CHECKING:
    from gramlet_server.feature.device import Device
    from gramlet_server.feature.engine import Engine
    from gramlet_server.feature_source import FeatureSource
    from gramlet_server.pictures.workers import Decoder
    from gramlet_server.runs.lifecycle import Lifecycle
    from gramlet_server.runs.quota import StoreQuota
    from gramlet_server.runs.readiness import StoreMonitor
    from gramlet_server.runs.store import Store


class Shared:
    """What the services of a process share. Each part is made when the first service asks for it.

    Args:
        settings: Of the process.
        device: Runs the passes of the network in this process; None: the one that the settings name.

    Attributes:
        lifecycles: Of the services that execute runs.
    """

    def __init__(self, settings: Settings, device: Device | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._device = device
        self.lifecycles: list[Lifecycle] = []

    @cached_property
    def engine(self) -> Engine:
        """The network in this process."""
        from gramlet_server.backbone import load_network
        from gramlet_server.feature.descents import DescentLimits
        from gramlet_server.feature.device_decode import NVJPEG
        from gramlet_server.feature.engine import Engine, EngineSettings
        from gramlet_server.feature.work import Batching

        chosen, queue = self.settings.network, self.settings.queue
        pixels = NVJPEG if queue.decoder == "device" else ""
        network = load_network(chosen.backbone, chosen.weights, chosen.device, chosen.precision, pixels)
        settings = EngineSettings(
            batching=Batching(queue.batch_pictures, queue.batch_pixels, queue.queue_limit),
            batch_gradients=queue.batch_gradients,
            cache_bytes=queue.cache_bytes,
            tile_pixels=queue.tile_pixels,
            cuda_graphs=chosen.cuda_graphs,
            feature_cache_bytes=queue.feature_cache_bytes,
            descents=DescentLimits(queue.descents, queue.descent_queue_limit),
        )
        engine = Engine(network, settings, self.settings.limits, self.metrics, self._device, self.decoder)
        engine.warm_up()
        return engine

    @cached_property
    def decoder(self) -> Decoder:
        """Decodes files. Its worker processes then decode the costly files of all services (`pictures/offload.py`)."""
        from gramlet_server.pictures import offload
        from gramlet_server.pictures.workers import DecodeWorkers, decoder_for

        chosen = self.settings.decoding
        decoder = decoder_for(chosen.decode_workers, self.settings.limits, chosen.decode_seconds)
        offload.set_pool(decoder if isinstance(decoder, DecodeWorkers) else None)
        return decoder

    @cached_property
    def features(self) -> FeatureSource:
        """The network, in this process or at a FeatureService."""
        chosen = self.settings.features
        if not chosen.features:
            return self.engine
        from gramlet import Client, Tls

        from gramlet_server.remote_features import RemoteFeatures

        token = chosen.features_token_file.read_text().strip() if chosen.features_token_file else ""
        tls = Tls(chosen.features_ca, chosen.features_cert, chosen.features_key) if chosen.speaks_tls else None
        return RemoteFeatures(Client(chosen.features, token=token, tls=tls), chosen.features_patience_seconds)

    @cached_property
    def store(self) -> Store:
        """Where checkpoints and results are stored."""
        from gramlet_server.runs.store import Store

        return Store.open(self.settings.store.store)

    @cached_property
    def store_monitor(self) -> StoreMonitor:
        """Watches the store."""
        from gramlet_server.runs.readiness import StoreMonitor

        return StoreMonitor(self.store)

    @cached_property
    def quota(self) -> StoreQuota:
        """The limits of what names may store."""
        from gramlet_server.runs.quota import StoreQuota
        from gramlet_server.runs.records import Records
        from gramlet_server.train.descriptions import HeadSizes

        return StoreQuota([Records(self.store).sizes, HeadSizes(self.store)])

    def check(self) -> None:
        """Refuses settings of services with runs before the network is loaded: a store that cannot be opened."""
        _ = self.store

    def executing(self, servicer: Any, lifecycle: Lifecycle, keep_rescuing: Callable[[], None]) -> Built:
        """A service that executes runs. RunService can stop them, and detached runs of lost processes go on here."""
        self.lifecycles.append(lifecycle)
        lifecycle.check_quota = self.quota.check
        keep_rescuing()
        seconds = self.settings.server.drain_seconds
        return Built(
            servicer,
            drain=lifecycle.drain,
            close=lambda: lifecycle.close(seconds),
            on_readiness=self.store_monitor.subscribe,
        )

    def keep_sweeping(self, kind: str, cache: str = "", keeps: Callable[[str], bool] = lambda _: False) -> None:
        """Removes old runs of a kind, and an old cache, from the store, as long as the process lives."""
        from gramlet_server.runs.retention import keep_sweeping

        days = self.settings.store.keep_runs_days
        keep_sweeping(self.store, kind, timedelta(days=days) if days else None, cache=cache, keeps=keeps)

    def close(self) -> None:
        """Releases the network, or the connection to it, and ends the decoders and the watch of the store, if a service
        used them."""
        from gramlet_server.pictures import offload

        offload.set_pool(None)
        for part in ("engine", "features", "decoder", "store_monitor"):
            if part in vars(self):
                vars(self)[part].close()


def _service(
    name: str, build: Callable[[Shared], Built], shared: Shared, check: Callable[[Shared], object] = Shared.check
) -> Service:
    """A service, with the names that its proto package gives it."""
    class_name = f"{name.capitalize()}Service"
    generated = import_module(f"gramlet.{name}.v1.{name}_pb2_grpc")
    add = getattr(generated, f"add_{class_name}Servicer_to_server")
    return Service(f"gramlet.{name}.v1.{class_name}", add, partial(build, shared), partial(check, shared))


def _feature(shared: Shared) -> Built:
    from gramlet_server.feature.service import FeatureServicer

    engine = shared.engine
    return Built(FeatureServicer(engine), drain=engine.drain, on_failure=engine.on_failure)


def _stylize(shared: Shared) -> Built:
    from gramlet_server.stylize.runs import KIND, SWEEPS, Runs, RunSettings
    from gramlet_server.stylize.service import StylizeServicer

    chosen = shared.settings.stylize
    settings = RunSettings(
        chosen.stylize_runs, chosen.stylize_queue_limit, chosen.state_seconds, shared.settings.store.lease_seconds
    )
    runs = Runs(shared.features, shared.store, settings, shared.settings.limits, shared.metrics)
    shared.keep_sweeping(KIND)
    shared.keep_sweeping(SWEEPS)
    return shared.executing(StylizeServicer(runs), runs.lifecycle, runs.keep_rescuing)


def _train(shared: Shared) -> Built:
    from gramlet_server.backbone.weights import load
    from gramlet_server.train.cache import CACHE
    from gramlet_server.train.classifier import BaseStages
    from gramlet_server.train.runs import KIND, Runs, RunSettings
    from gramlet_server.train.service import TrainServicer

    chosen, network = shared.settings.train, shared.settings.network
    settings = RunSettings(
        chosen.train_runs,
        chosen.train_queue_limit,
        dataset_roots=chosen.dataset_roots,
        lease_seconds=shared.settings.store.lease_seconds,
    )
    # The weights are read when a training first unfreezes stages; frozen networks need none here.
    base = BaseStages(lambda: load(network.backbone, network.weights))
    runs = Runs(shared.features, shared.store, base, settings, shared.metrics)
    # In the background, so that the service is ready sooner. A run that starts earlier waits for it.
    threading.Thread(target=_warm_up, args=[runs.warm_up], name="warm-up", daemon=True).start()
    shared.keep_sweeping(KIND, cache=CACHE)
    return shared.executing(
        TrainServicer(runs, shared.features, shared.store, base), runs.lifecycle, runs.keep_rescuing
    )


def _warm_up(load: Callable[[], None]) -> None:
    load()
    keep_for_good()


def _embed(shared: Shared) -> Built:
    from gramlet_server.embed import stored
    from gramlet_server.embed.distances import Budget
    from gramlet_server.embed.runs import Maps, RunSettings
    from gramlet_server.embed.service import EmbedServicer
    from gramlet_server.runs.run import Run

    chosen = shared.settings.embed
    budget = Budget(chosen.embed_memory_bytes, chosen.embed_disk_bytes, chosen.embed_scratch)
    lease = shared.settings.store.lease_seconds
    settings = RunSettings(chosen.embed_runs, chosen.embed_queue_limit, budget=budget, lease_seconds=lease)
    maps = Maps(shared.features, shared.store, settings, shared.settings.limits, shared.metrics)
    # Finished maps stay until somebody deletes them.
    shared.keep_sweeping(stored.KIND, keeps=lambda map_id: stored.is_finished(Run(shared.store, stored.KIND, map_id)))
    return shared.executing(EmbedServicer(maps, shared.features, shared.store), maps.lifecycle, maps.keep_rescuing)


def _run(shared: Shared) -> Built:
    from gramlet_server.runs.control import RunControl
    from gramlet_server.runs.records import Records
    from gramlet_server.runs.service import RunServicer

    records = Records(shared.store, shared.settings.store.lease_seconds)
    return Built(RunServicer(RunControl(records, shared.lifecycles)), on_readiness=shared.store_monitor.subscribe)


# Services that others use come first: they are built first and closed last.
SERVICES: dict[str, Callable[[Shared], Service]] = {
    "feature": partial(_service, "feature", _feature, check=ignore),
    "stylize": partial(_service, "stylize", _stylize),
    "train": partial(_service, "train", _train),
    "embed": partial(_service, "embed", _embed),
}
_RUN = partial(_service, "run", _run)


def services_of(names: Sequence[str], shared: Shared) -> list[Service]:
    """The services of these names; and RunService, if any of them executes runs."""
    _ = shared.decoder  # every service reads pictures
    built = [SERVICES[name](shared) for name in names]
    return built if set(names) <= {"feature"} else [*built, _RUN(shared)]
