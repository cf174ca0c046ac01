"""``nsga2``: the genetic algorithm NSGA-II (Deb et al., 2002), in Optuna's implementation."""

from __future__ import annotations

from sweep.search.base import Plan, register
from sweep.search.optimiser import OptunaPlanner

POPULATION = 24


@register("nsga2")
def nsga2(plan: Plan) -> OptunaPlanner:
    """The planner with NSGA-II as its sampler."""
    from optuna.samplers import NSGAIISampler

    return OptunaPlanner(plan, NSGAIISampler(seed=plan.seed, population_size=POPULATION))
