"""Trains a head on pictures/<class>/* and classifies a picture: python train_and_predict.py pictures/ photo.jpg"""

import os
import sys

import gramlet
from gramlet.train.types import Epoch, Result

SERVER = os.environ.get("GRAMLET_SERVER", "localhost:50051")
NAME = "example"


def main(folder: str, photo: str) -> None:
    with gramlet.Client(SERVER) as client:
        for event in client.train(folder, name=NAME, epochs=20):
            if isinstance(event, Epoch):
                print(f"epoch {event.epoch} of {event.epochs}: accuracy {event.accuracy:.1%}")
            elif isinstance(event, Result):
                print(f"stored {event.head.name}/{event.head.version}, classes {', '.join(event.head.classes)}")

        prediction = client.predict(NAME, photo)  # the newest version
        for each in prediction.classes:
            print(f"{each.probability:6.1%}  {each.label}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except gramlet.GramletError as error:
        sys.exit(str(error))
