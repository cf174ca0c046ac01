"""From a network to its channel graph: trace it, label it, and once more as it is in training, where that differs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from core.errors import ModelError, first_line
from core.graph.atoms import Atoms
from core.graph.labeller import Labeller
from core.graph.nodes import Layer, Step
from core.graph.packed import unpack
from core.graph.trace import as_inputs, check, trace, twice, twin, undisturbed

LARGER = (2, 4)
"""So many times larger images are tried where a network does not train on those it is evaluated on."""


@dataclass(frozen=True)
class ChannelGraph:
    """A traced network with its channels: what `core.channels` groups into channel sets.

    It keeps parameters, buffers and the example inputs, and no other value that ran through the network.

    Attributes:
        model: a copy of the network in eval mode that never ran; parameters are read from it.
        traced: the graph; it names parameters and submodules.
        inputs: the example inputs, one per argument of ``forward``.
        layers: all that could be described, in the order of the graph.
        steps: node -> what it does to channels.
        profiles: node -> atoms along its output's channel axis.
        channel_axis: node -> that axis; -1 where channels lie along several.
        atoms: of every parameter axis that carries channels, with what ties and freezes them.
        opaque: layer that no rule could use -> reason.
        aliases: parameter name -> the first name of the same tensor, where modules share it.
        unbiased: node that calls a module's function without a bias -> the bias that its module may be given.
        training_steps: the steps of the graph in training mode, where that has layers of its own (auxiliary heads);
            else none.
        training_only: names of the layers that only training uses.
        shared: biases that are also something else, so that what is added to them would be added elsewhere too.
        packed: attention modules that ``model`` has in parts, as they were, without weights (`core.graph.packed`).
    """

    model: nn.Module
    traced: fx.GraphModule
    inputs: tuple[Any, ...]
    layers: tuple[Layer, ...]
    steps: Mapping[fx.Node, Step]
    profiles: Mapping[fx.Node, Tensor]
    channel_axis: Mapping[fx.Node, int]
    atoms: Atoms
    opaque: Mapping[str, str]
    aliases: Mapping[str, str]
    unbiased: Mapping[fx.Node, str]
    training_steps: Mapping[fx.Node, Step]
    training_only: frozenset[str]
    shared: frozenset[str]
    packed: Mapping[str, nn.Module]

    def canonical(self, parameter: str) -> str:
        """The name under which a parameter's atoms are kept."""
        return self.aliases.get(parameter, parameter)

    def own_bias(self, layer: Layer) -> str:
        """The bias of a layer that may be changed for it; "" where there is none."""
        return "" if layer.bias in self.shared else layer.bias


def build_graph(model: nn.Module, example_inputs: Any) -> ChannelGraph:
    """Trace ``model`` and label its channels on ``example_inputs`` (a tensor or a tuple of arguments).

    The model is copied; the argument and every global random state are untouched.

    Raises:
        ModelError: the model does not run on these inputs, has non-finite weights, or cannot be traced.
    """
    inputs = as_inputs(example_inputs)
    with undisturbed(model):
        clean, packed = _unpacked(check(model, inputs), inputs)
        traced = trace(twin(clean), inputs)
        labeller = Labeller(traced, twin(clean))
        try:
            labeller.run(*inputs)
        except Exception as error:
            raise ModelError(
                f"the channels of {type(model).__name__} cannot be followed: {first_line(error)}"
            ) from error
        training = _label_training(clean, inputs, labeller)
    evaluated = labeller.layers.keys()
    return ChannelGraph(
        model=clean,
        traced=traced,
        inputs=inputs,
        layers=tuple({**training.layers, **labeller.layers}.values()),
        steps=labeller.steps,
        profiles=labeller.profiles,
        channel_axis=labeller.channel_axis,
        atoms=labeller.atoms,
        opaque={**training.opaque, **labeller.opaque},
        aliases=labeller.aliases,
        unbiased=labeller.unbiased,
        training_steps={} if training is labeller else training.steps,
        training_only=frozenset(training.layers.keys() - evaluated),
        shared=frozenset(
            name for name in labeller.uses if len(labeller.uses[name] | training.uses.get(name, set())) > 1
        ),
        packed=packed,
    )


def _unpacked(clean: nn.Module, inputs: tuple[Any, ...]) -> tuple[nn.Module, dict[str, nn.Module]]:
    """The network with its attention in parts, and the modules as they were; as it is where that changes an output."""
    parts = twin(clean)
    packed = unpack(parts)
    return (parts, packed) if packed and _alike(parts, clean, inputs) else (clean, {})


def _alike(parts: nn.Module, clean: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """Whether two networks give the same on the example inputs, and on noise where the second takes it."""
    generator = torch.Generator().manual_seed(0)
    for given in (inputs, pytree.tree_map(lambda x: _noise(x, generator), inputs)):
        wanted = found = None
        with contextlib.suppress(Exception):
            wanted = pytree.tree_leaves(twin(clean)(*given))
        with contextlib.suppress(Exception):  # of code that looks into the module that was there
            found = pytree.tree_leaves(twin(parts)(*given))
        if wanted is None:
            continue
        if (
            found is None
            or len(found) != len(wanted)
            or not all(_is_close(a, b) for a, b in zip(found, wanted, strict=True))
        ):
            return False
    return True


def _noise(x: Any, generator: torch.Generator) -> Any:
    real = isinstance(x, Tensor) and x.is_floating_point()
    return torch.randn(x.shape, generator=generator).to(x) if real else x


def _is_close(a: Any, b: Any) -> bool:
    """Whether two outputs are the same but for rounding, in half precision too."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not (b.is_floating_point() or b.is_complex()):
        return torch.equal(a, b)
    loose = max(1e-4, 8 * torch.finfo(b.dtype).eps)
    size = float(b.abs().nan_to_num(posinf=0.0).max()) if b.numel() else 0.0
    return torch.allclose(a, b, rtol=loose, atol=loose * size, equal_nan=True)


def _label_training(model: nn.Module, inputs: tuple[Any, ...], evaluated: Labeller) -> Labeller:
    """Label, with the same atoms, the graph in training mode, if the one in eval mode leaves layers out.

    Heads that only training has may need larger images than evaluation does, so these are tried too. Where none will
    do, what such a head would read is frozen. What cannot be traced in training mode is left out here; the self-check
    of the cut network sees it.
    """
    used = (*evaluated.layers, *evaluated.opaque)
    layers = [name for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    left_out = {name for name in layers if not any(name == u or name.startswith(f"{u}.") for u in used)}
    if not left_out:
        return evaluated
    try:
        traced = fx.symbolic_trace(twin(model).train())
    except Exception:
        return evaluated
    for times in (1, *LARGER):
        with contextlib.suppress(Exception):
            labeller = Labeller(traced, twin(model).train(), evaluated.atoms)
            labeller.run(*(_enlarged(twice(x), times) for x in inputs))
            return labeller
    _freeze_readers(traced, left_out, evaluated)
    return evaluated


def _enlarged(x: Any, times: int) -> Any:
    """Images (N, C, H, W) with so many times the rows and columns."""
    images = isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point()
    return x.repeat_interleave(times, 2).repeat_interleave(times, 3) if images and times > 1 else x


def _freeze_readers(training: fx.GraphModule, left_out: set[str], evaluated: Labeller) -> None:
    """Freeze what the layers ``left_out`` read in the graph in training mode, as far as evaluation computes it too."""
    graph: Any = evaluated.module.graph
    own = dict(zip(_places(graph), graph.nodes, strict=True))
    shared = dict(zip(training.graph.nodes, _places(training.graph), strict=True))
    for node in training.graph.nodes:
        inside = node.op == "call_module" and any(f"{name}.".startswith(f"{node.target}.") for name in left_out)
        pending = list(node.all_input_nodes) if inside else []
        while pending:
            source = pending.pop()
            known = own.get(shared[source])
            if known is None:
                pending.extend(source.all_input_nodes)
            elif known in evaluated.labels:
                evaluated.freeze(known, "a layer that only training uses reads it, and does not run on these inputs")


def _places(graph: fx.Graph) -> list[tuple[str, str, int]]:
    """What each node calls, and the how-manieth call of it that is: the same in two graphs of one network."""
    seen: dict[tuple[str, str], int] = {}
    found = []
    for node in graph.nodes:
        key = node.op, str(node.target)
        seen[key] = seen.get(key, 0) + 1
        found.append((*key, seen[key]))
    return found
