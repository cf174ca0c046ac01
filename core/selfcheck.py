"""Look before returning: the network that was cut is compared with the original that was not.

The original runs with its full width, but nobody reads the removed channels: what enters a layer is zero there, as are
an attention's keys, and norms over channels see the kept ones only. The cut network runs with its own code. Both must
give the same outputs, in the same structure and with the same shapes. So an operation that a rule describes wrongly, or
a size written into the network's code, is seen here, whatever it is; the channel set behind it is found by bisection
and left alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from core.channels import Channels, ChannelSet
from core.errors import first_line
from core.graph import Layer, Step
from core.graph.trace import GraphRunner, duplicate, twice, twin
from core.surgery import kept_positions, parameter

SMALL = 20_000_000
"""Networks with at most so many parameters are compared in float64 on the CPU, where rounding leaves a doubt."""

SURE, PRECISE = 1e-5, 1e-6
"""Largest difference relative to the largest output that needs no second look, and that is allowed in float64."""

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""The most that is allowed to networks that are not compared in float64, by the type of the output."""

ROUNDINGS = 30
"""And no more than so many times what weights do that differ in their last bits."""


@dataclass(frozen=True)
class SelfCheck:
    """Compares cut copies of one network with the original, on random inputs of the example inputs' shapes."""

    channels: Channels

    @cached_property
    def inputs(self) -> tuple[Any, ...]:
        """Random inputs that look like the example inputs; these themselves where the network rejects others."""
        return self._first_run[0]

    @cached_property
    def layout(self) -> tuple[Any, list[Any]]:
        """Structure of the original's outputs, and the shape of each tensor in it."""
        return self._first_run[1]

    @cached_property
    def _first_run(self) -> tuple[tuple[Any, ...], tuple[Any, list[Any]]]:
        given = self.channels.graph.inputs
        generator = torch.Generator().manual_seed(0)
        drawn = pytree.tree_map(lambda x: _noise_like(x, generator), given)
        with contextlib.suppress(Exception):
            outputs = twin(self.channels.graph.model)(*drawn)
            if all(bool(torch.isfinite(y).all()) for y in _tensors(outputs) if y.is_floating_point()):
                return drawn, _layout(outputs)
        return given, _layout(twin(self.channels.graph.model)(*given))

    @cached_property
    def trains(self) -> bool:
        """Whether the original runs in training mode."""
        return not self._training_problem(self.channels.graph.model)

    def problem(self, full: nn.Module, cut: nn.Module, gone: Tensor, *, training: bool = False) -> str:
        """What is wrong with ``cut``, in words; "" if nothing is. Both networks are used up: they run and are changed.

        Args:
            full: the network before the cut, with whatever was folded into its consumers.
            cut: the same after it.
            gone: channel numbers that were removed.
            training: also see whether ``cut`` runs in training mode, if the original does.
        """
        wrong = self._difference(full, cut, gone)
        if not wrong and training and (problem := self._training_problem(cut)) and self.trains:
            wrong = problem
        return wrong

    def _difference(self, full: nn.Module, cut: nn.Module, gone: Tensor) -> str:
        """As the networks are, and where rounding leaves a doubt, once more in float64."""
        try:
            found = seeded(cut, self.inputs)
        except Exception as error:
            return f"the network does not run without some of them: {first_line(error)}"
        if _layout(found) != self.layout:
            return "without some of them the network's outputs have another structure or shape"
        try:
            off = off_by(partial(self._masked, gone), full, cut, found, self.inputs)
        except Exception as error:
            return f"the network cannot be compared with the original: {first_line(error)}"
        return f"without some of them it computes something else, off by {100 * off:.2g} %" if off else ""

    def _masked(self, gone: Tensor, full: nn.Module, *inputs: Any) -> Any:
        """The outputs of ``full`` as if the channels ``gone`` were not there."""
        return Masked(full, self.channels, gone).run(*inputs)

    def _training_problem(self, model: nn.Module) -> str:
        try:
            twin(model).train()(*(twice(x) for x in self.inputs))
        except Exception as error:
            return f"without some of them the network does not run in training mode: {first_line(error)}"
        return ""


def culprits(problem: Callable[[Sequence[ChannelSet]], str], sets: Sequence[ChannelSet]) -> dict[str, str]:
    """The sets that must be left alone, with the reason, so that ``problem`` finds nothing with all others.

    Args:
        problem: cuts the sets it is given and says what is wrong; "" if nothing is.
        sets: those that together have a problem; none: none of them is to blame.
    """
    found: dict[str, str] = {}
    if not sets:
        return found

    def search(part: Sequence[ChannelSet], reason: str) -> None:
        if len(part) == 1:
            found[part[0].name] = reason
            return
        halves = part[: len(part) // 2], part[len(part) // 2 :]
        bad = [(half, reason) for half in halves if (reason := problem(half))]
        for half, reason in bad:
            search(half, reason)
        if not bad:  # each half is fine without the other
            one_by_one(part)

    def one_by_one(part: Sequence[ChannelSet]) -> None:
        fine: list[ChannelSet] = []
        for channel_set in part:
            if reason := problem([*fine, channel_set]):
                found[channel_set.name] = reason
            else:
                fine.append(channel_set)

    search(sets, problem(sets))
    left = [s for s in sets if s.name not in found]
    if left and problem(left):
        one_by_one(left)
    return found


class Masked(GraphRunner):
    """Runs the full network as if the channels ``gone`` were not there: no layer reads them, no norm sees them."""

    def __init__(self, root: nn.Module, channels: Channels, gone: Tensor) -> None:
        super().__init__(channels.graph.traced, root, channels.graph.unbiased)
        self.channels, self.gone = channels, gone
        self._is_gone = torch.zeros(len(channels.unit_of), dtype=torch.bool)
        self._is_gone[gone] = True

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; what a layer reads of the removed channels is zero, a norm over channels sees the others."""
        step = self.channels.graph.steps.get(n)
        if step is not None and step.mixer is not None:
            return self._layer(n, step, step.mixer)
        if step is not None and step.kind == "pairs":
            self._silence(step.inputs[1])
        if step is None or step.kind != "norm" or step.options["over"] == "each":
            return super().run_node(n)
        kept = kept_positions(self.channels, self.channels.graph.profiles[n], self.gone)
        if len(kept) == len(self.channels.graph.profiles[n]):
            return super().run_node(n)
        return self._norm(step, self.env[step.inputs[0]], self.channels.graph.channel_axis[n], kept)

    def _silence(self, keys: fx.Node) -> None:
        """Make the removed channels of an attention's keys zero, so that no query meets them."""
        silent = self._is_gone[self.channels.unit_of[self.channels.graph.profiles[keys].long()]].nonzero().flatten()
        self.env[keys] = self.env[keys].index_fill(-1, silent.to(self.env[keys].device), 0)

    def _layer(self, n: fx.Node, step: Step, layer: Layer) -> Any:
        units, source = self.channels.units_along.get((layer.weight, layer.read_axis)), step.inputs[0]
        silent = None if units is None else self._is_gone[units].nonzero().flatten()
        if silent is None or not len(silent):
            return super().run_node(n)
        read: Tensor = self.env[source]
        axis = -1 if layer.linear else 1 - self.fetch_attr(layer.weight).dim()
        self.env[source] = read.index_fill(axis, silent.to(read.device), 0)
        value = super().run_node(n)
        self.env[source] = read
        return value

    def _norm(self, step: Step, x: Tensor, axis: int, kept: Tensor) -> Tensor:
        groups = step.options.get("groups", 1)
        weight, bias = (parameter(self.root, step.parameters.get(key, "")) for key in ("weight", "bias"))
        out, block = torch.zeros_like(x), kept // (x.size(axis) // groups)
        for number in range(groups):
            own = kept[block == number].to(x.device)
            w, b = (None if value is None else value[own] for value in (weight, bias))
            part, eps = x.index_select(axis, own), step.options["eps"]
            if step.options["over"] == "groups":
                part = F.group_norm(part, 1, w, b, eps)
            elif step.options["over"] == "rms":
                part = F.rms_norm(part, (len(own),), w, eps)
            else:
                part = F.layer_norm(part, (len(own),), w, b, eps)
            out.index_copy_(axis, own, part)
        return out


def seeded(run: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
    """What ``run`` gives for the inputs, with the same random numbers every time."""
    torch.default_generator.manual_seed(0)  # ten times as fast as torch.manual_seed, which looks for devices
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(0)
    return run(*inputs)


def off_by(run: Callable[..., Any], full: nn.Module, cut: nn.Module, found: Any, inputs: tuple[Any, ...]) -> float:
    """How far the outputs of two networks are apart, relative to the largest one; 0 where rounding may be all of it.

    As the networks are, and where rounding leaves a doubt, once more in float64.

    Args:
        run: (``full``, inputs one by one) -> its outputs.
        full: what is right.
        cut: what is held against it.
        found: its outputs.
        inputs: of both.
    """

    def apart(full: nn.Module, found: Any, inputs: tuple[Any, ...]) -> float:
        expected, got = _tensors(seeded(partial(run, full), inputs)), _tensors(found)
        if len(expected) != len(got):
            return float("inf")
        return max((distance(a, b) for a, b in zip(expected, got, strict=True)), default=0.0)

    off = apart(full, found, inputs)
    if off <= SURE:
        return 0.0
    if sum(p.numel() for p in full.parameters()) <= SMALL:
        with contextlib.suppress(RuntimeError, TypeError, ValueError):  # its code names a type or a device
            exact = pytree.tree_map(_precise, inputs)
            again = seeded(duplicate(cut).cpu().double(), exact)
            off = apart(duplicate(full).cpu().double(), again, exact)
            return off if off > PRECISE else 0.0
    rounding = ROUNDINGS * apart(full, seeded(partial(run, _rounded_otherwise(full)), inputs), inputs)
    most = max((TOLERANCE.get(y.dtype, SURE) for y in _tensors(found)), default=SURE)
    return off if off > max(SURE, min(most, rounding)) else 0.0


def _rounded_otherwise(model: nn.Module) -> nn.Module:
    """A copy in which every second weight, at random, is one bit larger."""
    copy, generator = duplicate(model), torch.Generator().manual_seed(0)
    for weight in copy.parameters():
        if weight.is_floating_point():
            larger = torch.rand(weight.shape, generator=generator) < 0.5
            weight.mul_(1 + torch.finfo(weight.dtype).eps * larger.to(weight))
    return copy


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference relative to the largest finite value of ``a``; NaN at the same places is no difference."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.double(), b.to(a.device).double()
    same = (a == b) | (a.isnan() & b.isnan())
    if a.numel() == 0 or bool(same.all()):
        return 0.0
    size = a[a.isfinite()].abs().max() if bool(a.isfinite().any()) else a.new_ones(())
    found = float(((a - b).abs()[~same].max() / size.clamp_min(1e-12)).detach())
    return found if found == found else float("inf")


def _tensors(outputs: Any) -> list[Tensor]:
    return [y.detach() for y in pytree.tree_leaves(outputs) if isinstance(y, Tensor)]


def _layout(outputs: Any) -> tuple[Any, list[Any]]:
    leaves, structure = pytree.tree_flatten(outputs)
    return structure, [(tuple(y.shape), y.dtype) if isinstance(y, Tensor) else _plain(y) for y in leaves]


def _plain(leaf: Any) -> Any:
    """A number or word as it is, of anything else its type."""
    return leaf if isinstance(leaf, (bool, int, str)) else type(leaf)


def _noise_like(x: Any, generator: torch.Generator) -> Any:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.numel() == 0:
        return x
    sound = torch.isfinite(x).all() and x.numel() > 1 and x.std() > 0
    mean, std = (x.float().mean(), x.float().std()) if sound else (torch.zeros(()), torch.ones(()))
    return (torch.randn(x.shape, generator=generator).to(x.device) * std + mean).to(x.dtype)


def _precise(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    return x.cpu().double() if x.is_floating_point() else x.cpu()
