"""The feature cache: what was written is found by every process, and a dead writer leaves nothing behind."""

import numpy as np
import pytest
from gramlet.feature.types import Form
from gramlet.tensor.hashing import picture_hash
from gramlet.types import ElementType
from gramlet_server.runs.store import Store
from gramlet_server.train import cache as module
from gramlet_server.train.cache import FeatureCache, FeatureSpace, PackWriter, feature_key

SPACE = FeatureSpace("d" * 64, "float32", "avgpool", Form.POOLED, ElementType.FLOAT32, 224)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"))


def features(count: int, start: int = 0) -> dict[bytes, np.ndarray]:
    return {feature_key(picture_hash(b"%d" % i), 0): np.full(8, i, np.float32) for i in range(start, start + count)}


def test_features_are_found_by_another_process(store):
    written = features(5)
    FeatureCache(store).write(SPACE, written)
    other = FeatureCache(store)
    assert other.known(SPACE, [*written, b"x" * 32]) == set(written)
    read = dict(other.read(SPACE, written))
    assert read.keys() == written.keys()
    assert all(np.array_equal(read[key], written[key]) for key in written)


def test_a_pack_written_later_by_another_process_is_found(store):
    mine, theirs = FeatureCache(store), FeatureCache(store)
    assert not mine.known(SPACE, features(2))
    theirs.write(SPACE, features(2))
    assert len(mine.known(SPACE, features(2))) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"weights_digest": "e" * 64},
        {"precision": "bfloat16"},
        {"stage": "layer3"},
        {"form": Form.ACTIVATIONS},
        {"element_type": ElementType.FLOAT16},
        {"size": 256},
    ],
)
def test_features_of_another_space_are_not_mistaken_for_these(store, other):
    cache = FeatureCache(store)
    cache.write(SPACE, features(2))
    assert not cache.known(FeatureSpace(**{**vars(SPACE), **other}), features(2))


def test_views_have_keys_of_their_own():
    sha = picture_hash(b"picture")
    assert len({feature_key(sha, view) for view in range(4)}) == 4
    assert feature_key(sha, 0).hex() == sha


def test_a_pack_whose_writer_died_before_its_keys_is_never_seen(store):
    cache = FeatureCache(store)
    cache.write(SPACE, features(2))
    (keys,) = [entry.key for entry in store.list(SPACE.prefix) if entry.key.endswith(".keys")]
    store.delete(keys)
    assert not FeatureCache(store).known(SPACE, features(2))


def test_a_deleted_pack_is_left_out_and_forgotten(store):
    cache = FeatureCache(store)
    cache.write(SPACE, features(2))
    for entry in store.list(SPACE.prefix):
        store.delete(entry.key)
    assert list(cache.read(SPACE, features(2))) == []
    assert not cache.known(SPACE, features(2))


def test_thousands_of_features_take_few_objects(store):
    cache = FeatureCache(store)
    writer = PackWriter(cache, SPACE)
    for i in range(2000):
        writer.add(feature_key(picture_hash(b"%d" % i), 0), np.zeros(2048, np.float32))
    writer.close()
    assert len(store.list(SPACE.prefix)) == 2 * -(-2000 * 2048 * 4 // module.PACK_BYTES)


def test_a_pack_is_written_when_it_is_old_so_that_a_kill_loses_little(store):
    now = [0.0]
    cache = FeatureCache(store)
    writer = PackWriter(cache, SPACE, clock=lambda: now[0])
    for key, feature in features(3).items():
        writer.add(key, feature)
        now[0] += module.PACK_SECONDS / 2
    assert len(FeatureCache(store).known(SPACE, features(3))) == 3
