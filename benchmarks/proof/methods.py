"""The methods that are compared: this package's, and those of other papers as they are written anew here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from benchmarks.proof.originals import Original, parameters
from benchmarks.proof.setting import NotRunError
from core.compress import Prepared, compress, prepare

STEPS, COARSE = 256, 8
"""Ratios are multiples of 1 / STEPS, looked for first in these steps: under a global threshold sizes may rise again."""
Kind = Literal["ours", "the paper", "written anew", "torch-pruning"]


@dataclass(frozen=True)
class Task:
    """What methods are given.

    Attributes:
        original: the trained network.
        images: (n, 1, 28, 28), normalised, to calibrate with.
        labels: (n,) their classes, for the methods that want them.
        prepared: what a method's first network has found out for its others, by the method's name.
        ratios: what has been found by `ratio_for`.
        sites: patterns of the producers whose sets are cut; None: all.
    """

    original: Original
    images: Tensor
    labels: Tensor
    prepared: dict[str, Prepared] = field(default_factory=dict)
    ratios: dict[tuple[str, float], float] = field(default_factory=dict)
    sites: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Method:
    """A row.

    Attributes:
        name: on the page.
        kind: whose it is.
        ratio: of a task and a share of the parameters, the ratio whose network has at most so many.
        make: of a task and that ratio, the network.
    """

    name: str
    kind: Kind
    ratio: Callable[[Task, float], float]
    make: Callable[[Task, float], nn.Module]


def ratio_for(task: Task, what: str, share: float, make: Callable[[float], nn.Module]) -> float:
    """The first ratio on the way up at which ``make`` leaves at most ``share`` of the parameters; kept for ``what``.

    Raises:
        NotRunError: there is none.
    """
    if (what, share) not in task.ratios:

        def fits(step: int) -> bool:
            return parameters(make(step / STEPS)) <= share * task.original.params

        found = next((step for step in range(COARSE, STEPS, COARSE) if fits(step)), None)
        if found is None:
            raise NotRunError(f"no ratio leaves {100 * share:.0f} % of the parameters")
        inside, outside = found, found - COARSE
        while inside - outside > 1:
            middle = (inside + outside) // 2
            inside, outside = (middle, outside) if fits(middle) else (inside, middle)
        task.ratios[what, share] = inside / STEPS
    return task.ratios[what, share]


def _alike(task: Task, share: float) -> float:
    """All sets are cut alike, so any criterion and any decomposition leaves the same size."""

    def plain(ratio: float) -> nn.Module:
        one = task.images[:1]
        return compress(_prepared(task, ""), one, ratio=ratio, decomposition="none", sites=task.sites).model

    return ratio_for(task, "", share, plain)


def _prepared(task: Task, name: str) -> Prepared:
    """The network followed once for all that ``name`` makes of it."""
    if name not in task.prepared:
        task.prepared[name] = prepare(task.original.model, task.images[:1])
    return task.prepared[name]


def method_of(name: str, kind: Kind, how: Mapping[str, Any]) -> Method:
    """Of a configuration of `compress`."""

    def make(task: Task, ratio: float) -> nn.Module:
        options = dict(how.get("options", {}))
        if how["decomposition"] == "most-similar":
            options["threshold"] = 0.1 if task.original.normed else 0.45  # the paper's
        return compress(
            _prepared(task, name),
            task.images[:1],
            **{**how, "options": options},
            ratio=ratio,
            calibration=task.images,
            sites=task.sites,
        ).model

    spread = how.get("allocation") == "budget"
    return Method(name, kind, (lambda _, share: 1 - share) if spread else _alike, make)


RECALIBRATED = ", re-calibrated"
_AFTER = {"options": {"bn_recalibrate": True}}
_BUDGET = {"criterion": "obs", "decomposition": "least-squares", "allocation": "budget"}
HEADLINE = "least-squares, obs, budget"
_OTHERS: dict[str, Kind] = {
    "most-similar": "the paper",
    "folding": "written anew",
    "gram": "written anew",
    "ridge": "written anew",
}
OURS = (
    method_of(HEADLINE, "ours", _BUDGET),
    method_of("least-squares, l1", "ours", {"criterion": "l1", "decomposition": "least-squares"}),
    *(
        method_of(f"{name}{suffix}", kind, {"criterion": "l1", "decomposition": name, **extra})
        for name, kind in _OTHERS.items()
        for suffix, extra in (("", {}), (RECALIBRATED, _AFTER))
    ),
)
