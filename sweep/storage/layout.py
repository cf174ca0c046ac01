"""Every name of a file or folder that a sweep leaves, and what a sweep may be called.

::

    results/.baselines/           trained original networks, shared by all sweeps; *.training: one under way
    results/mlflow.db             MLflow's own store, with mlartifacts/ beside it
    results/compare.html          several sweeps side by side, with compare.png; fronts.png and others: their fronts
    results/.mirror.json          only in the local copy of a results folder in object storage
    results/NAME/sweep.json       what the sweep is and how it goes (`SweepInfo`), replaced atomically
    results/NAME/trials.jsonl     one record a line, only ever appended to
    results/NAME/statistics/      what no trial changes, such as error curves: made anew if it is lost (`core.shelf`)
    results/NAME/models/          the networks on the front, KEY.safetensors, each with its card
    results/NAME/export/          where `sweep export` puts networks, a folder each
    results/NAME/lock             held by the process that runs the sweep, free as soon as it is gone
    results/NAME/live.json        how many trials are under way, while it runs
    results/NAME/reserve          room for the last records when the disk is full, while it runs
    results/NAME/report.html      the report, made anew by ``sweep report``
    results/NAME/stop             left by ``sweep stop``
"""

from __future__ import annotations

import re

from core.errors import UsageError
from core.files import NAME

INFO, TRIALS, LOCK, RESERVE, STOP, LIVE = "sweep.json", "trials.jsonl", "lock", "reserve", "stop", "live.json"
BASELINES = ".baselines"
STATISTICS, MODELS, EXPORT = "statistics", "models", "export"
REPORT, TRIALS_CSV = "report.html", "trials.csv"
COMPARISON, FRONTS = "compare.html", "fronts"
MIRRORED = ".mirror.json"
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
LONGEST = 100
"""Characters of a sweep's name."""
PICTURES = {f"{name}.{form}" for name in (FRONTS, "compare") for form in ("png", "svg", "html", "csv")}
RESERVED = {ARTIFACTS, *PICTURES, INFO, TRIALS, LOCK, RESERVE, STOP, LIVE}
"""MLflow's files, and names that a results folder in object storage does not copy."""


def is_name(text: str) -> bool:
    """Whether a sweep may be called so: its name is a folder's."""
    return len(text) <= LONGEST and re.fullmatch(NAME, text) is not None


def check_name(name: str) -> None:
    """Look whether a new sweep may be called ``name``.

    Raises:
        UsageError: it may not, or the results folder has a file of that name of its own.
    """
    if not is_name(name):
        raise UsageError(
            f"--name {name!r}: use letters, digits, '.', '_' and '-', starting with a letter or digit, at most"
            f" {LONGEST}"
        )
    if name.lower() in RESERVED or name.lower().startswith(DATABASE):
        raise UsageError(f"--name {name!r}: the results folder has a file of that name; choose another --name")
