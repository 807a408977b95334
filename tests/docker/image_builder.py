"""Carries out a Dockerfile without a Docker engine, for the tests of docker/Dockerfile.

Its instructions run in the order and on top of each other as a build would run them: every stage is a stack of overlay
file systems, every RUN a chroot into its stage with this machine's homes, /tmp and the checkout hidden. This machine's
Debian stands in for the images of the registry. An image then starts as its user, with its root read-only.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

HIDDEN = ("/root", "/home", "/work", "/tmp", "/mnt")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, continuation lines joined: its word, and the rest."""

    word: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages(parsed: list[Instruction]) -> tuple[dict[str, str], dict[str, tuple[str, list[Instruction]]]]:
    """The global arguments, and each stage's parent and instructions by name."""
    arguments: dict[str, str] = {}
    found: dict[str, tuple[str, list[Instruction]]] = {}
    steps: list[Instruction] = []
    for step in parsed:
        if step.word == "FROM":
            parent, _, name = step.rest.split()
            steps = []
            found[name] = (parent, steps)
        elif not found:
            name, _, default = step.rest.partition("=")
            arguments[name] = default
        else:
            steps.append(step)
    return arguments, found


@dataclass(frozen=True)
class Image:
    """What a stage has come to. The layers lie over this machine's root, the last on top."""

    layers: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    arguments: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    settings: dict[str, str] = field(default_factory=dict)

    def expand(self, text: str) -> str:
        """Replaces $NAME, ${NAME}, ${NAME:-default} as ENV, COPY and FROM do."""
        known = {**self.arguments, **self.environment}

        def value(match: re.Match[str]) -> str:
            return known.get(match["name"] or match["braced"], "") or match["default"] or ""

        return re.sub(r"\$(?:(?P<name>\w+)|\{(?P<braced>\w+)(?::-(?P<default>[^}]*))?\})", value, text)


class Builder:
    """Builds stages as BuildKit would, each once."""

    def __init__(self, dockerfile: Path, context: Path, work: Path, **arguments: str) -> None:
        self._context = context
        self._work = work
        self._globals, self._stages = stages(instructions(dockerfile.read_text()))
        self._arguments = arguments
        self._built: dict[str, Image] = {}
        self.ran: list[str] = []

    @property
    def run_steps(self) -> list[str]:
        return [step.rest for _, steps in self._stages.values() for step in steps if step.word == "RUN"]

    def build(self, name: str) -> Image:
        if name == "scratch" or name not in self._stages:
            return Image()  # an image of the registry: this machine's root
        if name not in self._built:
            parent, steps = self._stages[name]
            image = self.build(Image(arguments={**self._globals, **self._arguments}).expand(parent))
            image = replace(image, arguments={})
            for step in steps:
                image = getattr(self, f"_{step.word.lower()}")(image, step.rest)
            self._built[name] = image
        return self._built[name]

    def _arg(self, image: Image, rest: str) -> Image:
        name, _, default = rest.partition("=")
        given = self._arguments.get(name) or default.strip('"') or self._globals.get(name, "")
        return replace(image, arguments={**image.arguments, name: given})

    def _env(self, image: Image, rest: str) -> Image:
        pairs = (word.split("=", 1) for word in shlex.split(rest))
        return replace(image, environment={**image.environment, **{name: image.expand(text) for name, text in pairs}})

    def _workdir(self, image: Image, rest: str) -> Image:
        return self._changed(replace(image, workdir=rest), f"mkdir -p {rest}", "")

    def _user(self, image: Image, rest: str) -> Image:
        return replace(image, user=rest)

    def _set(self, image: Image, name: str, rest: str) -> Image:
        return replace(image, settings={**image.settings, name: rest})

    def _cmd(self, image: Image, rest: str) -> Image:
        return self._set(image, "cmd", rest)

    def _entrypoint(self, image: Image, rest: str) -> Image:
        return self._set(image, "entrypoint", rest)

    def _expose(self, image: Image, rest: str) -> Image:
        return self._set(image, "expose", rest)

    def _healthcheck(self, image: Image, rest: str) -> Image:
        return self._set(image, "healthcheck", rest.partition("CMD ")[2])

    def _copy(self, image: Image, rest: str) -> Image:
        words = rest.split()
        options = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
        source, target = (word for word in words if not word.startswith("--"))
        binds = ""
        if options.get("from"):
            if self._stages[options["from"]][0] == "scratch":
                return image  # the empty stage, in whose place a build may put a directory
            binds = self._bind(self.build(options["from"]).layers, "/mnt")
        else:
            # What .dockerignore lets through, and what git would: no build leftovers of this checkout.
            clean = self._work / f"context-{source}"
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
            shutil.copytree(self._context / source, clean / source, ignore=ignored, dirs_exist_ok=True)
            binds = f"mount --bind {clean} $root/mnt"
        return self._changed(image, f"cp -a /mnt/{source} {os.path.join(image.workdir, target)}", binds)

    def _run(self, image: Image, rest: str) -> Image:
        self.ran.append(rest)
        mounts, command = re.match(r"((?:--\S+\s+)*)(.*)", rest, re.DOTALL).groups()
        binds = []
        for mount in mounts.split():
            options = dict(part.split("=", 1) for part in mount.removeprefix("--mount=").split(","))
            if options["type"] == "bind":
                layers = self.build(options["from"]).layers
                binds.append(self._bind(layers, options["target"], options["source"]))
            else:
                cache = self._work / "cache" / options["target"].strip("/").replace("/", "-")
                cache.mkdir(parents=True, exist_ok=True)
                binds.append(f"mkdir -p $root{options['target']}; mount --bind {cache} $root{options['target']}")
        return self._changed(image, command, "\n".join(binds))

    def _bind(self, layers: tuple[Path, ...], target: str, source: str = "") -> str:
        """Commands that show another stage's files, or a folder of them, inside the one that is being built."""
        there = f"{self._work}/other"
        mounted = f"mkdir -p {there}; {overlay(layers, there)}; mkdir -p $root{target}"
        return f"{mounted}; mount --bind {there}{source} $root{target}"

    def _changed(self, image: Image, command: str, binds: str) -> Image:
        """The image after a command: one layer more."""
        number = len(list(self._work.glob("layer-*")))
        layer, scratch = self._work / f"layer-{number}", self._work / f"scratch-{number}"
        layer.mkdir()
        scratch.mkdir()
        # Compiling to bytecode would take half of the time.
        of_pip = {**registry_settings(), "PIP_NO_COMPILE": "1"}
        environment = {"HOME": "/root", **of_pip, **image.arguments, **image.environment}
        upper = f"upperdir={layer},workdir={scratch}"
        workdir = image.workdir if image.workdir != "/" else ""
        script = f"{enter(image, self._work / 'root', upper)}\n{binds}\nmkdir -p $root{workdir}\n"
        script += f"exec chroot $root /bin/sh -ec {shlex.quote(f'cd {image.workdir}; {command}')}"
        done = subprocess.run(["unshare", "--mount", "bash", "-ec", script], env=environment, capture_output=True)
        assert done.returncode == 0, f"RUN {command}\n{done.stdout.decode()[-2000:]}{done.stderr.decode()[-4000:]}"
        return replace(image, layers=(*image.layers, layer))


def overlay(layers: tuple[Path, ...], target: str, upper: str = "") -> str:
    """The command that stacks layers on this machine's root; without an upper directory, read-only."""
    lower = ":".join(str(layer) for layer in (*reversed(layers), "/"))
    return f"mount -t overlay overlay -o lowerdir={lower}{',' + upper if upper else ''} {target}"


def enter(image: Image, root: Path, upper: str = "") -> str:
    """Commands that put an image together at $root, with what this machine adds to an image hidden."""
    root.mkdir(exist_ok=True)
    hidden = " ".join(f"$root{place}" for place in HIDDEN if Path(place).is_dir())
    return f"""
        root={root}
        {overlay(image.layers, str(root), upper)}
        for place in {hidden}; do mount -t tmpfs -o mode=1777 tmpfs $place; done
        mount -t proc proc $root/proc
        mount --rbind /dev $root/dev
    """


def registry_settings() -> dict[str, str]:
    """How pip reaches its registry from here, as variables."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    pairs = (line.partition("=") for line in listed.stdout.splitlines() if line.startswith("global."))
    settings = {
        f"PIP_{name.removeprefix('global.').upper().replace('-', '_')}": value.strip("'").replace("\\n", " ")
        for name, _, value in pairs
    }
    variables = {name: text for name, text in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()}
    return {**settings, **variables}


def contained(image: Image, root: Path, data: Path, command: list[str]) -> list[str]:
    """A command in an image: as the image's user, on a read-only root, with /tmp and /data to write in."""
    script = f"{enter(image, root)}\nmount --bind {data} $root/data\n"
    script += f"exec chroot --userspec={image.user} --groups= $root {shlex.join(command)}"
    return ["unshare", "--mount", "bash", "-ec", script]


@contextmanager
def started(image: Image, data: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The image's own process; its output goes to `data`.log."""
    data.mkdir()
    os.chown(data, *map(int, image.user.split(":")))
    command = [*json.loads(image.settings["entrypoint"]), *json.loads(image.settings["cmd"])]
    with data.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            contained(image, data.with_suffix(".root"), data, command),
            env={**image.environment, **variables},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def healthy(image: Image, data: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Runs the image's HEALTHCHECK beside its process."""
    command = contained(image, data.with_suffix(".probe"), data, json.loads(image.settings["healthcheck"]))
    return subprocess.run(command, env={**image.environment, **variables}, capture_output=True)
