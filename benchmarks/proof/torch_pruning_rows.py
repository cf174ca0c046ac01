"""Plain pruning by torch-pruning, alike and globally, with and without batch norms measured anew.

Its importances are its own defaults but for the norm: ``l1`` of a channel's weights in the first layer of its group,
the group norm (``l2`` over all layers of the group, Fang et al., CVPR 2023), and first-order Taylor with labels.
"""

from __future__ import annotations

import copy
import warnings
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import nn

from benchmarks.proof.methods import RECALIBRATED, Kind, Method, Task, ratio_for
from benchmarks.proof.setting import NotRunError
from core.recalibration import recalibrate

PACKAGE: Kind = "torch-pruning"
IMPORTANCES = ("l1", "group norm", "Taylor")
SPREADS = {"alike": False, "global": True}


def library() -> Any:
    """The package.

    Raises:
        NotRunError: it is not installed.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise NotRunError(f"torch-pruning is not here ({error}); pip install torch-pruning==1.6.1") from None
    return torch_pruning


def pruned(task: Task, ratio: float, importance: str, *, spread: str, anew: bool) -> nn.Module:
    """The network without a share of its channels."""
    tp = library()
    scores = {
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1, group_reduction="first", normalizer="mean"),
        "group norm": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "Taylor": tp.importance.GroupTaylorImportance,
    }
    model = copy.deepcopy(task.original.model)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            model,
            task.images[:1],
            importance=scores[importance](),
            global_pruning=SPREADS[spread],
            pruning_ratio=ratio,
            ignored_layers=[last, *_left_alone(model, task)],
        )
        if importance == "Taylor":
            F.cross_entropy(model(task.images), task.labels).backward()
        pruner.step()
    model.zero_grad()
    if anew:
        recalibrate(model, task.images)
    return model


def _left_alone(model: nn.Module, task: Task) -> list[nn.Module]:
    """The layers that are not among the task's sites and write channels of their own, as depthwise ones do not."""
    if task.sites is None:
        return []
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and getattr(module, "groups", 1) == 1
        and not any(fnmatchcase(name, pattern) for pattern in task.sites)
    ]


def _ratio(importance: str, spread: str, task: Task, share: float) -> float:
    what = f"{spread} {importance if SPREADS[spread] else ''}"  # cut alike, sizes do not depend on the importance
    return ratio_for(task, what, share, lambda ratio: pruned(task, ratio, importance, spread=spread, anew=False))


def _method(importance: str, spread: str, *, anew: bool) -> Method:
    name = f"{importance}, {spread}{RECALIBRATED if anew else ''}"
    return Method(
        name,
        PACKAGE,
        partial(_ratio, importance, spread),
        partial(pruned, importance=importance, spread=spread, anew=anew),
    )


ROWS = tuple(_method(i, s, anew=anew) for i in IMPORTANCES for s in SPREADS for anew in (False, True))
