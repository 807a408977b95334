"""`gramlet completion`: prints what makes a shell complete commands, flags and values of gramlet and gramlet-server.

For bash, add this line to ~/.bashrc: eval "$(gramlet completion bash)". For zsh, the same with zsh, in ~/.zshrc after
compinit. For fish: gramlet completion fish > ~/.config/fish/completions/gramlet.fish
"""

from __future__ import annotations

import argparse

from argcomplete import shell_integration

from gramlet._sync.client import Client
from gramlet.cli.terminal import Terminal

HELP = "print the completion of commands and flags for a shell"
_PROGRAMS = ("gramlet", "gramlet-server")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell to print it for")


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Prints it."""
    print(shell_integration.shellcode(_PROGRAMS, shell=arguments.shell), flush=True)
    return 0
