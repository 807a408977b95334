"""How the command line of `gramlet-server` is read: services, their flags, and the help of each."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Never

from gramlet_server import __version__
from gramlet_server.runtime.config import Settings, add_settings
from gramlet_server.runtime.flags import Parser

SERVICES = {
    "feature": "the network: activations, Gram matrices, gradients, descents",
    "stylize": "style transfer",
    "train": "classification heads: training and predictions",
    "embed": "maps of style",
}
COMMANDS = {
    "probe": "exits with 0 if a server on this machine is ready: for health checks",
    "weights": "downloads and checks the weights",
}
ALL = "all"
TOKEN = "token"
_ONLY_WITHOUT_FEATURE = "features"
_USED_BY: Mapping[str, Collection[str]] = {
    "feature": ("server", "network", "queue", "decoding", "pictures"),
    "stylize": ("server", "decoding", "pictures", _ONLY_WITHOUT_FEATURE, "store", "stylize", "studio"),
    "train": ("server", "network", "decoding", _ONLY_WITHOUT_FEATURE, "store", "train", "studio"),
    "embed": ("server", "decoding", "pictures", _ONLY_WITHOUT_FEATURE, "store", "embed", "studio"),
    "probe": ("host", "port", "tls_cert", "tls_key", "log_format", "log_level"),
    "weights": ("backbone", "weights", "log_format", "log_level"),
}
"""The flags that a service or a command uses, by their groups or by their names."""


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """Reads a command line.

    Returns:
        `services`, what to serve or the one of COMMANDS to execute, in the order of SERVICES; and every flag.

    Raises:
        SystemExit: A wrong command line, which is explained on stderr, or `--help`.
    """
    parser = _parser()
    words = _names(arguments)
    if any(argument in ("-h", "--help") for argument in arguments):
        _show_help(words, environ)
    if "_ARGCOMPLETE" in environ:
        _complete(parser, environ)
    add_settings(parser, environ)
    parsed = parser.parse(arguments)
    if TOKEN in parsed.services:  # not in the first place: that is `read_token_command`
        parser.error("token stands alone, in the first place: gramlet-server token new NAME")
    if len(parsed.services) > 1 and any(name in COMMANDS for name in parsed.services):
        parser.error(f"{' and '.join(COMMANDS)} stand alone")
    if parsed.services[0] not in COMMANDS:
        parsed.services = [name for name in SERVICES if name in parsed.services or ALL in parsed.services]
    _name_flags_without_effect(parsed)
    return parsed


def read_token_command(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the command line behind `gramlet-server token`: `name` and `scopes`.

    Raises:
        SystemExit: A wrong command line, which is explained on stderr, or `--help`.
    """
    parser = Parser(prog="gramlet-server token", description="Makes a token, and its line for --token-file.")
    parser.add_argument("action", choices=("new",), help="make a token")
    parser.add_argument("name", metavar="NAME", help="who owns what is made with the token")
    scopes = "by commas: feature, stylize, train, embed (default: all of them); read-only; all; on-behalf"
    parser.add_argument("--scopes", help=scopes)
    return parser.parse_args(arguments)


def flags_of(names: Collection[str]) -> list[str]:
    """The fields of the settings that services or commands use, in the order of the settings."""
    used = {part for name in names for part in _USED_BY[name]}
    if "feature" in names:
        used.discard(_ONLY_WITHOUT_FEATURE)
    return [
        field.name
        for group in dataclasses.fields(Settings)
        for field in dataclasses.fields(group.default)  # type: ignore[arg-type]
        if group.name in used or field.name in used
    ]


def _parser(usage: str = "SERVICE [SERVICE ...] [flags]", **options: Any) -> Parser:
    parser = Parser(
        prog="gramlet-server",
        usage=f"gramlet-server {usage}",
        description=options.pop("description", "Serves what a pretrained network knows about pictures."),
        **options,
    )
    parser.add_argument("services", nargs="+", choices=(ALL, *SERVICES, *COMMANDS, TOKEN), help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"gramlet-server {__version__}")
    return parser


def _complete(parser: Parser, environ: Mapping[str, str]) -> Never:
    """Answers a shell that asks what may come next, and exits."""
    import argcomplete

    words = _names(environ.get("COMP_LINE", "").split())
    add_settings(parser, environ, flags_of(words) if words else None)
    argcomplete.autocomplete(parser, always_complete_options=bool(words))
    sys.exit(0)


def _names(arguments: Sequence[str]) -> list[str]:
    given = [name for name in arguments if name in (ALL, *SERVICES, *COMMANDS)]
    return [*SERVICES] if ALL in given else given


def _show_help(names: Sequence[str], environ: Mapping[str, str]) -> None:
    """Prints the flags of these services, or an overview where none is named; exits."""
    if not names:
        lines = {ALL: "all services in one process", **SERVICES, **COMMANDS, TOKEN: "new NAME: makes a token"}
        listed = "\n".join(f"  {name:9} {text}" for name, text in lines.items())
        parser = _parser(
            formatter_class=argparse.RawDescriptionHelpFormatter,
            description="Serves what a pretrained network knows about pictures.\n\nservices and commands:\n" + listed,
            epilog="The flags of each, with their defaults: gramlet-server SERVICE [SERVICE ...] --help",
        )
    else:
        what = "; ".join({**SERVICES, **COMMANDS}[name] for name in names)
        parser = _parser(
            f"{' '.join(names)} [flags]",
            description=f"{what[0].upper()}{what[1:]}.",
            epilog="Every flag can also be set by the variable beside its default; the command line wins.",
        )
        add_settings(parser, environ, flags_of(names))
    parser.print_help()
    parser.exit()


def _name_flags_without_effect(parsed: argparse.Namespace) -> None:
    """Says which flags no service of this process uses: no error, since several processes may share a command line."""
    used = flags_of(parsed.services)
    for name in parsed.given:
        # `--features` beside `feature` is an error, of which `__main__` says more.
        if name not in used and not ("feature" in parsed.services and name == _ONLY_WITHOUT_FEATURE):
            users = [other for other in (*SERVICES, *COMMANDS) if name in flags_of([other])]
            users += [ALL] if name in flags_of([*SERVICES]) else []
            flag = f"--{name.replace('_', '-')}"
            message = f"warning: {flag} has no effect here: it is a flag of {', '.join(users)}"
            print(f"gramlet-server: {message}", file=sys.stderr)
