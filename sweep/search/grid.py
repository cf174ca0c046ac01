"""``grid``: every configuration of the space, or the first ``samples`` of them."""

from __future__ import annotations

from sweep.search.base import Plan, register
from sweep.search.listed import ListPlanner, listed


@register("grid")
def grid(plan: Plan) -> ListPlanner:
    """The space's configurations in its own order."""
    return listed(plan, plan.space.grid())
