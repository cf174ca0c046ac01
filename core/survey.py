"""What can be done with a network, found out by doing a little of it: what may be cut, how far, at what pace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.channels import ChannelSet
from core.compress import compress
from core.config import TrialConfig
from core.records import TrialRecord
from core.trial import run_trial
from core.workbench import Workbench

BEST = {"criterion": "obs", "decomposition": "least-squares"}
TRIED = 0.5
WARM = 0.4
NEARLY_ALL = 0.999
STARTING = 30.0
"""Seconds to start workers, and to write what came of it."""


@dataclass(frozen=True)
class Survey:
    """What is known of a network before it is swept.

    Attributes:
        sets: what can be cut.
        skipped: layer that is left alone -> why.
        params: the original's.
        least: share of the parameters that is left with one channel in each set.
        trial: half of every set's channels removed, with optimal-brain selection and least squares.
        once: seconds that the first trial on these images takes longer than others, since it computes what they share.
        seconds: of a trial.
    """

    sets: tuple[ChannelSet, ...]
    skipped: Mapping[str, str]
    params: float
    least: float
    trial: TrialRecord
    once: float
    seconds: float

    def expected(self, trials: int, workers: int) -> float:
        """Seconds that a sweep of such trials takes on idle workers, each of which does once what they share."""
        return STARTING + self.once + self.seconds * math.ceil(trials / workers)


def survey(bench: Workbench) -> Survey:
    """Look at the bench's network, and run two trials on it.

    Raises:
        ModelError: it cannot be traced.
    """
    channels = bench.prepared.channels
    params = bench.original["params"]
    bare = compress(bench.prepared, bench.example, ratio=NEARLY_ALL, decomposition="none").model
    first, second = (run_trial(TrialConfig.parse({**BEST, "ratio": ratio}), bench) for ratio in (TRIED, WARM))
    return Survey(
        channels.sets,
        dict(channels.skipped),
        params,
        bench.sizes(bare)["params"] / params,
        first,
        max(0.0, first.seconds - second.seconds),
        second.seconds,
    )


def without_accuracy(found: Survey) -> Survey:
    """The same of a network whose weights are random: what its trial came to means nothing."""
    return replace(found, trial=found.trial.model_copy(update={"metrics": {}}))
