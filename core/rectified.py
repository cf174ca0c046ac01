r"""Least squares for a layer with a ReLU behind it: what the ReLU takes away is not asked for.

Let t be what a layer should give and u = a∘t + c what the ReLU reads, behind a batch norm or a residual sum. Where
u ≤ 0 every û ≤ 0 is as good, so the error that counts is (t − t̂)² where u > 0, and max(û, 0)²/a² elsewhere: convex in
the weights, and never below what the ReLU's outputs are apart, over a². From a fit t̂, the targets

    t' = t where u > 0,    min(û, 0) taken back to t elsewhere (t̂ itself if û ≤ 0, −c/a if not),

give least squares that majorise it and touch it at t̂: fitting again makes it smaller, every time. After Zhang et al.
(Accelerating very deep convolutional networks, PAMI 2016), who split the ReLU off with a penalty instead.

Here with the inputs of the compressed network, whose inner products stay what they are; only those with the targets are
taken anew. One fit more gives most of the gain, which is large where much was removed (docs/methods.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from core.graph import Step
from core.sidebyside import SILENT, SUMS, SideBySide, gain
from core.surgery import kept_positions, parameter

RELUS = ("relu", "relu_", "relu6", "relu6_")


@dataclass(frozen=True)
class Rectified:
    """How the ReLU behind a layer sees its outputs t, of the channels that stay.

    Attributes:
        scale: a (c,).
        level: c, like the outputs (N, c, …) or (N, …, c).
        live: u > 0 in the original network, likewise.
    """

    scale: Tensor
    level: Tensor
    live: Tensor

    @classmethod
    def behind(cls, batch: SideBySide, node: fx.Node) -> Rectified | None:
        """What stands behind a layer that the original has just run; None if it is not a ReLU that alone reads it."""
        graph, value = batch.channels.graph, batch.env[node]
        axis = graph.channel_axis[node]
        if axis < 0:
            return None
        view = [-1 if i == axis else 1 for i in range(value.dim())]
        scale, shift = value.new_ones(value.shape[axis]), value.new_zeros(value.shape[axis])
        others: tuple[Tensor, Tensor] | None = None
        at = node
        while len(at.users) == 1:
            at, last = next(iter(at.users)), at
            step = graph.steps.get(at)
            if step is None:
                return None
            if step.kind == "activation" and step.op in RELUS:
                u = value * scale.view(view) + shift.view(view)
                kept = kept_positions(batch.channels, graph.profiles[node], batch.gone).to(value.device)
                level = shift[kept].view(view).expand(batch.kept(node, value).shape)
                if others is not None:
                    u, level = u + others[0], level + others[1]
                return cls(scale[kept], level, batch.kept(node, u > 0))
            if step.kind == "batch-norm" and len(step.parameters) >= 4 and others is None:
                a = gain(batch.pair.original, step)
                beta, mean = (parameter(batch.pair.original, step.parameters[n]) for n in ("bias", "running_mean"))
                assert beta is not None
                assert mean is not None
                scale, shift = scale * a, shift * a + (beta - a * mean)
            elif step.kind == "add" and others is None:
                others = _summand(batch, node, last, step)
                if others is None:
                    return None
            elif step.op not in SILENT:
                return None
        return None

    def beside(self, wanted: Tensor, axis: int) -> Tensor:
        """t, u > 0 and c side by side, so that they are laid out in rows together."""
        return torch.cat([wanted, self.live.to(wanted), self.level.to(wanted)], axis)

    def asked(self, given: Tensor, three: Tensor) -> Tensor:
        """The targets t' (m, c), from t̂ (m, c) and rows (m, 3c) of what stands `beside`."""
        wanted, live, level = three.chunk(3, 1)
        scale = self.scale.to(given)
        taken = given * scale + level > 0  # the ReLU would let through what it should not
        edge = -level / torch.where(scale == 0, 1.0, scale)
        return torch.where(live > 0, wanted, torch.where(taken & (scale != 0), edge, given))


def _summand(batch: SideBySide, node: fx.Node, last: fx.Node, step: Step) -> tuple[Tensor, Tensor] | None:
    """What is added, in the original and the compressed network; None if it is not known yet, or of another shape."""
    other = next((s for s in step.inputs if s is not last), None)
    if step.op not in SUMS or step.options["alpha"] != 1 or other is None:
        return None
    theirs, ours = batch.env.get(other), batch.compressed.env.get(other)
    if not isinstance(theirs, Tensor) or not isinstance(ours, Tensor) or theirs.shape != batch.env[node].shape:
        return None
    return (theirs, ours) if ours.shape == batch.kept(node, theirs).shape else None
