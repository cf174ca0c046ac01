"""Which sweeps can race (see `core.race`)."""

from __future__ import annotations

from core.errors import UsageError
from core.metrics import METRICS
from search_spaces import SearchSpace


def check_race(space: SearchSpace) -> None:
    """Refuse to race where a beaten trial may still be a good one.

    Raises:
        UsageError: an objective is neither ``accuracy`` nor a size that is known before the evaluation, or nobody knows
            of each image whether the answer is right.
    """
    if not space.scored.by_image:
        raise UsageError(
            f"--race counts the images that are answered rightly, and evaluator {space.evaluation.evaluator!r} measures"
            " a network as a whole; leave --race out"
        )
    for name in space.objectives:
        if name != "accuracy" and not METRICS[name].known:
            raise UsageError(
                f"--race stops trials that are beaten in accuracy and size, but this space also optimises {name!r};"
                " leave --race out, or set search.objectives to others"
            )
