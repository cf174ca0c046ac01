"""``tpe``: a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), in Optuna's implementation."""

from __future__ import annotations

from sweep.search.base import Plan, register
from sweep.search.optimiser import OptunaPlanner

STARTUP = 16
"""Random configurations before the first estimate."""


@register("tpe")
def tpe(plan: Plan) -> OptunaPlanner:
    """The planner with TPE as its sampler."""
    from optuna.samplers import TPESampler

    return OptunaPlanner(plan, TPESampler(seed=plan.seed, n_startup_trials=STARTUP))
