"""From an nn.Module to a torch.fx graph whose parameters keep the module's own names.

torch.fx comes first; where its symbolic tracing fails (control flow on values), torch.export is asked. Both graphs run
on the module itself or on a cut copy of it: nodes name parameters and submodules, they do not hold them.
"""

from __future__ import annotations

import copy
import inspect
import traceback
from typing import Any

import torch
from torch import Tensor, fx, nn

from core.errors import ModelError


class GraphRunner(fx.Interpreter):
    """Runs a traced graph with the parameters and submodules of ``root``.

    Constants that tracing itself created live on the traced module and are looked up there.
    """

    def __init__(self, traced: fx.GraphModule, root: nn.Module) -> None:
        super().__init__(traced)
        self.root = root
        self.submodules = dict(root.named_modules())

    def fetch_attr(self, target: str) -> Any:
        """Return the attribute ``target`` of the root, else of the traced module."""
        return attribute(self.root, target, self.module)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call a function; sizes that tracing turned into constants follow the weights of the root."""
        return super().call_function(target, follow_weights(target, args), kwargs)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call the root's submodule ``target``."""
        return self.submodules[target](*args, **kwargs)


def follow_weights(target: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Bring a layer norm's shape and a depthwise convolution's groups in line with the (cut) weight beside them."""
    name = getattr(target, "__name__", "").split(".")[0]
    if name == "layer_norm" and len(args) > 2 and args[2] is not None:
        return (args[0], tuple(args[2].shape), *args[2:])
    if name in ("conv1d", "conv2d", "conv3d") and len(args) > 6 and args[6] > 1 and args[1].shape[1] == 1:
        return (*args[:6], args[1].shape[0], *args[7:])
    return args


def attribute(root: nn.Module, target: str, fallback: nn.Module | None = None) -> Any:
    """Return the nested attribute ``a.b.c`` of ``root``, else of ``fallback``."""
    value: Any = root
    for part in target.split("."):
        if not hasattr(value, part):
            if fallback is None:
                raise AttributeError(target)
            return attribute(fallback, target)
        value = getattr(value, part)
    return value


def as_inputs(example_inputs: Any) -> tuple[Any, ...]:
    """Return the example inputs as the tuple of positional arguments of ``forward``."""
    return tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)


def trace(model: nn.Module, inputs: tuple[Any, ...]) -> fx.GraphModule:
    """Trace ``model`` (in eval mode) into a graph module.

    Raises:
        ModelError: neither torch.fx nor torch.export can trace it; the message names the line that stopped each.
    """
    try:
        return fx.symbolic_trace(model, concrete_args=_left_out(model, inputs))
    except Exception as error:
        fx_reason = _reason(error)
    try:
        return _export(model, inputs)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be traced. torch.fx: {fx_reason}. torch.export: {_reason(error)}. "
            "Remove the control flow that depends on values from forward(), or wrap it with torch.fx.wrap."
        ) from None


def _export(model: nn.Module, inputs: tuple[Any, ...]) -> fx.GraphModule:
    inputs = tuple(_twice(x) for x in inputs)
    dynamic = [{0: torch.export.Dim.AUTO} if isinstance(x, Tensor) and x.dim() else None for x in inputs]
    exported = torch.export.export(model, inputs, dynamic_shapes=tuple(dynamic), strict=False)
    module = exported.module()
    assert isinstance(module, fx.GraphModule)
    for node in [n for n in module.graph.nodes if n.op == "call_module"]:  # checks of the example's shapes
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    return module


def _left_out(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Any] | None:
    """Arguments of ``forward`` that are not given and default to None: their branches are decided while tracing."""
    names = list(inspect.signature(model.forward).parameters.values())[len(inputs) :]
    return {p.name: None for p in names if p.default is None} or None


def _twice(x: Any) -> Any:
    """A batch of one as a batch of two: export would take the size 1 for a constant."""
    return torch.cat([x, x]) if isinstance(x, Tensor) and x.dim() > 0 and len(x) == 1 else x


def _reason(error: Exception) -> str:
    """One line: the message's first line, and the last line of user code that was running."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    inside = ("/torch/", "/core/graph/")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(part in f.filename for part in inside)]
    where = f" at {frames[-1].filename}:{frames[-1].lineno} `{frames[-1].line}`" if frames else ""
    return f"{text.rstrip('.')}{where}"


def check(model: nn.Module, inputs: tuple[Any, ...]) -> nn.Module:
    """Return an eval-mode copy of ``model`` that has been seen to run on ``inputs``.

    Raises:
        ModelError: weights are not finite, model and inputs are on different devices, or the model rejects the inputs.
    """
    if isinstance(model, nn.DataParallel):
        raise ModelError("the model is wrapped in DataParallel; pass model.module")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise ModelError("the model has lazy layers without weights; run it once on an input first")
    for name, value in _plain_tensors(model).items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"the model's weight {name!r} has NaN or infinite values; load a sound checkpoint")
    devices = {p.device for p in model.parameters()}
    given = {x.device for x in inputs if isinstance(x, Tensor)}
    if devices and given and devices != given:
        raise ModelError(
            f"the model is on {_names(devices)} and the example inputs on {_names(given)}; move both to one device"
        )
    try:
        clean = copy.deepcopy(model).eval()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{type(model).__name__} cannot be copied: {reason}; remove weight norm or hooks first"
        ) from None
    try:
        with torch.no_grad():
            clean(*inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs if isinstance(x, Tensor))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{type(model).__name__} does not run on example inputs of shape {shapes}: {reason}; "
            "pass inputs (N, C, H, W) as the model takes them"
        ) from None
    return clean


def _plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict's tensors; packed weights of quantised layers are something else and left out."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _names(devices: set[torch.device]) -> str:
    return " and ".join(sorted(str(d) for d in devices))
