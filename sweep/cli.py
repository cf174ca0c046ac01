"""The ``sweep`` command: finds the verb, and turns every error into one sentence and an exit code.

Exit codes: 0 done, 1 something failed, 2 the request is wrong, 130 Ctrl-C, 143 told to end.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

from core.errors import NeuronMergingError, UnknownNameError
from sweep import __version__
from sweep.arguments import Parser, parse
from sweep.errors import masked
from sweep.quiet import silence
from sweep.storage.layout import MIRRORED

VERBS = {
    "init": "look at a network of yours, and write a search space for it",
    "spaces": "the search spaces, a line each",
    "show": "a search space in full: what varies, how many configurations, what a trial does",
    "run": "compress a network in all ways of a search space, and get the front",
    "resume": "go on with a sweep that ended early, or with more samples",
    "stop": "end a running sweep; what is done is kept",
    "list": "all sweeps, a line each",
    "status": "how far a sweep is, and its front so far",
    "logs": "what trials printed, and why they failed",
    "pareto": "the front of a sweep as a plot or a table",
    "export": "networks of a sweep as files: safetensors, pt2, ONNX, with a card",
    "report": "one HTML page about a sweep: its front, every trial, what mattered",
    "compare": "the fronts of several sweeps in one HTML page",
    "compress": "compress one network with one configuration",
    "sync": "write a sweep's trials to MLflow once more, e.g. to another server",
    "ui": "the MLflow UI on the results",
    "completion": "a script that completes command lines in bash, zsh or fish",
}
USAGE = """usage: sweep VERB [...]

Compress a trained network in hundreds of ways, without training, and get the accuracy-versus-size front.

{verbs}

sweep VERB --help shows a verb's options and an example.
sweep --version   the version

A first sweep, in under a minute:
  sweep run digits-quick"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises, never shows a traceback."""
    if "_ARGCOMPLETE" in os.environ and argv is None:  # a shell asks what may come next
        from sweep.completing import complete

        complete(VERBS)
    arguments = list(sys.argv[1:] if argv is None else argv)
    silence(private=not any(word.split("=")[0] == "--address" for word in arguments))
    try:
        code = dispatch(arguments)
        sys.stdout.flush()
    except NeuronMergingError as error:
        return complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return complain(f"interrupted; 'sweep list{given_place(arguments)}' shows what is kept", 130)
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # a bug: one sentence for the user, the traceback for the report
        return complain(f"{type(error).__name__}: {error}; this is a bug, the details are in {write_log(arguments)}", 1)
    return code


def dispatch(arguments: list[str]) -> int:
    """Run the verb that ``arguments`` begin with.

    Raises:
        NeuronMergingError: what the verb could not do.
        UnknownNameError: there is no such verb.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, VERBS))
        print(USAGE.format(verbs="\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"sweep {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        raise UnknownNameError("verb", verb, VERBS)
    command: Any = importlib.import_module(f"sweep.commands.{verb}")
    parser = Parser(prog=f"sweep {verb}", description=command.__doc__, epilog=f"example:\n  {command.EXAMPLE}")
    command.add_arguments(parser)
    options = parse(parser, rest)
    if options is None:
        return 0
    if "results" not in options or not (options.results / MIRRORED).is_file():
        return int(command.run(options))
    from sweep.storage.mirror import Mirror

    with Mirror.of(options.results) as mirror:
        code = int(command.run(options))
    return complain(mirror.trouble, 1) if mirror.trouble else code


def given_place(arguments: Sequence[str]) -> str:
    """The option ``--results`` as it was given, to be repeated in advice; empty where it was not."""
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        option, separator, value = word.partition("=")
        if option == "--results" and (value or after):
            return f" --results {shlex.quote(value if separator else after)}"
    return ""


def complain(text: str, code: int) -> int:
    """Say one line, without secrets, on stderr and return ``code``."""
    with contextlib.suppress(OSError):
        print(f"sweep: {' '.join(masked(text).split())}", file=sys.stderr)
    return code


def write_log(arguments: Sequence[str]) -> str:
    """Write the traceback of the exception under way to a new file and return its name."""
    with tempfile.NamedTemporaryFile("w", prefix="sweep-", suffix=".log", delete=False) as file:
        file.write(masked(f"sweep {__version__} {list(arguments)}\n{traceback.format_exc()}"))
    return file.name


if __name__ == "__main__":
    sys.exit(main())
