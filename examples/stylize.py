"""Paints a picture in the style of another: python stylize.py content.jpg style.jpg out.png"""

import os
import sys

import gramlet

SERVER = os.environ.get("GRAMLET_SERVER", "localhost:50051")
SIZE = int(os.environ.get("SIZE", "512"))
ITERATIONS = int(os.environ.get("ITERATIONS", "200"))


def main(content: str, style: str, out: str) -> None:
    if os.path.exists(out) and any(os.path.samefile(out, picture) for picture in (content, style)):
        sys.exit(f"{out} is one of the pictures: name another file for the result")
    with gramlet.Client(SERVER) as client:
        for event in client.stylize(content, style, size=SIZE, iterations=ITERATIONS, preview_every=20):
            if isinstance(event, gramlet.Queued):
                print("runs before this one:", event.position)
            elif isinstance(event, gramlet.Iteration):
                print(f"iteration {event.iteration}: loss {event.loss:.6g}")
            elif isinstance(event, gramlet.Preview):
                event.image.save(out)  # the picture so far
            elif isinstance(event, gramlet.Result):
                event.image.save(out)
                print("saved", out)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except gramlet.GramletError as error:
        sys.exit(str(error))
