"""A script that completes verbs, options, search spaces and sweeps in bash, zsh or fish."""

from __future__ import annotations

from argparse import Namespace

from sweep.arguments import Parser

EXAMPLE = "sweep completion bash > ~/.local/share/bash-completion/completions/sweep"
SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: Parser) -> None:
    """The shell."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")


def run(options: Namespace) -> int:
    """Print the script."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["sweep"], shell=options.shell))
    return 0
