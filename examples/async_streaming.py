"""Runs two stylizations at once in one event loop: python async_streaming.py content.jpg style1.jpg style2.jpg out/"""

import asyncio
import os
import sys
from pathlib import Path

import gramlet

SERVER = os.environ.get("GRAMLET_SERVER", "localhost:50051")
SIZE = int(os.environ.get("SIZE", "384"))
ITERATIONS = int(os.environ.get("ITERATIONS", "100"))


async def paint(client: gramlet.AsyncClient, content: str, style: str, out: Path) -> None:
    # Leaving the block early, for example because the task is cancelled, stops the work on the server.
    async with client.stylize(content, style, size=SIZE, iterations=ITERATIONS) as events:
        async for event in events:
            if isinstance(event, gramlet.Iteration):
                print(f"{style}: iteration {event.iteration}, loss {event.loss:.6g}")
            elif isinstance(event, gramlet.Result):
                event.image.save(out)
                print(f"{style}: saved {out}")


async def main(content: str, styles: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    outs = [folder / f"{index}.png" for index in range(len(styles))]
    for out in outs:
        if out.exists() and any(out.samefile(picture) for picture in (content, *styles)):
            sys.exit(f"{out} is one of the pictures: name another folder for the results")
    async with gramlet.AsyncClient(SERVER) as client, asyncio.TaskGroup() as tasks:
        for style, out in zip(styles, outs, strict=True):
            tasks.create_task(paint(client, content, style, out))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2:-1], Path(sys.argv[-1])))
    except gramlet.GramletError as error:
        sys.exit(str(error))
    except ExceptionGroup as failed:  # of the tasks: the first that fails cancels the others
        sys.exit("\n".join(map(str, failed.exceptions)))
