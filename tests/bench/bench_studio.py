"""The studio in headless Chromium: steering a run, watching it with eight readers, and a map of 2,000 pictures.

python tests/bench/bench_studio.py [steer watchers map draw] [--pictures 2000] [--rounds 7]

steer: seconds from a preview's iteration to the preview on the page, and from a slider to the first changed iteration.
watchers: seconds an iteration with and without eight readers, in rounds that alternate, and the processor time of the
    server and of the studio, which other work on the machine changes less. A reader does what a browser does: it reads
    the events, and fetches each preview that it hears of.
map: seconds from `Learn these regions` to the recolored map, when the features are known.
draw: frames a second while a map is moved and zoomed, on a 2D canvas and by WebGL, both by Chromium's software.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import gramlet
import numpy as np
from gramlet_studio.maps import OF_HEADS
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.rows import Row, add_parts, measured
from tests.e2e.cluster import Cluster, GramletServer
from tests.embed.browser import Page, chromium
from tests.studio.conftest import StudioProcess, studio_for
from tests.studio.test_backend import form
from tests.studio.test_map_painters import HIDE_SOFTWARE, SOFTWARE_GL
from tests.studio.test_page import at, order_samples, set_input

READERS = 8
REGION = 40  # pictures
BATCH = 64  # files in one request


def main(arguments: list[str] | None = None) -> list[Row]:
    """Runs the rows, prints each, and returns them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_parts(parser, PARTS)
    parser.add_argument("--pictures", type=int, default=2000, help="of the map")
    parser.add_argument("--rounds", type=int, default=7, help="of watchers, each with and without them")
    parser.add_argument("--size", type=int, default=256, help="of stylizations, in pixels")
    parser.add_argument("--iterations", type=int, default=40, help="of stylizations")
    return measured(PARTS, parser.parse_args(arguments))


@contextmanager
def served(cluster: Cluster, name: str) -> Iterator[tuple[GramletServer, StudioProcess]]:
    """A server with random weights, and a studio for it."""
    server = cluster.server("all", "--weights=random:0", "--device=cpu", f"--store={cluster.folder / name}")
    server.wait_until_ready()
    with studio_for(server.address, cluster.folder / f"{name}-data") as studio:
        yield server, studio
    server.stop()


# When each iteration was heard of, and when each preview was on the page.
_TIMES = """
window.heard = {}; window.seen = {};
new EventSource(`/api/runs/stylize/${location.pathname.split('/')[2]}/events`).onmessage = ({ data }) => {
  const { event, iteration } = JSON.parse(data);
  if (event === 'iteration') heard[iteration] ??= performance.now();
  if (event === 'adjusted') window.adjusted ??= iteration;
};
new MutationObserver(() => {
  const found = /preview\\?(\\d+)/.exec(document.querySelector('.compare .after').src);
  if (found) seen[found[1]] ??= performance.now();
}).observe(document.querySelector('.compare'), { childList: true });
"""


def steer(cluster: Cluster, chosen: argparse.Namespace) -> Iterator[Row]:
    """Previews and sliders, as the user sees them."""
    with served(cluster, "steer") as (_, studio), chromium(offline=False) as page:
        at(page, studio, "/stylize")
        order_samples(page, iterations=chosen.iterations, size=chosen.size)
        page.click("#start")
        page.until("location.pathname.startsWith('/stylize/')")
        page.run(_TIMES)
        page.until("Object.keys(heard).length > 10")
        page.run("window.moved = performance.now()")
        set_input(page, "set-content_weight", 2, "input")
        page.until("document.querySelector('.stage')?.dataset.state === 'succeeded'", tries=10)
        heard, seen, moved, adjusted = page.run("return [heard, seen, moved, adjusted]")
    late = [(seen[each] - heard[each]) / 1000 for each in seen if each in heard]
    times = sorted(heard.values())
    iteration = statistics.median(b - a for a, b in pairwise(times)) / 1000
    yield {
        "row": "steer",
        "size": chosen.size,
        "iteration_seconds": round(iteration, 3),
        "preview_seconds": round(statistics.median(late), 3),
        "slowest_preview_seconds": round(max(late), 3),
        "slider_seconds": round((heard[str(adjusted + 1)] - moved) / 1000, 3),
    }


def watchers(cluster: Cluster, chosen: argparse.Namespace) -> Iterator[Row]:
    """What eight readers cost a descent."""
    with served(cluster, "watchers") as (server, studio):
        assert server.process is not None
        seconds: dict[int, list[float]] = {0: [], READERS: []}
        used: dict[int, list[tuple[float, float]]] = {0: [], READERS: []}
        order = studio.sample_order(size=chosen.size, iterations=chosen.iterations, scales=1)
        descended(studio, order, 0)  # whose targets are then known
        for _ in range(chosen.rounds):
            for readers, times in seconds.items():
                before = [processor_seconds(pid) for pid in (server.process.pid, studio.pid)]
                times.append(descended(studio, order, readers))
                after = [processor_seconds(pid) for pid in (server.process.pid, studio.pid)]
                used[readers].append((after[0] - before[0], after[1] - before[1]))
    alone, watched = (statistics.median(times) for times in seconds.values())
    alone_used, watched_used = (
        [statistics.median(each) for each in zip(*rounds, strict=True)] for rounds in used.values()
    )
    yield {
        "row": "watchers",
        "readers": READERS,
        "size": chosen.size,
        "rounds": chosen.rounds,
        "alone_seconds": round(alone, 4),
        "watched_seconds": round(watched, 4),
        "cost_percent": round(100 * (watched / alone - 1), 1),
        "spread_percent": round(100 * (max(seconds[0]) / min(seconds[0]) - 1), 1),
        "server_processor_seconds": [round(alone_used[0], 2), round(watched_used[0], 2)],
        "studio_processor_seconds": [round(alone_used[1], 2), round(watched_used[1], 2)],
    }


def processor_seconds(pid: int) -> float:
    """What a process has used so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def descended(studio: StudioProcess, order: dict[str, object], readers: int) -> float:
    """Seconds an iteration of a new run, from its first to its last, with so many readers."""
    run_id = str(studio.call("POST", "/stylizations", order)["run"])
    threads = [threading.Thread(target=read, args=(studio, run_id)) for _ in range(readers)]
    for thread in threads:
        thread.start()
    times = [at for name, at in read(studio, run_id, previews=False) if name == "iteration"]
    for thread in threads:
        thread.join()
    studio.call("DELETE", f"/runs/stylize/{run_id}")
    return (times[-1] - times[1]) / (len(times) - 2)


def read(studio: StudioProcess, run_id: str, previews: bool = True) -> list[tuple[str, float]]:
    """Reads a run to its end as a browser does; returns the names of its events, and when they came."""
    host = studio.url.removeprefix("http://")
    found = []
    with ExitStack() as exits:
        events = http.client.HTTPConnection(host)
        exits.callback(events.close)
        events.request("GET", f"/api/runs/stylize/{run_id}/events")
        for line in events.getresponse():
            if not line.startswith(b"data: "):
                continue
            name = json.loads(line[6:])["event"]
            found.append((name, time.perf_counter()))
            if previews and name == "preview":
                pictures = http.client.HTTPConnection(host)  # the studio closes those that rest for seconds
                exits.callback(pictures.close)
                pictures.request("GET", f"/api/runs/stylize/{run_id}/pictures/preview")
                pictures.getresponse().read()
    return found


def map_of_pictures(cluster: Cluster, chosen: argparse.Namespace) -> Iterator[Row]:
    """A map: its regions become a classifier, and it is panned."""
    with served(cluster, "map") as (server, studio), chromium(offline=False) as page:
        folder = uploaded(studio, chosen.pictures)
        started = time.perf_counter()
        run_id = studio.call("POST", "/maps", {"folder": folder, "settings": {"perplexity": 30}})["run"]
        studio.events("embed", run_id)
        made = time.perf_counter() - started
        # The studio lets the network see the pictures as heads do, beside the layout and after it: this waits for it.
        with gramlet.Client(server.address) as client:
            for _ in client.extract(sorted((studio.data / "pictures").iterdir()), OF_HEADS):
                pass
        known = time.perf_counter() - started - made
        page.resize(1440, 900)
        at(page, studio, f"/map/{run_id}")
        page.until("document.querySelector('main').dataset.done")
        row: Row = {"row": "map", "pictures": chosen.pictures, "map_seconds": round(made, 1)}
        for name in ("first", "second", "third"):
            yield {**row, "known_after_seconds": round(known, 1), **learned(page, name)}


def uploaded(studio: StudioProcess, count: int) -> str:
    """Pictures of four kinds of texture, as a folder of the studio."""
    random = np.random.default_rng(0)
    identifier = str(studio.call("POST", "/folders", {"name": "textures"})["folder"])
    files = [(f"{number % 4}/{number}.jpg", texture(random, number % 4)) for number in range(count)]
    for start in range(0, count, BATCH):
        some = files[start : start + BATCH]
        body, headers = form(*(("file", data) for _, data in some), names=json.dumps([name for name, _ in some]))
        studio.call("POST", f"/folders/{identifier}/files", body, headers)
    studio.call("POST", f"/folders/{identifier}/end", {})
    return identifier


def texture(random: np.random.Generator, kind: int, side: int = 256) -> bytes:
    """Noise of one of four grains and colors, as a JPEG file."""
    grain = 2 ** (kind + 1)
    small = random.normal(0, 60, (side // grain, side // grain, 1)).repeat(grain, 0).repeat(grain, 1)
    color = np.array([200, 150, 90, 60])[[kind, (kind + 1) % 4, (kind + 2) % 4]] + random.normal(0, 12, 3)
    out = io.BytesIO()
    Image.fromarray(np.clip(small + color, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=88)
    return out.getvalue()


def draw(cluster: Cluster, chosen: argparse.Namespace) -> Iterator[Row]:
    """A map of pictures at random places, which needs no server, drawn by each painter."""
    with studio_for("127.0.0.1:9", cluster.folder / "draw") as studio:
        folder = uploaded(studio, chosen.pictures)
        sheets = studio.call("GET", f"/folders/{folder}")["sheets"]["count"]
        for number in range(sheets):  # the first time each takes seconds
            studio.call("GET", f"/folders/{folder}/sheets/{number}.jpg")
        for painter in ("canvas", "webgl"):
            with chromium(*SOFTWARE_GL, offline=False) as page:
                if painter == "webgl":
                    page.before_pages(HIDE_SOFTWARE)
                page.resize(1440, 900)
                at(page, studio, "/map")
                page.run_async(_SCATTER % folder)
                page.until("view.pictures.sheets.every(sheet => sheet.naturalWidth > 0) && view.painter", tries=5)
                assert page.run("return view.painter.name") == painter
                row: Row = {"row": "draw", "painter": painter, "pictures": chosen.pictures}
                for way, move in _MOVES.items():
                    yield {**row, "way": way, **{f"fps_zoom_{zoom}": moved(page, zoom, move) for zoom in (1, 4, 16)}}


_SCATTER = """
const folder = fetch('/api/folders/%s').then(reply => reply.json());
Promise.all([import('/static/mapview.js'), folder]).then(([module, folder]) => {
  const surface = document.createElement('div'), main = document.querySelector('main');
  surface.className = 'map';
  surface.style.height = '720px';
  main.replaceChildren(surface);
  window.view = new module.MapView(surface, folder, { select() {}, hover() {}, painted() {} });
  let state = 1;
  const random = () => (state = state * 16807 %% 2147483647) / 2147483647;
  view.place(folder.items.map((_, index) => index), folder.items.map(() => [random(), random()]));
  done();
});"""
_MOVES = {
    "pan": "view.panX = Math.sin(t / 300) * 300; view.panY = Math.cos(t / 400) * 200;",
    "zoom": "view.zoom = %g * Math.exp(Math.sin(t / 500));",
}


def moved(page: Page, zoom: float, move: str) -> float:
    """Frames a second in three seconds."""
    script = """
    const begun = performance.now(), before = view.frames;
    view.fit(); view.zoom = %g;
    (function step() {
      const t = performance.now() - begun;
      if (t > 3000) return done((view.frames - before) / t * 1000);
      %s view.draw();
      requestAnimationFrame(step);
    })();"""
    script %= zoom, move % zoom if "%" in move else move
    page.run_async(script)  # once for the pictures that come when they are near
    return round(page.run_async(script), 1)


# Names three regions of `arguments[0]` pictures, and learns them.
_LEARN = """
const { view } = document.querySelector('.map'), words = document.querySelector('.panel [role=status]');
['a', 'b', 'c'].forEach((name, kind) => {
  const indices = view.items.map((_, index) => index).filter((index) => view.items[index].label === String(kind));
  view.choose(indices.slice(0, arguments[0]));
  document.getElementById('region').value = name;
  document.getElementById('name').click();
});
document.getElementById('head').value = arguments[1];
delete document.querySelector('main').dataset.recolored;
window.begun = performance.now();
window.trained = 0;
new MutationObserver(() => { if (/Recoloring/.test(words.textContent)) trained ||= performance.now(); })
  .observe(words, { childList: true });
document.getElementById('learn').click();
"""


def learned(page: Page, name: str) -> Row:
    """Seconds from the click to the recolored map, with the part that is training."""
    page.run(_LEARN, REGION, name)
    page.until("document.querySelector('main').dataset.recolored", tries=10)
    whole, trained = page.run("return [performance.now() - begun, trained - begun]")
    return {"region": REGION, "train_seconds": round(trained / 1000, 2), "recolored_seconds": round(whole / 1000, 2)}


PARTS: dict[str, Callable[[Cluster, argparse.Namespace], Iterator[Row]]] = {
    "steer": steer,
    "watchers": watchers,
    "map": map_of_pictures,
    "draw": draw,
}

if __name__ == "__main__":
    main()
