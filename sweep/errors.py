"""What can go wrong around the trials, each with one sentence that says what to do next."""

from __future__ import annotations

from core.errors import NeuronMergingError


class StoreError(NeuronMergingError):
    """The results on disk cannot be written or read."""


class TrackingError(NeuronMergingError):
    """The MLflow store or server cannot be used."""


class ClusterError(NeuronMergingError):
    """Ray cannot be reached, lacks resources, or its workers cannot start."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
