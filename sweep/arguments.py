"""Command-line arguments: argparse, but every complaint is one sentence, and unknown options are answered."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from core.errors import UnknownNameError, UsageError, nearest
from core.files import NAME

if TYPE_CHECKING:
    from sweep.storage.info import ClusterRequest, Limits

RESULTS = Path("results")
NETWORK = ("mean", "std", "size", "resize", "interpolation", "expected_accuracy")
"""Options that say how the original network is to be read, by the names of `core.config.BaselineConfig`."""


class HelpShown(Exception):  # noqa: N818  no error: the way out of argparse after --help
    """``--help`` was printed; nothing else is to be done."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Long options have their help on the same line, so that a verb's help is one screen."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises `UsageError` where argparse would print its usage and exit."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message}; see '{self.prog} --help'")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Leave after ``--help``.

        Raises:
            HelpShown: ``--help`` was printed.
            UsageError: argparse gives up for another reason.
        """
        if message or status:
            raise UsageError(message or f"exit status {status}")
        raise HelpShown

    def sweep(self) -> None:
        """Add the name of a sweep."""
        self.add_argument("name", metavar="NAME", help="of a sweep")

    def results(self) -> None:
        """Add ``--results``: a folder, or an address in object storage, which is fetched into a folder."""
        text = "folder of all sweeps, or s3://BUCKET/DIR (results)"
        self.add_argument("--results", type=located, default=RESULTS, metavar="DIR", help=text)

    def limits(self) -> None:
        """Add what ends a sweep or a trial early."""
        add = self.add_argument
        add("--time-limit", metavar="T", help="end after this long, e.g. 90s, 30m, 2h (none)")
        add("--plateau", type=int, metavar="N", help="end after N trials without a better front (none)")
        add("--trial-timeout", metavar="T", help="a trial that takes longer has failed (none)")

    def cluster(self) -> None:
        """Add where and how wide a sweep runs."""
        add = self.add_argument
        add("--workers", type=int, metavar="N", help="trials at the same time (one per CPU)")
        add("--address", metavar="HOST:PORT", help="of a Ray head, or 'auto' (a private Ray here)")
        add("--gpus-per-trial", type=float, metavar="F", help="GPUs, or a fraction of one, per trial (0)")
        add("--tracking-uri", metavar="URI", help="of an MLflow server (SQLite in the results)")

    def evaluator(self) -> None:
        """Add what trials are scored by."""
        add = self.add_argument
        add("--evaluate", metavar="HOW", help="agreement, segmentation, my_task:evaluate (accuracy)")
        add("--metric", metavar="M:WAY:UNIT", help="of your own evaluate, e.g. rmse:min (score:max)")

    def network(self) -> None:
        """Add how the original network is to be read: its preprocessing, and what it should reach."""
        add = self.add_argument
        add("--mean", metavar="X[,X,X]", help="subtracted from pixels in [0, 1] (the data's)")
        add("--std", metavar="X[,X,X]", help="what they are then divided by (the data's)")
        add("--size", type=int, metavar="PX", help="side of the images (the data's)")
        add("--resize", type=int, metavar="PX", help="of a photograph's shorter side, before it is cut")
        add("--interpolation", metavar="HOW", help="scale them: nearest, bilinear, bicubic (pad them)")
        add(
            "--expected-accuracy",
            type=float,
            metavar="P",
            help="on the test split; one a point worse is refused",
        )

    def json(self) -> None:
        """Add ``--json``."""
        self.add_argument("--json", action="store_true", help="print JSON")


def located(text: str) -> Path:
    """The folder that ``--results`` means; one in object storage is fetched first (see `sweep.storage.mirror`)."""
    if "://" not in text:
        return Path(text)
    from sweep.storage.mirror import fetch

    return fetch(text)


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace | None:
    """Parse ``arguments``; None after ``--help``.

    Raises:
        UsageError: they are wrong; an unknown option is answered with the nearest known one.
    """
    try:
        options, unknown = parser.parse_known_args(list(arguments))
    except HelpShown:
        return None
    if not unknown:
        return options
    first = unknown[0]
    if first.startswith("-"):
        known = [text for action in parser._actions for text in action.option_strings if text.startswith("--")]
        raise UsageError(f"unknown option {first.partition('=')[0]!r}; {nearest(first.partition('=')[0], known)}")
    raise UsageError(f"unexpected argument {first!r}; see '{parser.prog} --help'")


def seconds(text: str | None, option: str) -> float | None:
    """A duration such as ``90``, ``90s``, ``1.5m``, ``2h`` in seconds; None stays None.

    Raises:
        UsageError: it is not of that form, or not above 0.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]*\.?[0-9]+) *([smh]?)", text.strip())
    value = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not 0 < value < math.inf:
        raise UsageError(f"{option} {text}: give a time above 0, such as 90s, 30m or 2h")
    return value


def chosen_limits(options: argparse.Namespace, before: Limits) -> Limits:
    """``before`` with what the options change of it.

    Raises:
        UsageError: ``--plateau`` is below 1, or a duration cannot be read.
    """
    if options.plateau is not None and options.plateau < 1:
        raise UsageError(f"--plateau {options.plateau}: give at least 1")
    given = {
        "seconds": seconds(options.time_limit, "--time-limit"),
        "plateau": options.plateau,
        "trial_seconds": seconds(options.trial_timeout, "--trial-timeout"),
    }
    return before.model_copy(update={name: value for name, value in given.items() if value is not None})


def chosen_cluster(options: argparse.Namespace, before: ClusterRequest) -> ClusterRequest:
    """``before`` with what the options change of it."""
    given = {"workers": options.workers, "gpus_per_trial": options.gpus_per_trial, "address": options.address}
    return replace(before, **{name: value for name, value in given.items() if value is not None})


def chosen_network(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a `BaselineConfig` that the options of `Parser.network` set.

    Raises:
        UsageError: a mean or a standard deviation is no list of numbers.
    """
    found: dict[str, Any] = {name: getattr(options, name) for name in NETWORK if getattr(options, name) is not None}
    for name in ("mean", "std"):
        if name in found:
            try:
                found[name] = [float(word) for word in found[name].split(",")]
            except ValueError:
                raise UsageError(
                    f"--{name} {found[name]}: give a number, or one per channel: 0.485,0.456,0.406"
                ) from None
    return found


def network_changes(options: argparse.Namespace) -> dict[str, str]:
    """The same as changes of a search space, ``baseline.KEY`` -> a TOML value."""
    return {
        f"baseline.{name}": f'"{v}"' if isinstance(v, str) else str(v) for name, v in chosen_network(options).items()
    }


def require_space_file(path: Path, *, force: bool, option: str = "") -> None:
    """Look at where a search space will be written.

    Args:
        path: of the file.
        force: whether one that is there may be replaced.
        option: that names it; empty: it is an argument of its own.

    Raises:
        UsageError: it cannot be a space's, or is there already.
    """
    if path.suffix != ".toml" or not re.fullmatch(NAME, path.stem):
        named = f"{option} {path}".lstrip()
        raise UsageError(f"{named}: a space is a file such as my-space.toml, of letters, digits, '.', '_' and '-'")
    if path.exists() and not force:
        other = f"another name with {option}" if option else "another name"
        raise UsageError(f"{path} is there already; take --force to replace it, or {other}")


def listed(text: str, option: str, known: Collection[str]) -> list[str]:
    """The formats in ``text``, which commas separate, each once.

    Raises:
        UnknownNameError: one is not among ``known``.
        UsageError: there is none.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError(f"{option}: name at least one of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise UnknownNameError("format", name, known)
    return names


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """``KEY=VALUE`` texts as a dict.

    Raises:
        UsageError: one is not of that form, or a key comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"{option} {text}: write {option} KEY=VALUE")
        if key.strip() in found:
            raise UsageError(f"{option} {key.strip()} is given twice; give it once")
        found[key.strip()] = value.strip()
    return found


def evaluation_of(options: argparse.Namespace) -> dict[str, str]:
    """What the command line says of how trials are scored: keys of a space's ``[evaluation]``.

    Raises:
        UsageError: ``--metric`` is not of its form.
    """
    found = {} if options.evaluate is None else {"evaluator": options.evaluate}
    if options.metric is not None:
        name, *rest = options.metric.split(":")
        direction, unit = (*rest, "", "")[:2]
        if len(rest) > 2 or direction not in ("", "min", "max"):
            raise UsageError(f"--metric {options.metric}: write NAME, NAME:min or NAME:min:UNIT (or max)")
        found |= {"metric": name} | {k: v for k, v in (("direction", direction), ("unit", unit)) if v}
    return found
