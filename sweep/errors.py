"""What can go wrong around the trials, each with one sentence that says what to do next."""

from __future__ import annotations

from core.errors import NeuronMergingError


class StoreError(NeuronMergingError):
    """The results on disk cannot be written or read."""


class TrackingError(NeuronMergingError):
    """The MLflow store or server cannot be used."""


class ClusterError(NeuronMergingError):
    """Ray cannot be reached, lacks resources, or its workers cannot start."""


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of an error's text, at most so many characters of it, or its type where it has none."""
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return line if len(line) <= most else f"{line[: most - 1]}…"
