"""``random``: different configurations, drawn uniformly."""

from __future__ import annotations

from sweep.search.base import Plan, register
from sweep.search.listed import ListPlanner, listed


@register("random")
def random(plan: Plan) -> ListPlanner:
    """The seed's own sequence of configurations."""
    return listed(plan, plan.space.random(plan.total, plan.seed))
