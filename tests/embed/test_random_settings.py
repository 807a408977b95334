"""No settings that are within their bounds end the process, and no map is stored that is not finite.

Native code that fails ends the process, so the settings are tried in a child. GRAMLET_LONG_TESTS=1 tries 2,000.
"""

from __future__ import annotations

import os
import subprocess
import sys

_COUNT = 2000 if os.environ.get("GRAMLET_LONG_TESTS") else 40

_CHILD = """
import sys
import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from gramlet.embed.settings import Descriptor, Gradient, MapSettings, Tsne
from gramlet.errors import FailedPrecondition, InvalidInput
from gramlet_server.embed import project
from gramlet_server.embed.bounds import check_settings
from gramlet_server.embed.descriptors import Describer
from gramlet_server.embed.geometry import RowPoints
from gramlet_server.embed.project import FinishedLayout

ends = {"finished": 0, "stopped": 0, "refused": 0}
anything = st.floats(width=64)

def between(low, high):
    return st.one_of(st.floats(low, high), st.sampled_from([low, high]), st.floats(-3, 3).map(lambda e: 10**e), anything)

tsne = st.builds(
    Tsne,
    perplexities=st.lists(between(1, 1000), min_size=1, max_size=2).map(tuple),
    iterations=st.integers(1, 60),
    early_exaggeration=between(1, 1000),
    early_iterations=st.integers(0, 60),
    learning_rate=st.one_of(st.none(), between(1e-3, 1e6)),
    angle=between(0, 1),
    gradient=st.sampled_from(Gradient),
)

@seed(0)
@settings(max_examples=int(sys.argv[1]), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    tuning=tsne,
    dimensions=st.integers(1, 3),
    items=st.integers(5, 40),
    scale=st.sampled_from([0.0, 1e-30, 1e-6, 1.0, 1e6, 1e17, 1e30, 1e38]),
    number=st.integers(0, 2**32),
)
def attempt(tuning, dimensions, items, scale, number):
    wanted = MapSettings(descriptor=Descriptor.VECTOR, dimensions=dimensions, tsne=tuning, seed=number)
    describer = Describer(wanted)
    try:
        check_settings(wanted)
        vectors = np.random.default_rng(number).normal(size=(items, 6)) * scale
        points = RowPoints(np.stack([describer.of_vector(vector) for vector in vectors]), number)
        *_, last = project.layouts(points, project.fit_to_items(wanted, items)[0])
    except InvalidInput:
        ends["refused"] += 1
    except FailedPrecondition:
        ends["stopped"] += 1
    else:
        assert isinstance(last, FinishedLayout) and np.isfinite(last.coordinates).all()
        ends["finished"] += 1

attempt()
print(ends)
assert ends["finished"] > 0 and ends["refused"] > 0
"""


def test_random_settings_of_tsne_never_end_the_process() -> None:
    command = [sys.executable, "-W", "error", "-X", "faulthandler", "-c", _CHILD, str(_COUNT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
