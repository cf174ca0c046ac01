"""What a training starts from: the trained network made smaller, or a small network that no training has seen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.proof.originals import Original, configuration, parameters, untrained
from benchmarks.proof.setting import Setting
from core.compress import Prepared, Result, compress, prepare
from core.models import Recipe
from core.surgery import cut, units_gone


@dataclass(frozen=True)
class Case:
    """A network, and how much of every set is removed.

    Attributes:
        net: its name.
        ratio: of every set.
        threshold: of merging.
    """

    net: str
    ratio: float
    threshold: float

    @property
    def recipe(self) -> Recipe:
        """How the original was trained."""
        return configuration(self.net).recipe


@dataclass(frozen=True)
class Bench:
    """What starts are made of.

    Attributes:
        case: the network and its ratio.
        original: trained.
        setting: of the run.
        prepared: the original, followed once.
    """

    case: Case
    original: Original
    setting: Setting
    prepared: Prepared

    @classmethod
    def of(cls, case: Case, original: Original, setting: Setting) -> Bench:
        """With the network followed."""
        return cls(case, original, setting, prepare(original.model, setting.calibration()[0][:1]))


@dataclass(frozen=True)
class Start:
    """A way to a small network.

    Attributes:
        name: on the page.
        make: of a bench and a seed, the network before its training.
        anew: whether its weights are untrained ones, so that it is trained at the original's own rate.
    """

    name: str
    make: Callable[[Bench, int], nn.Module]
    anew: bool = False


def _compressed(name: str, how: Mapping[str, Any]) -> Start:
    """The trained network, compressed; the seed changes nothing."""

    def make(bench: Bench, _: int) -> nn.Module:
        return cut_by(bench, bench.prepared, how).model

    return Start(name, make)


def cut_by(bench: Bench, model: nn.Module | Prepared, how: Mapping[str, Any]) -> Result:
    """Every set of ``model`` cut by the case's ratio."""
    images, labels = bench.setting.calibration()
    options = {"threshold": bench.case.threshold} if how["decomposition"] == "most-similar" else {}
    asked = {**how, "options": options, "calibration": images, "labels": labels}
    return compress(model, images[:1], ratio=bench.case.ratio, **asked)


def scratch(bench: Bench, seed: int) -> nn.Module:
    """The narrow network with new weights."""
    return fresh(cut_by(bench, bench.prepared, PLAIN).model, seed)


def ticket(bench: Bench, _: int) -> nn.Module:
    """The lottery ticket (Frankle & Carbin 2019), of channels: those that are kept of the trained network, rewound.

    The kept channels are the trained network's by l1, their weights those that its training began with. The paper's
    tickets are single weights, of which a network has many more.
    """
    kept = {site.name: torch.tensor(site.kept) for site in cut_by(bench, bench.prepared, PLAIN).sites}
    channels = bench.prepared.channels
    rewound = untrained(bench.case.net, bench.setting)
    cut(rewound, channels, units_gone([s for s in channels.sets if s.name in kept], kept))
    return rewound


def snip(bench: Bench, seed: int) -> nn.Module:
    """SNIP (Lee et al. 2019), of channels: the kept ones of new weights, by Σ |gradient · weight| on labelled images.

    The paper ranks single weights over the whole network; here every set loses the same share, for equal parameters.
    """
    whole = fresh(copy.deepcopy(bench.original.model), seed)
    return cut_by(bench, whole, {"criterion": "snip", "decomposition": "none"}).model


def fresh(model: nn.Module, seed: int) -> nn.Module:
    """The same network with new weights, in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return model


PLAIN: Mapping[str, Any] = {"decomposition": "none"}
PRUNED, MERGED, BEST = "pruned", "merged (the paper)", "least-squares, obs"
SCRATCH, TICKET, SNIP = "from scratch", "lottery ticket", "SNIP"
STARTS = (
    _compressed(PRUNED, PLAIN),
    _compressed(MERGED, {"decomposition": "most-similar"}),
    _compressed("least-squares", {"decomposition": "least-squares"}),
    _compressed(BEST, {"decomposition": "least-squares", "criterion": "obs"}),
    Start(SCRATCH, scratch, anew=True),
    Start(TICKET, ticket, anew=True),
    Start(SNIP, snip, anew=True),
)


def made(start: Start, bench: Bench, seed: int) -> nn.Module:
    """The network to train; all starts of a case have as many parameters."""
    found, plain = start.make(bench, seed), cut_by(bench, bench.prepared, PLAIN).model
    assert parameters(found) == parameters(plain), (start.name, parameters(found), parameters(plain))
    for weight in found.parameters():
        weight.requires_grad_(True)
    return found
