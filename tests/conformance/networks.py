"""The networks of the conformance table, and an oracle that counts what a cut must leave.

The oracle knows nothing of channel sets: it runs the *original* network with every removed channel set to NaN and sees
where the NaNs arrive. What reaches a layer as NaN must be missing from its weight; what it computes from the rest must
be what the compressed network computes.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from core.models import MODELS, load_model

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.ConvTranspose2d)
WINDOWED = (
    torchvision.models.swin_transformer.ShiftedWindowAttention,
    torchvision.models.maxvit.RelativePositionalMultiHeadAttention,
)
PREFIX = "torchvision:"


@dataclass(frozen=True)
class Network:
    """One row: a name that `load_model` knows, and the side of its images.

    Attributes:
        native: side of the images it was designed for.
        small: a side that is enough to run every layer of it.
        light: quick enough for the default test run.
        sibling: of a family that another network of the table stands for where time counts.
        scaled: builds it for small images (num_classes → network), where `load_model` has no way to say so.
    """

    name: str
    native: int = 224
    small: int = 64
    light: bool = False
    sibling: bool = False
    scaled: Callable[..., nn.Module] | None = None

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        """When tests of it run."""
        if self.light:
            return []
        return [pytest.mark.slow, *([pytest.mark.exhaustive] if self.sibling else [])]

    def build(self, *, native: bool = False, num_classes: int = 10) -> nn.Module:
        """The network with random weights, in eval mode."""
        if native or self.scaled is None:
            return load_model(self.name, num_classes=num_classes, in_channels=3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.scaled(num_classes=num_classes).eval()

    def images(self, count: int = 2, *, native: bool = False) -> Tensor:
        """Random images (count, 3, side, side)."""
        side = self.native if native else self.small
        return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def _small_maxvit(num_classes: int) -> nn.Module:
    """``maxvit_t`` with windows of 2×2 instead of 7×7, for images of 64 pixels."""
    shape = {"stem_channels": 64, "block_channels": [64, 128, 256, 512], "block_layers": [2, 2, 5, 2], "head_dim": 32}
    net: nn.Module = torchvision.models.MaxVit(
        input_size=(64, 64), partition_size=2, stochastic_depth_prob=0.2, num_classes=num_classes, **shape
    )
    return net


def _vision(name: str, **values: Any) -> Network:
    return Network(PREFIX + name, **values)


TABLE: tuple[Network, ...] = (
    _vision("alexnet"),
    _vision("vgg11", small=32, sibling=True),
    _vision("vgg16_bn", small=32),
    _vision("resnet18", light=True),
    _vision("resnet34", sibling=True),
    _vision("resnet50"),
    _vision("wide_resnet50_2", sibling=True),
    _vision("resnext50_32x4d", sibling=True),
    _vision("densenet121"),
    _vision("densenet169", sibling=True),
    _vision("googlenet"),
    _vision("inception_v3", native=299, small=96),
    _vision("squeezenet1_0"),
    _vision("squeezenet1_1", light=True),
    _vision("mobilenet_v2", light=True),
    _vision("mobilenet_v3_small", light=True),
    _vision("mobilenet_v3_large", sibling=True),
    _vision("mnasnet0_5"),
    _vision("mnasnet1_0", sibling=True),
    _vision("shufflenet_v2_x0_5", light=True),
    _vision("shufflenet_v2_x1_0", sibling=True),
    _vision("efficientnet_b0"),
    _vision("efficientnet_v2_s", sibling=True),
    _vision("regnet_x_400mf", light=True),
    _vision("regnet_y_400mf"),
    _vision("regnet_y_800mf", sibling=True),
    _vision("convnext_tiny"),
    _vision("vit_b_16", small=32, scaled=partial(torchvision.models.vit_b_16, image_size=32)),
    _vision("swin_t"),
    _vision("swin_v2_t", sibling=True),
    _vision("maxvit_t", scaled=_small_maxvit),
    Network("lenet-300-100", native=28, small=28, light=True),
    Network("vgg-small", native=28, small=28, light=True),
    Network("vgg16", native=32, small=32),
    Network("resnet20", native=32, small=16, light=True),
    Network("resnet56", native=32, small=16),
    Network("wrn-40-4", native=32, small=16),
)
BY_NAME = {network.name.removeprefix(PREFIX): network for network in TABLE}
REGISTERED = {network.name for network in TABLE} & set(MODELS.names())


def settle(model: nn.Module, images: Tensor) -> nn.Module:
    """Give every batch norm the statistics of ``images`` and uneven γ, β, so that no layer's output is constant."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if not bool(parameter.any()):  # zeros at the start of training would hide what lies before them
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.weight.data = 0.5 + torch.rand(norm.num_features, generator=generator).to(norm.weight)
        norm.bias.data = 0.2 * torch.randn(norm.num_features, generator=generator).to(norm.bias)
        norm.train()
    with torch.no_grad():
        model(images)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


@dataclass
class Oracle:
    """What the cut must leave: shapes and outputs, found by running the original with NaN for what is gone."""

    shapes: dict[str, tuple[int, ...]]
    """parameter name -> expected shape."""
    rows: dict[str, list[int]]
    """layer -> its surviving rows."""
    output: Any = None


def mask(original: nn.Module, cut: nn.Module, images: Tensor) -> Oracle:
    """Run ``original`` as if it had been cut like ``cut`` (its weights must be the original's, only fewer).

    Only the number and content of each layer's rows are taken from ``cut``; which columns must be gone everywhere, and
    what every norm works on, follows from the NaNs.
    """
    original = copy.deepcopy(original)
    found = Oracle({name: tuple(p.shape) for name, p in original.named_parameters()}, {})
    with contextlib.ExitStack() as stack:
        for name, module in original.named_modules():
            replacement = _replacement(name, module, cut, found)
            if replacement is not None:
                stack.enter_context(_forward(module, replacement))
        with torch.no_grad():
            found.output = original(images)
    return found


@contextlib.contextmanager
def _forward(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    module.forward = forward
    yield
    del module.forward


def _replacement(name: str, module: nn.Module, cut: nn.Module, found: Oracle) -> Callable[[Tensor], Tensor] | None:
    if name.endswith(("self_attention.out_proj", ".qkv", ".to_qkv")):
        return None  # its weight is a parameter of a function, or of the module around it
    if isinstance(module, nn.MultiheadAttention):
        return lambda x, *_, **__: (_attention(name, module, cut.get_submodule(name), x, found), None)
    if isinstance(module, WINDOWED):
        return lambda x: _within_windows(name, module, cut.get_submodule(name), x, found)
    if isinstance(module, LAYERS):
        other = cut.get_submodule(name)
        axis = -1 if isinstance(module, nn.Linear) else 1
        return lambda x: _layer(name, module, other, x, axis, found)
    if isinstance(module, nn.LayerNorm):
        axis = 1 if isinstance(module, torchvision.models.convnext.LayerNorm2d) else -1
        return lambda x: _norm(name, module, x, axis, found)
    if isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm)):
        return lambda x: _norm(name, module, x, 1, found)
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return lambda x: _norm(name, module, x, 1, found)
    if isinstance(module, torchvision.models.convnext.CNBlock):
        return lambda x: _scaled_block(name, module, x, found)
    if isinstance(module, (nn.ReLU6, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh)):  # these map NaN to a number
        plain = type(module)()
        return lambda x: torch.where(x.isnan(), x, plain(x.clone()))
    return None


def survivors(x: Tensor, axis: int) -> Tensor:
    """Indices along ``axis`` whose values are no NaN; a channel is NaN everywhere or nowhere."""
    gone = x.isnan().movedim(axis, 0).flatten(1)
    assert torch.equal(gone.all(1), gone.any(1)), "a channel is gone at some places and not at others"
    return (~gone.any(1)).nonzero().flatten()


def _layer(name: str, module: Any, cut: Any, x: Tensor, axis: int, found: Oracle) -> Tensor:
    left = survivors(x, axis)
    transposed = isinstance(module, nn.ConvTranspose2d)
    weight, other = module.weight.detach(), cut.weight.detach()
    if transposed:
        weight, other = weight.transpose(0, 1), other.transpose(0, 1)
    groups = getattr(module, "groups", 1)
    y = type(module).forward(module, torch.nan_to_num(x, nan=0.0))
    columns, inside = _columns(left, weight, groups)
    rows = _rows(weight, other, columns, groups, name)
    depthwise = groups > 1 and weight.shape[1] == 1 and len(weight) == groups
    if depthwise:
        assert rows == left.tolist(), f"{name}: the filters do not follow their channels"
    shape = (len(rows), inside, *weight.shape[2:])
    found.shapes[f"{name}.weight"] = (shape[1], shape[0], *shape[2:]) if transposed else shape
    if module.bias is not None:
        found.shapes[f"{name}.bias"] = (len(rows),)
    assert found.rows.setdefault(name, rows) == rows, f"{name}: used twice, cut differently"
    return _only(y, rows, axis)


def _attention(name: str, module: Any, cut: Any, x: Tensor, found: Oracle) -> Tensor:
    """Self-attention, head by head, with the rows of the three projections that the cut network still has."""
    every, head, kept = [torch.arange(x.shape[-1])], module.head_dim, []
    values = F.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)
    for part, weight in zip("qkv", module.in_proj_weight.detach().chunk(3), strict=True):
        own = getattr(cut, f"{part}_proj").weight.detach()
        rows = torch.tensor(_rows(weight, own, every, 1, f"{name}.{part}_proj"))
        found.rows[f"{name}.{part}_proj"] = rows.tolist()
        found.shapes |= {
            f"{name}.{part}_proj.weight": (len(rows), x.shape[-1]),
            f"{name}.{part}_proj.bias": (len(rows),),
        }
        kept.append([rows[rows // head == h] for h in range(module.num_heads)])
        assert len({len(part) for part in kept[-1]}) == 1, "heads lose unequal numbers of channels"
    del found.shapes[f"{name}.in_proj_weight"], found.shapes[f"{name}.in_proj_bias"]
    assert found.rows[f"{name}.q_proj"] == found.rows[f"{name}.k_proj"], "queries and keys lose different channels"
    mixed = torch.full_like(x, torch.nan)
    for pair, of_value in zip(kept[0], kept[2], strict=True):
        q, k, v = (y[..., rows] for y, rows in zip(values, (pair, pair, of_value), strict=True))
        mixed[..., of_value] = (q @ k.mT / head**0.5).softmax(-1) @ v
    return _layer(f"{name}.out_proj", module.out_proj, cut.out_proj, mixed, -1, found)


def _within_windows(name: str, module: Any, cut: Any, x: Tensor, found: Oracle) -> Tensor:
    """The module's own attention, with zeros for the rows of queries, keys and values that the cut network lacks."""
    module = copy.deepcopy(module)
    packed, out = ("qkv", "proj") if hasattr(module, "qkv") else ("to_qkv", "merge")
    whole, reader, left, kept = getattr(module, packed), getattr(module, out), survivors(x, -1), {}
    for part in (module, whole, reader):
        part.__dict__.pop("forward", None)
    heads = len(module.relative_position_bias_table[0]) if not hasattr(module, "cpb_mlp") else module.num_heads
    for part, weight, bias in zip("qkv", whole.weight.data.chunk(3), whole.bias.data.chunk(3), strict=True):
        own = getattr(cut, f"{part}_proj")
        kept[part] = rows = _rows(weight, own.weight.detach(), [left] * len(weight), 1, f"{name}.{part}_proj")
        found.shapes[f"{name}.{part}_proj.weight"] = (len(rows), len(left))
        if own.bias is not None:
            found.shapes[f"{name}.{part}_proj.bias"] = (len(rows),)
        assert len({sum(row * heads // len(weight) == h for row in rows) for h in range(heads)}) == 1
        gone = [row for row in range(len(weight)) if row not in rows]
        weight[gone], bias[gone] = 0, 0
        found.rows[f"{name}.{part}_proj"] = rows
    assert kept["q"] == kept["k"]
    del found.shapes[f"{name}.{packed}.weight"], found.shapes[f"{name}.{packed}.bias"]
    rows = _rows(reader.weight.detach(), getattr(cut, out).weight.detach(), [torch.tensor(kept["v"])], 1, name)
    found.shapes |= {f"{name}.{out}.weight": (len(rows), len(kept["v"])), f"{name}.{out}.bias": (len(rows),)}
    found.rows[f"{name}.{out}"] = rows
    return _only(module(torch.nan_to_num(x, nan=0.0)), rows, -1)


def _columns(left: Tensor, weight: Tensor, groups: int) -> tuple[list[Tensor], int]:
    """The surviving columns of each group's rows, and how many; as many in every group."""
    each = weight.shape[1]
    if each == 1 and len(weight) == groups:
        return [torch.zeros(1, dtype=torch.long)] * groups, 1
    parts = [left[(left >= g * each) & (left < (g + 1) * each)] - g * each for g in range(groups)]
    assert len({len(part) for part in parts}) == 1, "groups lose unequal numbers of channels"
    return parts, len(parts[0])


def _rows(weight: Tensor, cut: Tensor, columns: list[Tensor], groups: int, name: str) -> list[int]:
    """The original row that each row of ``cut`` is; its values must be the original's at the surviving columns."""
    size = len(weight) // groups
    known: dict[bytes, list[int]] = {}
    for row in range(len(weight) - 1, -1, -1):
        part = weight[row].index_select(0, columns[row // size]).contiguous()
        known.setdefault(part.numpy().tobytes(), []).append(row)
    rows = []
    for row in cut:
        same = known.get(row.contiguous().numpy().tobytes())
        assert same, f"{name}: a row of the cut weight is none of the original's on the surviving columns"
        rows.append(same.pop())
    assert rows == sorted(rows), f"{name}: rows are not in the original's order"
    return rows


def _only(y: Tensor, rows: list[int], axis: int) -> Tensor:
    out = torch.full_like(y, torch.nan)
    index = torch.tensor(rows)
    return out.index_copy_(axis, index, y.index_select(axis, index))


def _norm(name: str, module: Any, x: Tensor, axis: int, found: Oracle) -> Tensor:
    left = survivors(x, axis)
    small = copy.deepcopy(module)
    small.__dict__.pop("forward", None)
    if isinstance(module, nn.LayerNorm):
        small.normalized_shape = (len(left),)
    if isinstance(module, nn.GroupNorm):
        small.num_channels = len(left)
        small.num_groups = len(left) if module.num_groups == module.num_channels else module.num_groups
    if isinstance(module, nn.modules.batchnorm._NormBase):
        small.num_features = len(left)
    for key in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(module, key, None)
        if value is None:
            continue
        setattr(small, key, nn.Parameter(value[left]) if isinstance(value, nn.Parameter) else value[left])
        if isinstance(value, nn.Parameter):
            found.shapes[f"{name}.{key}"] = (len(left),)
    y = small(x.index_select(axis, left))
    return torch.full_like(x, torch.nan).index_copy_(axis, left, y)


def _scaled_block(name: str, module: Any, x: Tensor, found: Oracle) -> Tensor:
    found.shapes[f"{name}.layer_scale"] = (len(survivors(x, 1)), 1, 1)
    y: Tensor = type(module).forward(module, x)
    return y
