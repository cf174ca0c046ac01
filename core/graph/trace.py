"""From an nn.Module to a torch.fx graph whose parameters keep the module's own names.

torch.fx comes first; where its symbolic tracing fails (control flow on values), torch.export is asked. Both graphs run
on the module itself or on a cut copy of it: nodes name parameters and submodules, they do not hold them.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import random
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from core.errors import ModelError, first_line
from core.graph.attention import as_operators, restore
from core.graph.copies import deep_copy
from core.graph.within import traceable_parts
from core.plain import plain_torch


class GraphRunner(fx.Interpreter):
    """Runs a traced graph with the parameters and submodules of ``root``.

    Constants that tracing itself created live on the traced module and are looked up there. ``unbiased`` names, for
    nodes that call a module's function without a bias, the bias that the module may have got since.
    """

    def __init__(self, traced: fx.GraphModule, root: nn.Module, unbiased: Mapping[fx.Node, str] | None = None) -> None:
        super().__init__(traced)
        self.root, self.unbiased = root, unbiased or {}
        self.submodules = dict(root.named_modules())

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, and add the bias that its module has got since it was traced."""
        value = super().run_node(n)
        owner, _, leaf = self.unbiased.get(n, "").rpartition(".")
        bias = self.submodules[owner]._parameters.get(leaf) if leaf else None
        if bias is None:
            return value
        weight: Any = self.submodules[owner].weight
        return value + bias.view(-1, *[1] * (weight.dim() - 2))

    def fetch_attr(self, target: str) -> Any:
        """Return the attribute ``target`` of the root, else of the traced module."""
        return attribute(self.root, target, self.module)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call a function; sizes that tracing turned into constants follow the weights of the root."""
        return super().call_function(target, *follow_weights(target, args, kwargs))

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call the root's submodule ``target``."""
        return self.submodules[target](*args, **kwargs)


def follow_weights(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Bring a norm's shape and a depthwise convolution's groups in line with the (cut) weight beside them."""
    name = getattr(target, "__name__", "").split(".")[0]
    weight = kwargs.get("weight", args[2] if len(args) > 2 else None)
    if name in ("layer_norm", "rms_norm") and isinstance(weight, Tensor):
        if "normalized_shape" in kwargs:
            return args, {**kwargs, "normalized_shape": tuple(weight.shape)}
        return (args[0], tuple(weight.shape), *args[2:]), kwargs
    if name == "group_norm" and len(args) > 1:  # groups of one channel each
        return (args[0], min(args[1], args[0].shape[1]), *args[2:]), kwargs
    if name in ("conv1d", "conv2d", "conv3d") and len(args) > 1 and args[1].shape[1] == 1:
        groups = args[0].shape[1 - args[1].dim()]  # one in-channel each
        if len(args) > 6 and args[6] > 1:
            return (*args[:6], groups, *args[7:]), kwargs
        if kwargs.get("groups", 1) > 1:
            return args, {**kwargs, "groups": groups}
    return args, kwargs


def attribute(root: nn.Module, target: str, fallback: nn.Module | None = None) -> Any:
    """Return the nested attribute ``a.b.c`` of ``root``, else of ``fallback``.

    Raises:
        AttributeError: neither has it.
    """
    value: Any = root
    try:
        for part in target.split("."):
            value = getattr(value, part)
    except AttributeError:
        if fallback is None:
            raise AttributeError(target) from None
        return attribute(fallback, target)
    return value


def as_inputs(example_inputs: Any) -> tuple[Any, ...]:
    """Return the example inputs as the tuple of positional arguments of ``forward``."""
    return tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)


def trace(model: nn.Module, inputs: tuple[Any, ...]) -> fx.GraphModule:
    """Trace ``model`` (in eval mode) into a graph module.

    Raises:
        ModelError: neither torch.fx nor torch.export can trace it; the message names the line that stopped each, and a
            part of it that can be compressed instead.
    """
    try:
        return fx.symbolic_trace(model, concrete_args=_left_out(model, inputs))
    except Exception as error:
        fx_reason = _reason(error)
    try:
        return _export(model, inputs)
    except Exception as error:
        part = traceable_parts(twin(model), inputs)
        other = f"or wrap it with torch.fx.wrap; {part}." if part else "or wrap it with torch.fx.wrap."
        raise ModelError(
            f"{type(model).__name__} cannot be traced. torch.fx: {fx_reason}. torch.export: {_reason(error)}. "
            f"Remove the control flow that depends on values from forward(), {other}"
        ) from None


def _export(model: nn.Module, inputs: tuple[Any, ...]) -> fx.GraphModule:
    inputs = tuple(twice(x) for x in inputs)
    dynamic = [{0: torch.export.Dim.AUTO} if isinstance(x, Tensor) and x.dim() else None for x in inputs]
    with silence(), as_operators():  # torch shows the whole graph where it fails
        exported = torch.export.export(model, inputs, dynamic_shapes=tuple(dynamic), strict=False)
    module = exported.module()
    assert isinstance(module, fx.GraphModule)
    restore(module.graph)
    for node in [n for n in module.graph.nodes if n.op == "call_module"]:  # checks of the example's shapes
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    return module


def _left_out(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Any] | None:
    """Arguments of ``forward`` that are not given and default to None: their branches are decided while tracing."""
    names = list(inspect.signature(model.forward).parameters.values())[len(inputs) :]
    return {p.name: None for p in names if p.default is None} or None


def twice(x: Any) -> Any:
    """A batch of one as a batch of two: export would take the size 1 for a constant."""
    return torch.cat([x, x]) if isinstance(x, Tensor) and x.dim() > 0 and len(x) == 1 else x


def _reason(error: Exception) -> str:
    """One line: the message's first line, and the last line of user code that was running."""
    text = first_line(error)
    inside = ("/torch/", "/core/graph/")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(part in f.filename for part in inside)]
    where = f" at {frames[-1].filename}:{frames[-1].lineno} `{frames[-1].line}`" if frames else ""
    return f"{text.rstrip('.')}{where}"


def check(model: nn.Module, inputs: tuple[Any, ...]) -> nn.Module:
    """Return an eval-mode copy of ``model``, after another copy has been seen to run on ``inputs``.

    The copy that is returned has never run, so whatever a network counts while it runs is as it was.

    Raises:
        ModelError: the model is scripted, compiled, wrapped or without values, its weights are not finite, model and
            inputs are on different devices, or the model rejects the inputs.
    """
    _refuse_wrappers(model)
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise ModelError("the model has lazy layers without weights; run it once on an input first")
    for name, value in _plain_tensors(model).items():
        if value.is_meta:
            raise ModelError(f"the model's weight {name!r} is on the meta device, without values; load a checkpoint")
        if value.is_floating_point() and not is_finite(value):
            raise ModelError(f"the model's weight {name!r} has NaN or infinite values; load a sound checkpoint")
    devices = {p.device for p in model.parameters()}
    given = {x.device for x in pytree.tree_leaves(inputs) if isinstance(x, Tensor)}
    if devices and given and devices != given:
        raise ModelError(
            f"the model is on {_names(devices)} and the example inputs on {_names(given)}; move both to one device"
        )
    try:
        clean = duplicate(model).eval()
    except Exception as error:
        raise ModelError(f"{type(model).__name__} cannot be copied: {first_line(error)}") from None
    try:
        with torch.no_grad():
            twin(clean)(*inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs if isinstance(x, Tensor))
        raise ModelError(
            f"{type(model).__name__} does not run on example inputs of shape {shapes}: {first_line(error)}; "
            "pass inputs (N, C, H, W) as the model takes them"
        ) from None
    return clean


def _refuse_wrappers(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError("the model is scripted, so its code cannot be followed; pass the module it was made from")
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise ModelError(f"the model is wrapped in {type(model).__name__}; pass model.module")
    if hasattr(model, "_orig_mod"):
        raise ModelError("the model is compiled; pass model._orig_mod")


def duplicate(model: nn.Module) -> nn.Module:
    """A deep copy; tensors that hooks computed (weight norm, pruning masks) are copied by value."""
    return deep_copy(model, _computed(model))


def separate(model: nn.Module, other: nn.Module) -> nn.Module:
    """The same, but of the parameters only those are copied that ``model`` has in common with ``other``."""
    theirs = {id(p) for p in other.parameters()}
    return deep_copy(model, {id(p): p for p in model.parameters() if id(p) not in theirs} | _computed(model))


def _computed(model: nn.Module) -> dict[int, Any]:
    values = [v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor) and v.grad_fn is not None]
    return {id(value): value.detach().clone() for value in values}


def twin(model: nn.Module) -> nn.Module:
    """A copy to run: it shares the parameters, and has its own buffers and plain attributes."""
    return deep_copy(model, {id(p): p for p in model.parameters()})


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Nothing on stderr and nothing logged."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Work without gradients, autocast or inference mode, in plain torch, and leave every random state as it was."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    states = random.getstate(), np.random.get_state()
    try:
        with (
            torch.random.fork_rng(devices),
            plain_torch(),
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False) if devices else contextlib.nullcontext(),
        ):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict's tensors; packed weights of quantised layers are something else and left out."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def is_finite(value: Tensor) -> bool:
    """Whether all numbers are finite: a finite sum says so at once, an infinite one may have overflowed."""
    return bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())


def _names(devices: set[torch.device]) -> str:
    return " and ".join(sorted(str(d) for d in devices))
