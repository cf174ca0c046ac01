"""How the loss on labelled images depends on each layer's rows: what ``taylor`` and ``snip`` look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from core.channels import Channels
from core.criteria.base import Sensitivity
from core.errors import UsageError
from core.graph import Layer
from core.graph.trace import as_inputs, duplicate, undisturbed

BATCH = 32


@dataclass
class LossGradients:
    """Gradients of the original network's cross-entropy, computed when first asked for, for all layers at once.

    Attributes:
        channels: of the original network.
        calibration: inputs (N, …), a tuple of them for a network with several inputs; None: there are none.
        labels: classes (N,); None: there are none.
    """

    channels: Channels
    calibration: Any
    labels: Tensor | None
    _found: dict[str, Sensitivity] = field(default_factory=dict)

    def of(self, layer: Layer) -> Sensitivity:
        """How the loss depends on a layer's rows.

        Raises:
            UsageError: there are no images with labels, or the network returns no logits (N, classes).
        """
        if self.calibration is None or self.labels is None:
            raise UsageError(
                "the criterion learns from labels: pass calibration=images (N, …) and labels=classes (N,), or take one"
                " that needs none, such as obs"
            )
        if not self._found:
            with undisturbed(self.channels.graph.model):
                self._found = self._compute(as_inputs(self.calibration), self.labels)
        return self._found[layer.name]

    def _compute(self, inputs: tuple[Tensor, ...], labels: Tensor) -> dict[str, Sensitivity]:
        work = duplicate(self.channels.graph.model)
        named = dict(work.named_parameters())
        layers = [layer for layer in self.channels.graph.layers if layer.weight in named]
        wanted = sorted({name for layer in layers for name in (layer.weight, layer.bias) if name in named})
        weights = [named[name].requires_grad_(True) for name in wanted]
        batches: list[dict[str, Tensor]] = []
        for start in range(0, len(labels), BATCH):
            some = slice(start, start + BATCH)
            with torch.enable_grad():
                loss = F.cross_entropy(logits_of(work(*(x[some] for x in inputs))), labels[some])
                found = torch.autograd.grad(loss, weights, allow_unused=True)
            products = zip(wanted, weights, found, strict=True)
            batches.append({n: (torch.zeros_like(w) if g is None else g * w).detach().double() for n, w, g in products})
        return {layer.name: _sensitivity(layer, batches) for layer in layers}


def _sensitivity(layer: Layer, batches: list[dict[str, Tensor]]) -> Sensitivity:
    """Of a layer, from gradient times weight of each batch."""

    def rows(batch: dict[str, Tensor]) -> Tensor:
        weight = batch[layer.weight].movedim(layer.write_axis, 0).flatten(1)
        bias = batch.get(layer.bias)
        return weight if bias is None else torch.cat([weight, bias[:, None]], 1)

    found = torch.stack([rows(batch) for batch in batches])  # (batches, m, fan_in)
    return Sensitivity(found.sum(2).cpu(), found.mean(0).abs().sum(1).cpu())


def logits_of(outputs: Any) -> Tensor:
    """The first output, which must be logits (N, classes).

    Raises:
        UsageError: it is something else.
    """
    first = next((leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)), None)
    if first is None or first.dim() != 2:
        raise UsageError(
            "the criterion needs a network that returns logits (N, classes); take one that needs no labels"
        )
    return first
