"""``per-site``: a ratio for each named site, what an optimiser or a published configuration sets."""

from __future__ import annotations

from fnmatch import fnmatchcase

from core.allocation.base import AllocationRequest, register


@register("per-site")
def per_site(request: AllocationRequest) -> list[float]:
    """Return the ratio of the first pattern that matches one of a set's producers, else the overall one."""

    def of(producers: tuple[str, ...]) -> float:
        found = (r for pattern, r in request.ratios.items() if any(fnmatchcase(p, pattern) for p in producers))
        return next(found, request.ratio)

    return [of(own.producers) for own in request.sets]
