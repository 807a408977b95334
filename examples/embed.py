"""Draws a map of the pictures in a folder, similar styles together: python embed.py pictures/ map.png map.html

Subfolders are labels: they color the map and are used to judge it.
"""

import os
import sys
from pathlib import Path

import gramlet

SERVER = os.environ.get("GRAMLET_SERVER", "localhost:50051")


def main(folder: str, picture: str, page: str) -> None:
    if Path(picture).exists() and Path(picture).resolve().is_relative_to(Path(folder).resolve()):
        sys.exit(f"{picture} is one of the pictures: name another file for the map")
    with gramlet.Client(SERVER) as client:
        style_map = client.embed(folder, perplexity=30, iterations=500).result()
        print(f"{len(style_map.places)} pictures on map {style_map.map_id}")
        for note in style_map.notes:
            print("note:", note)
        quality = style_map.layouts[0].quality
        print(f"{quality.neighbor_preservation:.0%} of the nearest neighbors are kept on the map")
        Path(picture).write_bytes(client.draw_map(style_map.map_id, form="scatter"))
        Path(page).write_bytes(client.draw_map(style_map.map_id, form="page"))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except gramlet.GramletError as error:
        sys.exit(str(error))
