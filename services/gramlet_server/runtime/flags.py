"""Settings that can be said on the command line: a field of a frozen dataclass, declared with `flag`, is a flag.

`queue_limit: int = flag(256, "pictures that may wait", parse=count)` is `--queue-limit`, whose default is 256, or what
the variable GRAMLET_QUEUE_LIMIT holds.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Never, TypeVar

from gramlet.errors import did_you_mean, printable

from gramlet_server.runtime.output import say

Settings = TypeVar("Settings")

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def text(value: str) -> str:
    """Any text."""
    return value


def flag(default: Any, help: str, *, parse: Callable[[str], Any] = text, choices: Sequence[str] | None = None) -> Any:
    """A field that is also a flag.

    Args:
        default: Its value where neither the command line nor the environment has one.
        help: What it sets, in a line.
        parse: From text to the value; raises argparse.ArgumentTypeError with what it wants instead.
        choices: The only texts that are accepted.
    """
    return dataclasses.field(default=default, metadata={"help": help, "parse": parse, "choices": choices})


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are answered in one line, with what may be meant."""

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Reads a command line. `given` of the result has the names of the settings that it sets."""
        parsed, unknown = self.parse_known_args(arguments, argparse.Namespace(given=[]))
        if unknown:
            known = [did_you_mean(each.partition("=")[0], self._option_string_actions) for each in unknown]
            self.error(f"unrecognized: {' '.join(unknown)}{''.join(known[:1])}")
        return parsed

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints help and versions. argparse would ignore that they cannot be written."""
        say(message.rstrip("\n"))

    def error(self, message: str) -> Never:
        if found := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)$", message):
            message += did_you_mean(found[1], re.findall(r"'(.*?)'", found[2]))
        text = printable(message.removeprefix("argument "))
        print(f"{self.prog}: {text} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)

    def add_settings(
        self, title: str, settings: type[Any], environ: Mapping[str, str], chosen: Collection[str] | None = None
    ) -> None:
        """Adds the flags of a settings class: those of the chosen names, or all."""
        group = self.add_argument_group(title)
        for field in dataclasses.fields(settings):
            if "parse" not in field.metadata or (chosen is not None and field.name not in chosen):
                continue
            name = field.name.replace("_", "-")
            variable = f"GRAMLET_{field.name.upper()}"
            action = group.add_argument(
                f"--{name}",
                action=_Given,
                # A switch may stand alone: --studio is --studio on.
                nargs="?" if field.metadata["parse"] is switch else None,
                const=True,
                type=_checked(field),
                default=self._from_environment(field, variable, environ),
                metavar=_metavar(field),
                help=f"{field.metadata['help']} ({_default(field)}{variable})".replace("%", "%%"),
            )
            if field.metadata["choices"]:
                action.completer = lambda choices=field.metadata["choices"], **_: choices  # type: ignore[attr-defined]

    def _from_environment(self, field: dataclasses.Field[Any], variable: str, environ: Mapping[str, str]) -> Any:
        # Set but empty is unset: compose files and Kubernetes manifests pass variables on that way.
        text = environ.get(variable, "")
        if not text:
            return field.default
        try:
            return _checked(field)(text)
        except argparse.ArgumentTypeError as error:
            self.error(f"{variable}: {error}")


class _Given(argparse.Action):
    """Stores the value, and notes that the command line has it."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, values)
        namespace.given = [*getattr(namespace, "given", []), self.dest]


def read(settings: type[Settings], arguments: argparse.Namespace) -> Settings:
    """The settings of a class from a parsed command line."""
    flags = [field.name for field in dataclasses.fields(settings) if "parse" in field.metadata]  # type: ignore[arg-type]
    return settings(**{name: getattr(arguments, name) for name in flags})


def count(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1)


def count_or_auto(text: str) -> int:
    """A whole number; 0 leaves the choice to the server."""
    return _whole(text, 0)


def count_or_none(text: str) -> int:
    """A whole number; 0 is none."""
    return _whole(text, 0)


def port_number(text: str) -> int:
    """A port; 0 takes any free one."""
    number = _whole(text, 0)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 0 to 65535")
    return number


def device_name(text: str) -> str:
    """The name of a device, or `auto`."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda and cuda:N")
    return text


def seconds(text: str) -> float:
    """A time in seconds, from 0 on."""
    return _amount(text, "seconds")


def seconds_above_zero(text: str) -> float:
    """A time in seconds, above 0."""
    value = seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 seconds are too few")
    return value


def rate(text: str) -> float:
    """A number a second, from 0 on."""
    return _amount(text, "calls a second")


def days(text: str) -> float:
    """A time in days, from 0 on."""
    return _amount(text, "days")


def switch(text: str) -> bool:
    """`on` or `off`."""
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither on nor off")
    return text == "on"


def element_type(text: str) -> str:
    """An element type by its long name; bf16 and fp16 are bfloat16 and float16."""
    return {"bf16": "bfloat16", "fp16": "float16"}.get(text, text)


def size(text: str) -> int:
    """A size such as 64MiB, 512K or 1048576."""
    match = re.fullmatch(r"(\d+) ?([KMG]?)(?:i?B)?", text)
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 64MiB")
    return int(match[1]) * _UNITS[match[2]]


def size_or_none(text: str) -> int:
    """A size, or 0."""
    return 0 if text == "0" else size(text)


def file(text: str) -> Path:
    """A file that can be read."""
    path = Path(text)
    if not os.path.isfile(path):
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    if not os.access(path, os.R_OK):
        raise argparse.ArgumentTypeError(f"{text}: cannot be read by the user of this process")
    return path


def directory(text: str) -> Path:
    """A directory in which files can be made."""
    path = Path(text)
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{text}: no such directory")
    if not os.access(path, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text}: cannot be written by the user of this process")
    return path


def folders(text: str) -> tuple[str, ...]:
    """Folders and s3:// prefixes, by commas. A folder may be mounted later."""
    found = tuple(root.strip() for root in text.split(",") if root.strip())
    for root in found:
        if not root.removeprefix("s3://").strip("/"):
            raise argparse.ArgumentTypeError(f"{root}: name a folder, or s3://bucket/prefix; not everything there is")
        if "://" in root and not root.startswith("s3://"):
            raise argparse.ArgumentTypeError(f"{root} is neither a folder nor s3://bucket/prefix")
        if os.path.exists(root) and not os.path.isdir(root):
            raise argparse.ArgumentTypeError(f"{root}: is no folder")
    return found


def _amount(text: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    # NaN and infinity fail here too.
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit}, 0 or more")
    return value


def _whole(text: str, least: int) -> int:
    if not re.fullmatch(r"\d{1,18}", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
    return int(text)


def _checked(field: dataclasses.Field[Any]) -> Callable[[str], Any]:
    choices = field.metadata["choices"]

    def parsed(text: str) -> Any:
        if choices and text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}{did_you_mean(text, choices)}")
        return field.metadata["parse"](text)

    return parsed


def _metavar(field: dataclasses.Field[Any]) -> str:
    choices = field.metadata["choices"]
    return "|".join(choices) if choices else field.metadata["parse"].__name__.upper().partition("_")[0]


def _default(field: dataclasses.Field[Any]) -> str:
    default: Any = field.default
    if default in (None, "", ()):
        return ""
    if field.metadata["parse"] is size:
        return f"{default // _UNITS['M']}MiB; "
    if field.metadata["parse"] is switch:
        return "on; " if default else "off; "
    return f"{default:g}; " if isinstance(default, float) else f"{default}; "
