"""Features are cached by the hash of the picture that was sent, within a limit in bytes, and unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from gramlet.errors import InvalidInput
from gramlet.feature.types import Extraction, Features, Form, GramNormalization
from gramlet.types import Array, ElementType, Limits, Resize, ResizeMode
from gramlet_server.feature.cache import Cache
from gramlet_server.feature.engine import Engine, EngineSettings
from gramlet_server.feature.work import Batching
from gramlet_server.pictures import workers
from gramlet_server.pictures.encode import encode_jpeg
from gramlet_server.telemetry import Observer

from tests.e2e.cluster import wait_until
from tests.feature.gated_device import GatedDevice

EXTRACTION = Extraction(
    ("conv1", "layer1"), (Form.ACTIVATIONS, Form.GRAM, Form.POOLED), resize=Resize(ResizeMode.CENTER_CROP, 40)
)


class Counts(Observer):
    def __init__(self) -> None:
        self.asked: Counter[tuple[str, bool]] = Counter()

    def cache(self, name: str, hit: bool) -> None:
        self.asked[name, hit] += 1


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def caching(engine: Engine, counts: Counts) -> Iterator[Engine]:
    """An engine with a cache of its own, and the network of all tests."""
    caching = Engine(engine.network, observer=counts)
    yield caching
    caching.close()


def pixels(seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((3, 48, 56), dtype=np.float32)


def features(engine: Engine, picture: bytes | Array, extraction: Extraction = EXTRACTION) -> Features:
    (found,) = engine.extract_together([picture], extraction)
    assert isinstance(found, Features)
    return found


def arrays(found: Features) -> list[Array]:
    return [*found.activations.values(), *found.grams.values(), *found.pooled.values()]


def test_the_same_picture_is_neither_decoded_nor_computed_again_and_gives_the_same_bits(
    caching: Engine, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = encode_jpeg(pixels())
    first, worked = features(caching, file), caching.model().load.device_seconds
    monkeypatch.delattr(workers, "decode_for")
    (streamed,) = caching.extract([file], EXTRACTION)
    assert isinstance(streamed, Features)
    for again in (features(caching, file), streamed):
        assert all((ours == theirs).all() for ours, theirs in zip(arrays(again), arrays(first), strict=True))
        assert (again.height, again.width) == (40, 40)
        assert again.timing.batch_size == 0
        assert not any(array.flags.writeable for array in arrays(again))
    assert first.timing.batch_size == 1
    assert caching.model().load.device_seconds == worked
    assert counts.asked == {("features", False): 1, ("features", True): 2}


@pytest.mark.parametrize(
    "change",
    [
        {"stages": ("conv1",)},
        {"forms": (Form.GRAM,)},
        {"gram_normalization": GramNormalization.POSITIONS},
        {"resize": Resize(ResizeMode.CENTER_CROP, 32)},
    ],
)
def test_cached_features_are_used_only_for_the_same_extraction(caching: Engine, change: dict[str, object]) -> None:
    features(caching, pixels())
    assert features(caching, pixels(), replace(EXTRACTION, **change)).timing.batch_size == 1  # type: ignore[arg-type]
    assert features(caching, pixels(1)).timing.batch_size == 1
    on_the_wire = replace(EXTRACTION, element_type=ElementType.FLOAT16, triangle=True)
    assert features(caching, pixels(), on_the_wire).timing.batch_size == 0


def test_the_cache_stays_within_its_limit(engine: Engine) -> None:
    pooled = Extraction(("layer4",), (Form.POOLED,))  # 8 KiB a picture
    bounded = Engine(engine.network, EngineSettings(feature_cache_bytes=20 * 1024))
    for seed in (0, 1, 0, 2):
        features(bounded, pixels(seed), pooled)
    assert bounded.feature_cache.bytes == 2 * 8 * 1024
    assert [features(bounded, pixels(seed), pooled).timing.batch_size for seed in (2, 0, 1)] == [0, 0, 1]
    features(bounded, pixels(), EXTRACTION)  # larger than the whole cache
    assert bounded.feature_cache.bytes == 2 * 8 * 1024
    bounded.close()


def test_without_a_cache_every_picture_is_computed(engine: Engine, counts: Counts) -> None:
    plain = Engine(engine.network, EngineSettings(feature_cache_bytes=0), observer=counts)
    assert [features(plain, pixels()).timing.batch_size for _ in range(2)] == [1, 1]
    assert not counts.asked
    plain.close()


def test_cached_features_must_fit_a_message_too(engine: Engine) -> None:
    caching = Engine(engine.network, limits=Limits(message_bytes=16_000))
    half = Extraction(("layer4",), (Form.ACTIVATIONS,), element_type=ElementType.FLOAT16)
    features(caching, pixels()[:, :32, :64], half)
    with pytest.raises(InvalidInput, match="ExtractStream"):
        caching.extract_together([pixels()[:, :32, :64]] * 2, half)
    (streamed,) = caching.extract([pixels()[:, :32, :64]], replace(half, element_type=ElementType.FLOAT32))
    assert isinstance(streamed, InvalidInput)
    caching.close()


def test_cached_features_are_returned_even_while_the_queue_is_full(engine: Engine) -> None:
    device = GatedDevice()
    busy = Engine(engine.network, EngineSettings(Batching(pictures=1, queue_limit=1)), device=device)
    pooled = Extraction(("conv1",), (Form.POOLED,))
    features(busy, pixels(), pooled)
    with ThreadPoolExecutor() as pool, device.shut():
        others = pool.submit(list, busy.extract((pixels(seed) for seed in range(1, 9)), pooled))
        wait_until(lambda: busy.model().load.queued > 0, what="the queue to be full")
        assert features(busy, pixels(), pooled).timing.batch_size == 0
    assert len(others.result()) == 8
    busy.close()


def test_a_cache_drops_the_least_recently_used_value() -> None:
    cache: Cache[bytes] = Cache("some", 10, Observer(), len)
    for key in "abc":
        cache.put(key, b"1234")
        cache.get("a")
    assert [cache.get(key) for key in "abc"] == [b"1234", None, b"1234"]
    cache.put("a", b"12")
    assert cache.bytes == 6
