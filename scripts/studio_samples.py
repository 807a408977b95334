"""Makes the sample pictures of the studio: contents from scikit-image, all in the public domain; styles drawn here.

astronaut: NASA. cat (Chelsea): Stéfan van der Walt, CC0. coffee: Rachel Michetti, CC0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from skimage import data

ROOT = Path(__file__).parents[1]
OUT = ROOT / "clients" / "studio" / "gramlet_studio" / "samples"
SIDE = 640
sys.path.append(str(ROOT / "demo"))


def whirls() -> Image.Image:
    """The painting of `make demo`."""
    from painting import paint

    return paint()


def mosaic() -> Image.Image:
    """Stones of many colors in dark grout, in rings around a point."""
    random = np.random.default_rng(3)
    palette = np.array([(196, 62, 44), (232, 158, 62), (240, 214, 150), (38, 110, 128), (20, 60, 92), (112, 142, 84)])
    angles = [(r, a) for r in np.arange(8, 620, 17) for a in np.arange(0, 2 * np.pi, 17 / r)]
    points = np.array([(300 + r * np.cos(a), 260 + r * np.sin(a)) for r, a in angles])
    points += random.normal(0, 2, points.shape)
    rows, columns = np.mgrid[:480, :SIDE]
    distance, nearest = cKDTree(points).query(np.stack([columns, rows], -1), k=2)
    ring = np.array([r for r, _ in angles]) / 54 + random.normal(0, 0.35, len(angles))
    colors = np.clip(palette[ring.astype(int) % len(palette)] + random.normal(0, 12, (len(angles), 3)), 0, 255)
    edge = np.clip((distance[..., 1] - distance[..., 0]) / 3, 0, 1)[..., None]
    return Image.fromarray((colors[nearest[..., 0]] * edge + np.array([34, 30, 30]) * (1 - edge)).astype(np.uint8))


def woodcut() -> Image.Image:
    """Carved lines that swell and bend around hills, in black on cream with a red sun."""
    random = np.random.default_rng(5)
    rows, columns = np.mgrid[:480, :SIDE].astype(float)
    hills = gaussian_filter(random.normal(0, 1, (480, SIDE)), 46)
    hills /= hills.std()
    tone = (gaussian_filter(random.normal(0, 1, (480, SIDE)), 30) * 42 + rows / 480 - 0.45) * 1.3
    lines = np.sin((rows + 34 * hills + 6 * np.sin(columns / 40)) / 2.1) + random.normal(0, 0.25, rows.shape)
    ink = (gaussian_filter(lines, 0.7) < tone * 1.4)[..., None]
    sun = (np.hypot(rows - 130, columns - 440) < 84)[..., None]
    paper = np.where(sun, (206, 54, 38), (238, 224, 192)) + random.normal(0, 5, (480, SIDE, 1))
    return Image.fromarray(np.clip(np.where(ink, (26, 24, 28), paper), 0, 255).astype(np.uint8))


def geometry() -> Image.Image:
    """Discs, wedges and lines over each other on warm paper."""
    random = np.random.default_rng(11)
    colors = [(214, 64, 48), (28, 84, 140), (240, 182, 56), (24, 26, 34), (64, 140, 120), (232, 120, 130)]
    canvas = Image.new("RGB", (SIDE * 2, 960), (236, 222, 192))
    for number in range(150):
        layer = Image.new("RGBA", canvas.size, (0, 0, 0, 0))
        brush = ImageDraw.Draw(layer)
        x, y, size = random.uniform(0, 1280), random.uniform(0, 960), random.gamma(2.0, 44)
        color = (*colors[random.integers(len(colors))], int(random.uniform(150, 255)))
        if number % 3 == 0:
            brush.ellipse((x - size, y - size, x + size, y + size), fill=color)
            inner = size * random.uniform(0.3, 0.7)
            brush.ellipse((x - inner, y - inner, x + inner, y + inner), fill=(*colors[number % len(colors)], 230))
        elif number % 3 == 1:
            brush.polygon([(x + a, y + b) for a, b in random.normal(0, size, (3, 2))], fill=color)
        else:
            dx, dy = random.normal(0, 2.4 * size, 2)
            brush.line((x, y, x + dx, y + dy), fill=(24, 26, 34, 255), width=int(random.uniform(3, 11)))
        canvas.paste(layer, (0, 0), layer)
    return canvas.resize((SIDE, 480), Image.Resampling.LANCZOS).filter(ImageFilter.UnsharpMask(1, 40))


def content(load: Callable[[], np.ndarray]) -> Callable[[], Image.Image]:
    """A photograph of scikit-image."""
    return lambda: Image.fromarray(load())


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "content-astronaut": content(data.astronaut),
    "content-cat": content(data.chelsea),
    "content-coffee": content(data.coffee),
    "style-geometry": geometry,
    "style-mosaic": mosaic,
    "style-whirls": whirls,
    "style-woodcut": woodcut,
}

if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for name, make in PICTURES.items():
        picture = make().convert("RGB")
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        picture.save(OUT / f"{name}.jpg", quality=84, optimize=True)
