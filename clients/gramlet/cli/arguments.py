"""How command lines are read: the parser with its advice, types of arguments, and the flags of the server."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Never

from gramlet.cli.flags import Fields, flag_of, given_words
from gramlet.errors import did_you_mean, printable
from gramlet.transport.channel import DEFAULT_ADDRESS

_VALUE = re.compile(r"invalid (\w+) value: ('.*')$")
_KINDS = {
    "int": "a whole number",
    "whole": "a whole number, 0 or more",
    "positive": "a whole number, 1 or more",
    "file_path": "a path",
    "nonempty": "a name",
    "float": "a number",
    "numbers": "numbers with commas between them, such as 0.5,2",
    "optimizers": "optimizers with commas between them, each with a learning rate after = or none, such as gd=0.01",
    "weights": "names with commas between them, each with a number after = or none, such as layer1=0.5,layer2",
}
"""What the types of arguments below take."""

_SERVER = "server"
SERVER_FLAGS = ("token_file", "tls", "tls_ca", "tls_cert", "tls_key", "weights_digest", "timeout", "wait")
"""The flags that reach a server, but for its address."""
_CHOICE = re.compile(r"invalid choice: '(.*?)' \(choose from (.*)\)$")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and name what may be meant.

    Attributes:
        with_resume: Of a command with --resume: the other flags that have an effect beside it.
        fields: The flags for keywords of the SDK that have other names.
        of_actions: Of a command with several actions: for each flag that some of them ignore, those that use it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.with_resume: Sequence[str] = ()
        self.fields: Fields = {}
        self.of_actions: Mapping[str, Sequence[str]] = {}

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Reads a command line. A flag that does not exist is an error of its command, which knows its flags.

        Returns:
            The values; and as `given`, the words of each flag that was given, by its destination.
        """
        parsed, unknown = self.parse_known_args(arguments)
        parser = self.parser_of(parsed)
        if unknown:
            shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
            flags = [flag for action in shown for flag in action.option_strings]
            known = [did_you_mean(each.partition("=")[0], flags) for each in unknown if each.startswith("-")]
            parser.error(f"unrecognized: {' '.join(unknown)}{''.join(known[:1])}")
        parsed.given = given_words(parser, parsed)
        parsed.with_resume = parser.with_resume
        if getattr(parsed, "resume", None):
            parser._check_resumed(parsed)
        parser._check_action(parsed)
        return parsed

    def flag_of(self, parsed: argparse.Namespace, field: str) -> str:
        """The flag, or the argument, of the command whose value an error is about."""
        parser = self.parser_of(parsed)
        return flag_of(parser, parsed, field, parser.fields)

    def error(self, message: str) -> Never:
        """Prints the error in one line, and exits with 2."""
        if found := _VALUE.search(message):
            message = f"{message[: found.start()]}must be {_KINDS.get(found[1], found[1])}, not {found[2]}"
        if found := _CHOICE.search(message):
            message += did_you_mean(found[1], re.findall(r"'(.*?)'", found[2]))
        print(f"{self.prog}: {printable(message.removeprefix('argument '))} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints help and versions. argparse would ignore that they cannot be written."""
        print(message, end="", file=file or sys.stderr, flush=True)

    def _check_resumed(self, parsed: argparse.Namespace) -> None:
        """Refuses flags beside --resume that would have no effect."""
        allowed = {*self.with_resume, *SERVER_FLAGS, "server", "json", "resume"}
        ignored = [words[0] for dest, words in parsed.given.items() if dest not in allowed]
        if ignored:
            self.error(f"argument --resume: the run keeps its own settings: leave out {', '.join(ignored)}")

    def _check_action(self, parsed: argparse.Namespace) -> None:
        """Refuses flags, and further arguments, that the action would ignore."""
        for action in self._actions:
            users = self.of_actions.get(action.dest)
            is_given = action.dest in parsed.given if action.option_strings else getattr(parsed, action.dest, None)
            if users and is_given and parsed.action not in users:
                name = action.option_strings[-1] if action.option_strings else action.dest
                self.error(
                    f"argument {name}: goes with {' and '.join(filter(None, [', '.join(users[:-1]), users[-1]]))}"
                )

    def parser_of(self, parsed: argparse.Namespace) -> Parser:
        """The parser of the command that was given."""
        subparsers = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return next((group.choices[parsed.command] for group in subparsers), self)


def values_of(kind: type[Enum]) -> list[str]:
    """What may be given for an enumeration."""
    return [str(member.value) for member in kind]


def show_defaults(group: argparse._ArgumentGroup, *settings: object, **more: Any) -> None:
    """Adds the default of each flag that is a field of one of the settings to its help: what the service uses."""
    defaults = {name: value for each in settings for name, value in vars(each).items()} | more
    for action in group._group_actions:
        value = defaults.get(action.dest)
        is_switch = action.nargs == 0 and not isinstance(action, argparse.BooleanOptionalAction)
        if value not in (None, (), {}) and not is_switch:
            action.help = f"{action.help} ({_text(value)})"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def names(text: str) -> list[str]:
    """`layer1,layer2` as names."""
    return [part.strip() for part in text.split(",") if part.strip()]


def whole(text: str) -> int:
    """A whole number, 0 or more."""
    if (number := int(text)) < 0:
        raise ValueError
    return number


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def file_path(text: str) -> Path:
    """The path of a file or folder."""
    if not text:
        raise ValueError
    return Path(text)


def nonempty(text: str) -> str:
    """A name, such as of a run."""
    if not text:
        raise ValueError
    return text


def numbers(text: str) -> list[float]:
    """`1,2.5` as numbers."""
    return [float(part) for part in text.split(",")]


def weights(text: str) -> dict[str, float]:
    """`layer1=0.5,layer2` as a weight for each name; 1 where none is given."""
    pairs = [part.partition("=") for part in text.split(",")]
    found = {name.strip(): float(weight) if weight else 1.0 for name, _, weight in pairs}
    if "" in found or len(found) < len(pairs):  # nothing, or a name twice
        raise ValueError
    return found


def members_of(kind: type[Enum]) -> Callable[[str], list[Any]]:
    """Reads values of an enumeration, with commas between them, as its members."""

    def members(text: str) -> list[Any]:
        known = values_of(kind)
        for name in names(text):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}{did_you_mean(name, known)}")
        return [kind(name) for name in names(text)]

    return members


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what every command has: the form of its output, and how to reach the server.

    A command may have a `--wait` of its own.
    """
    parser.add_argument("--json", action="store_true", help="one JSON object a line, and no progress")
    group = parser.add_argument_group(_SERVER)
    group.add_argument(
        "--server",
        default=os.environ.get("GRAMLET_SERVER") or DEFAULT_ADDRESS,
        metavar="ADDRESS",
        help="host:port, dns:///name:port, or several with commas between them (%(default)s; GRAMLET_SERVER)",
    )
    group.add_argument("--token-file", type=file_path, metavar="FILE", help="file with the token (or GRAMLET_TOKEN)")
    group.add_argument("--tls", action="store_true", help="TLS with the system's authorities")
    group.add_argument("--tls-ca", type=file_path, metavar="FILE", help="TLS with this authority")
    group.add_argument("--tls-cert", type=file_path, metavar="FILE", help="certificate to show to the server")
    group.add_argument("--tls-key", type=file_path, metavar="FILE", help="its key")
    group.add_argument(
        "--weights-digest", metavar="DIGEST", help="use only the network with these weights; `gramlet status` shows it"
    )
    group.add_argument("--timeout", type=float, metavar="SECONDS", help="for the whole command; default: none")
    if "--wait" not in parser._option_string_actions:
        group.add_argument(
            "--wait", type=float, default=60.0, metavar="SECONDS", help="to wait for a lost server (%(default)g)"
        )


def command_line(arguments: argparse.Namespace, *words: object) -> str:
    """A command line to paste into a shell: these words, which are quoted, at the same server."""
    server: list[object] = ["--server", arguments.server] if arguments.server != DEFAULT_ADDRESS else []
    server += [word for flag in SERVER_FLAGS for word in arguments.given.get(flag, ())]
    return shlex.join(str(word) for word in ["gramlet", *words, *server])


def resume_line(arguments: argparse.Namespace, name: str, *words: object) -> str:
    """A command line that goes on with a run, with every flag of this command that has an effect beside --resume."""
    flags = [word for flag in (*arguments.with_resume, "json") for word in arguments.given.get(flag, ())]
    return command_line(arguments, arguments.command, *words, "--resume", name, *flags)
