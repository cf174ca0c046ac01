"""Which sweeps can race (see `core.race`)."""

from __future__ import annotations

from core.errors import UsageError
from core.metrics import METRICS
from search_spaces import SearchDefaults


def check_race(search: SearchDefaults) -> None:
    """Refuse to race where a beaten trial may still be a good one.

    Raises:
        UsageError: an objective is neither ``accuracy`` nor a size that is known before the evaluation.
    """
    for name in search.objectives:
        if name != "accuracy" and not METRICS[name].known:
            raise UsageError(
                f"--race stops trials that are beaten in accuracy and size, but this space also optimises {name!r};"
                " leave --race out, or set search.objectives to others"
            )
