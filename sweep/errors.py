"""What can go wrong around the trials, each with one sentence that says what to do next."""

from __future__ import annotations

import re

from core.errors import NeuronMergingError

HIDDEN = "…@"
"""Stands in an address for a user name and a password."""
CREDENTIALS = re.compile(r"(?<=://)(?!/)[^\s'\"<>]*@")
PARAMETER = re.compile(
    r"(?i)(?<=[?&;])([\w.-]*(?:passw|pwd|secret|token|key|sig)[\w.-]*=)"
    r"(?:[^&#;\s'\"<>]*[^&#;\s'\"<>:,.)])?"
)


class StoppedError(NeuronMergingError):
    """Somebody wanted the end, before there was anything to end in good order."""


class StoreError(NeuronMergingError):
    """The results on disk cannot be written or read."""


class TrackingError(NeuronMergingError):
    """The MLflow store or server cannot be used."""


class ClusterError(NeuronMergingError):
    """Ray cannot be reached, lacks resources, or its workers cannot start."""


def masked(text: str) -> str:
    """``text`` without the user names, passwords and keys of the addresses in it, for messages and files.

    # NOTE: everything up to the last ``@`` goes, and not only what a parser of addresses takes for a password: a key
    # with a slash in it ends such a parser's host name early, and the rest of it would be shown.
    """
    return PARAMETER.sub(r"\1…", CREDENTIALS.sub(HIDDEN, text))


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of an error's text without secrets, cut to so many characters, or its type where it has none."""
    text = masked(str(error).strip())
    line = text.splitlines()[0] if text else type(error).__name__
    return line if len(line) <= most else f"{line[: most - 1]}…"
