"""Writes the embedding of every picture in a folder into one file: python features_of_a_folder.py pictures/ out.npz

The file has `names` (n) and `embeddings` (n, 2048). A picture that cannot be read is reported and left out.
"""

import os
import sys
from pathlib import Path

import gramlet
import numpy as np

SERVER = os.environ.get("GRAMLET_SERVER", "localhost:50051")
ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def main(folder: str, out: str) -> None:
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in ENDINGS)
    resize = gramlet.Resize(gramlet.ResizeMode.CENTER_CROP, 224)
    names, embeddings = [], []
    with gramlet.Client(SERVER) as client:
        # One stream for all pictures; the outcomes come in the order of the paths.
        outcomes = client.features(paths, stages=["avgpool"], pooled=True, resize=resize)
        for path, features in zip(paths, outcomes, strict=True):
            if isinstance(features, gramlet.GramletError):
                print(f"{path}: {features}", file=sys.stderr)
                continue
            names.append(path.name)
            embeddings.append(features.pooled["avgpool"])
    if not names:
        sys.exit(f"{folder}: no picture was read")
    np.savez(out, names=names, embeddings=np.stack(embeddings))
    print(f"{len(names)} of {len(paths)} pictures in {out}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except gramlet.GramletError as error:
        sys.exit(str(error))
