"""What EmbedService talks about: items, the events of a map's making, maps. Plain frozen dataclasses over NumPy arrays.

The settings of a map: `settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from gramlet.embed.settings import Descriptor, Exactness, MapSettings, Method
from gramlet.errors import GramletError
from gramlet.run.types import Progress
from gramlet.signatures import checks_calls
from gramlet.types import Array, Pixels


@checks_calls
@dataclass(frozen=True)
class Item:
    """One item of a map: a picture, or a vector.

    Attributes:
        id: The caller's name for it; need not be unique.
        label: Its class, or empty. Colors the map and is used to judge it, never to make it.
        picture: An encoded file, or pixels: (3, H, W) float32 in 0..1, or (H, W, 3) uint8.
        vector: For Descriptor.VECTOR, (n,).
    """

    id: str
    label: str = ""
    picture: bytes | Array | Pixels | None = None
    vector: Array | None = None


@dataclass(frozen=True)
class BadItem:
    """An item that could not even be read or decoded, and why. It is refused alone."""

    id: str
    error: GramletError


@dataclass(frozen=True)
class Queued:
    """The call waits; `position` calls are before it."""

    map_id: str
    position: int


@dataclass(frozen=True)
class Started:
    """The work begins, or goes on from a checkpoint. `settings` has every default filled in.

    `weights_digest` is that of the network which describes pictures; empty where vectors are given.
    """

    map_id: str
    settings: MapSettings
    memory_bound: int
    resumed: bool = False
    weights_digest: str = ""


@dataclass(frozen=True)
class Described:
    """`described` items of `count` have their descriptor; `refused` failed."""

    map_id: str
    described: int
    refused: int
    count: int


@dataclass(frozen=True)
class Refused:
    """Item `index`, in the order of sending, failed alone: the map is made without it.

    `code` is the number of the google.rpc.Code that a call with this item alone would have failed with.
    """

    index: int
    id: str
    code: int
    message: str
    field: str = ""


@dataclass(frozen=True)
class Measured:
    """How the distances were computed, and how well.

    Attributes:
        exactness: EXACT or SKETCH.
        descriptor_size: Elements of one descriptor, as compared: a Gram counts its upper triangle.
        largest_error: Largest relative error of a distance among the pairs checked against float64.
        rms_error: Root mean square of those errors.
        pairs_checked: How many pairs that were.
        duplicates: Items whose picture or vector equals an earlier item's.
    """

    exactness: Exactness
    descriptor_size: int
    largest_error: float
    rms_error: float
    pairs_checked: int
    duplicates: int


@dataclass(frozen=True)
class LayoutIteration:
    """t-SNE has gone on. `coordinates` is (items, dimensions), or None where they were to be left out."""

    map_id: str
    layout: int
    perplexity: float
    iteration: int
    iterations: int
    kl_divergence: float
    coordinates: Array | None = None


@dataclass(frozen=True)
class Quality:
    """How far a layout can be believed. Larger is better.

    Attributes:
        neighbors: Neighbors k that were looked at.
        trustworthiness: 0..1: how few items that are far apart the map makes neighbors (Venna and Kaski, 2001).
        continuity: 0..1: how few neighbors the map separates.
        neighbor_preservation: 0..1: share of each item's k nearest that are still so on the map.
        label_accuracy: 0..1: share of labeled items with the label of most of their neighbors on the map.
        descriptor_label_accuracy: The same among the descriptors.
        silhouette: -1..1: mean silhouette of the labels on the map (Rousseeuw, 1987).
        descriptor_silhouette: The same among the descriptors.
        items: How many items were measured; of more than 2,000 a sample.
        standard_error: The largest standard error of the shares, not of the silhouettes; 0 if all were measured.
        neighbor_recall: 0..1: share of the true nearest neighbors among those that t-SNE used.
    """

    neighbors: int
    trustworthiness: float
    continuity: float
    neighbor_preservation: float
    label_accuracy: float | None = None
    descriptor_label_accuracy: float | None = None
    silhouette: float | None = None
    descriptor_silhouette: float | None = None
    items: int = 0
    standard_error: float = 0.0
    neighbor_recall: float = 1.0


@dataclass(frozen=True)
class Layout:
    """One arrangement of the items: (items, dimensions). Perplexity and divergence are 0 but for t-SNE."""

    coordinates: Array
    quality: Quality
    perplexity: float = 0.0
    kl_divergence: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """A descriptor, and how often the nearest neighbors of an item have its label.

    Attributes:
        descriptor, stages, balance_stages: As in `MapSettings`.
        descriptor_label_accuracy: 0..1, with neighbors among the descriptors.
        label_accuracy: 0..1, with neighbors on a map; None where no map was made of it.
    """

    descriptor: Descriptor
    stages: tuple[str, ...]
    balance_stages: bool
    descriptor_label_accuracy: float
    label_accuracy: float | None = None


@dataclass(frozen=True)
class Place:
    """An item of a map: the caller's name for it, and its class or empty."""

    id: str
    label: str = ""


@dataclass(frozen=True)
class StyleMap:
    """A finished map.

    Attributes:
        map_id: Its name.
        created: Seconds since 1970-01-01T00:00:00Z.
        settings: How it was made.
        backbone, weights_digest: The network; empty where vectors were given.
        places: The items on the map, in the order of sending.
        layouts: The arrangements, in the order of the perplexities.
        measured: How the distances were computed.
        refused: The items that are not on the map.
        notes: What a reader of the map should know, one sentence each.
        seconds: Of the making.
        comparison: Descriptors of the same pictures, the best first, if the settings ask for it.
    """

    map_id: str
    created: float
    settings: MapSettings
    places: tuple[Place, ...]
    layouts: tuple[Layout, ...]
    measured: Measured
    backbone: str = ""
    weights_digest: str = ""
    refused: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    comparison: tuple[Comparison, ...] = ()


@dataclass(frozen=True)
class RefusedItem:
    """The event of an item that failed alone."""

    map_id: str
    refused: Refused


@dataclass(frozen=True)
class RemoteProgress:
    """The progress of a map that another replica makes."""

    map_id: str
    progress: Progress


@dataclass(frozen=True)
class Reconnecting:
    """The server was lost: the client looks for it, or for another one, which goes on."""

    map_id: str
    message: str


@dataclass(frozen=True)
class MeasuredItems:
    """The event that all distances are known: from here on the making can be resumed."""

    map_id: str
    measured: Measured


class Task(Enum):
    """A part of the work between the other events."""

    COMPARISON = "comparing descriptors"
    DISTANCES = "computing distances"
    QUALITY = "measuring quality"


@dataclass(frozen=True)
class Working:
    """The event that `done` of `total` steps of a task are done."""

    map_id: str
    task: Task
    done: int
    total: int


MapEvent = (
    Queued
    | Started
    | Described
    | RefusedItem
    | MeasuredItems
    | LayoutIteration
    | Working
    | RemoteProgress
    | Reconnecting
    | StyleMap
)
"""What the making of a map reports; a `StyleMap` comes last."""


@dataclass(frozen=True)
class Neighbor:
    """An item of the map that is near: its place in the map's order, its id, its distance."""

    index: int
    id: str
    distance: float


@dataclass(frozen=True)
class Position:
    """Where a new item lies on a map: (layouts, dimensions), and the nearest items of the map, nearest first.

    `weights_digest` is that of the map's network; empty for a map of vectors.
    """

    id: str
    coordinates: Array
    neighbors: tuple[Neighbor, ...] = ()
    weights_digest: str = ""


@dataclass(frozen=True)
class MapSummary:
    """A stored map in short. `finished` is False while it is made, or where its making was interrupted."""

    map_id: str
    created: float
    method: Method
    items: int
    layouts: int
    finished: bool


@dataclass(frozen=True)
class MapStart:
    """The start of a new map, or of the rest of an interrupted one; or the map to watch.

    Attributes:
        settings: For a new map; None to resume or to watch.
        resume_map_id: The interrupted map, or empty.
        count: Items to come, at most. Required for a new map.
        map_id: The name of a new map; empty: the server chooses.
        from_map_id: A stored map from which t-SNE starts, or empty.
        report_every: Iterations between reports.
        omit_coordinates: Leave the coordinates out of the reports.
        watch_map_id: The map to watch while it is made, without any influence on it; or empty.
        detached: Whether the making goes on when its caller leaves.
        take_over: Whether to resume the making at once, even if another replica seems to do it.
        items_of_map_id: A finished map whose items this map lays out once more; no items come. Or empty.
        vector_size: The most elements of the vectors to come; 0: as many as a sketch has.
        weights_digest: The only network that may describe the pictures of a new map; empty: any.
    """

    settings: MapSettings | None = field(default_factory=MapSettings)
    resume_map_id: str = ""
    count: int = 0
    map_id: str = ""
    from_map_id: str = ""
    report_every: int = 10
    omit_coordinates: bool = False
    watch_map_id: str = ""
    detached: bool = False
    take_over: bool = False
    items_of_map_id: str = ""
    vector_size: int = 0
    weights_digest: str = ""
