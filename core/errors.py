"""The errors this package raises on purpose, each with one sentence that says what to do next.

::

    NeuronMergingError            exit code 1: something failed
    ├── UsageError                exit code 2: the request itself is wrong
    │   ├── UnknownNameError      a name that no registry, space or option knows
    │   └── UnseenInputError      a criterion wants to look at what a layer reads, and cannot
    ├── CheckpointError           weights that cannot be read or do not fit the model
    ├── DataError                 a dataset that is missing, corrupt or of the wrong shape
    ├── DiskFullError             nothing more can be written
    ├── ModelError                a network that cannot be traced, run or compressed
    └── TrialError                one trial that gave no usable result
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LISTED = 40
"""So many known names are listed where none is near."""
ALIKE, SHORT = 0.6, 3
"""So alike, of 1, are names that one may be mistaken for the other; those of so few letters half as much."""


class NeuronMergingError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(NeuronMergingError):
    """The request is wrong: a bad value, an impossible combination, a missing argument."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name nobody registered; the message lists the nearest known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        self.kind, self.name, self.known, self.where = kind, name, sorted(known), where
        super().__init__(f"{where}unknown {kind} {shortened(repr(name))}; {nearest(name, self.known)}")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str], str]]:
        return type(self), (self.kind, self.name, self.known, self.where)  # it travels between processes


class CheckpointError(NeuronMergingError):
    """Weights that cannot be read, are not finite, or do not fit the model."""


class DataError(NeuronMergingError):
    """A dataset that is missing, corrupt, or not of the shape the model takes."""


class DiskFullError(NeuronMergingError):
    """There is no space left where something was to be written."""


class UnseenInputError(UsageError):
    """A criterion wants to look at what a layer reads, which cannot be laid out in rows."""


class ModelError(NeuronMergingError):
    """A network that cannot be traced, run or compressed."""


class TrialError(NeuronMergingError):
    """One trial gave no usable result, for example a non-finite metric."""


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of an exception's message, cut to so many characters, or its type's name where it has none."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= most else f"{line[: most - 1]}…"


def nearest(name: str, known: Iterable[str], alike: float = ALIKE) -> str:
    """Say which known names are closest to ``name``: the tail of an unknown-name message.

    A name counts as close if it begins with ``name``, holds it as one of its words, or is ``alike``; where none is, all
    are listed, so that nobody is led astray.
    """
    names = sorted(known)
    words = {known_name: known_name.lstrip("-") for known_name in names}
    word = name.lstrip("-")
    begun = [known_name for known_name in names if word and words[known_name].startswith(word)]
    held = [known_name for known_name in names if word and word in re.split(r"[-_.:]", words[known_name])]
    found = difflib.get_close_matches(word, words.values(), n=3, cutoff=0.5 if len(word) <= SHORT else alike)
    near = [known_name for one in found for known_name in names if words[known_name] == one]
    close = list(dict.fromkeys([*begun, *held, *near]))[:3]
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    if not names:
        return "none is known"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    listed = ", ".join(known_name if known_name.isprintable() else repr(known_name) for known_name in names[:LISTED])
    return f"known: {listed}{more}"


def shortened(text: str, most: int = 120) -> str:
    """``text`` for a message: on one line, without control characters, its middle left out where it is long."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    return line if len(line) <= most else f"{line[: most // 2]}…{line[-(most // 2) :]}"
