"""Decoupling: depthwise and pointwise convolutions in the place of ordinary ones, without any data.

Guo et al., Network Decoupling, BMVC 2018; how one layer is taken apart stands in `core.slices`. It is a stage behind
the cut, whatever made up for the removed channels.

Which layers get how many terms: with energy E = Σ σ² and E_T of the first T terms, a layer's noise is (E − E_T)/E_T,
what a batch norm or a next layer that scales its outputs up again sees. From all whole on, the step that adds the least
noise for each weight that it saves is taken, until as much is saved as was asked for.

What fails: slices whose singular values are alike lose much at once, and nothing makes up for it afterwards but batch
norms that are measured anew (``bn_recalibrate``) and a recovery. Two layers in the place of one take longer than their
multiplications say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, cast

from torch import nn

from core.errors import UsageError, first_line
from core.graph.trace import twin, undisturbed
from core.selfcheck import off_by, seeded
from core.slices import KINDS, Conv, Decoupled, Slices, composed, put

SHOWN = 3
"""So many names of a kind are written out in a note."""


@dataclass(frozen=True)
class Decoupling:
    """What becomes of a network's convolutions.

    Attributes:
        parts: layer -> the two in its place.
        lost: layer -> share of its weight's energy that is lost.
        left: reason -> layers that are left as they are, in words.
    """

    parts: Mapping[str, Decoupled] = field(default_factory=dict)
    lost: Mapping[str, float] = field(default_factory=dict)
    left: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def terms(self) -> dict[str, int]:
        """Layer -> T."""
        return {name: part.terms for name, part in self.parts.items()}

    @property
    def note(self) -> str:
        """All of it in a sentence; "" if nothing is decoupled."""
        if not self.parts:
            return ""
        worst = max(self.lost, key=lambda name: self.lost[name])
        parts = [
            f"{_few([f'{n} into {t}' for n, t in self.terms.items()])} (depthwise, pointwise) terms, at most"
            f" {100 * self.lost[worst]:.2g} % of a weight's energy lost ({worst})"
        ]
        if self.left:
            parts.append(f"left whole: {', '.join(f'{_few(n)} ({reason})' for reason, n in self.left.items())}")
        return f"decoupled: {'; '.join(parts)}"

    def truncate(self, model: nn.Module) -> None:
        """Give the layers the weights that they will have in parts, in place: their slices have rank T."""
        for name, part in self.parts.items():
            conv = cast(Conv, model.get_submodule(name))
            conv.weight = nn.Parameter(composed(part), requires_grad=conv.weight.requires_grad)

    def apply(self, model: nn.Module) -> None:
        """Put parts of what the layers' weights are by now in their places, in place."""
        for name, terms in self.terms.items():
            conv = cast(Conv, model.get_submodule(name))
            put(model, conv, Slices.of(name, conv).split(terms))


def _few(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def plan(model: nn.Module, amount: float, inputs: tuple[Any, ...], sites: Sequence[str] | None = None) -> Decoupling:
    """Which convolutions to take apart, as far as the network then computes what their weights of low rank compute.

    Args:
        model: the network.
        amount: 0, nothing, to 1, a single term for every layer: the share of the weights saved there.
        inputs: what the network runs on.
        sites: glob patterns; only layers of such names. None: all.

    Raises:
        UsageError: there is no convolution to take apart.
    """
    if amount == 0:
        return Decoupling()
    found, left = candidates(model, sites)
    terms = spread(found, amount)
    chosen = {one.name: one.split(terms[one.name]) for one in found if one.name in terms}
    with undisturbed(model):
        chosen, wrong = _standing(model, chosen, inputs)
    left.update(wrong)
    if not chosen:
        why = "; ".join(f"{reason}: {_few(names)}" for reason, names in left.items()) or "it has none"
        raise UsageError(f"no convolution of the network can be decoupled ({why}): leave decoupling out")
    lost = {one.name: one.lost[terms[one.name]] for one in found if one.name in chosen}
    return Decoupling(chosen, lost, left)


def candidates(model: nn.Module, sites: Sequence[str] | None) -> tuple[list[Slices], dict[str, list[str]]]:
    """The convolutions that terms can stand for, and why the others cannot, by reason."""
    found: list[Slices] = []
    left: dict[str, list[str]] = {}
    holders: dict[int, int] = {}
    for module in model.modules():
        for weight in module._parameters.values():
            holders[id(weight)] = holders.get(id(weight), 0) + 1
    for name, module in model.named_modules():
        if not isinstance(module, nn.modules.conv._ConvNd):
            continue
        reason = _reason(name, module, holders.get(id(module.weight), 0), sites)
        if not reason:
            one = Slices.of(name, cast(Conv, module))
            reason = "" if one.most else "where no term would save weights"
            found += [one] if one.most else []
        if reason:
            left.setdefault(reason, []).append(name)
    return found, left


def _reason(name: str, conv: nn.modules.conv._ConvNd, holders: int, sites: Sequence[str] | None) -> str:
    """Why a layer is not even looked at; "" if it is."""
    hooks = (conv._forward_hooks, conv._forward_pre_hooks, conv._backward_hooks, conv._backward_pre_hooks)
    if sites is not None and not any(fnmatchcase(name, pattern) for pattern in sites):
        return "not among the chosen sites"
    if conv.kernel_size and all(size == 1 for size in conv.kernel_size):
        return "pointwise"
    if conv.groups == conv.out_channels > 1:
        return "depthwise"
    if type(conv) not in KINDS or "forward" in vars(conv) or any(hooks) or not name:
        return "with a forward, hooks or a place of their own"
    if holders != 1 or not isinstance(conv.weight, nn.Parameter) or not conv.weight.is_floating_point():
        return "with a weight that is not theirs alone, or no plain numbers"
    return ""


def spread(found: Sequence[Slices], amount: float) -> dict[str, int]:
    """How many terms each layer gets; one that is not named stays whole."""
    terms: dict[str, int] = {}
    missing = amount * sum(one.whole - one.each for one in found)

    def step(one: Slices) -> tuple[float, int]:
        """What the next step of a layer adds in noise for each weight that it saves, and how many these are."""
        now = terms.get(one.name)
        if now is None:
            saved, noise = one.whole - one.most * one.each, one.noise(one.most)
        else:
            saved, noise = one.each, one.noise(now - 1) - one.noise(now)
        return noise / saved, saved

    while missing > 1e-9:
        open_ones = [one for one in found if terms.get(one.name) != 1]
        if not open_ones:
            break
        best = min(open_ones, key=lambda one: step(one)[0])
        missing -= step(best)[1]
        terms[best.name] = terms.get(best.name, best.most + 1) - 1
    return terms


def _standing(
    model: nn.Module, chosen: Mapping[str, Decoupled], inputs: tuple[Any, ...]
) -> tuple[dict[str, Decoupled], dict[str, list[str]]]:
    """Those of ``chosen`` that can be put into the network, and the others by reason."""
    if not _problem(model, chosen, inputs):
        return dict(chosen), {}
    standing: dict[str, Decoupled] = {}
    left: dict[str, list[str]] = {}
    for name, part in chosen.items():
        if wrong := _problem(model, {**standing, name: part}, inputs):
            left.setdefault(wrong, []).append(name)
        else:
            standing[name] = part
    return standing, left


def _problem(model: nn.Module, chosen: Mapping[str, Decoupled], inputs: tuple[Any, ...]) -> str:
    """What is wrong with the network with layers taken apart, in words; "" if nothing is.

    It must compute what it does with the composed weights in the convolutions themselves; where rounding leaves a
    doubt, in float64.
    """
    whole, parts = twin(model).eval(), twin(model).eval()
    for name, part in chosen.items():
        conv = cast(Conv, whole.get_submodule(name))
        conv._parameters["weight"] = nn.Parameter(composed(part), requires_grad=False)
        put(parts, parts.get_submodule(name), part)
    try:
        off = off_by(nn.Module.__call__, whole, parts, seeded(parts, inputs), inputs)
    except Exception as error:
        return f"without which the network does not run ({first_line(error)})"
    return "without which the network computes something else" if off else ""
