"""Packed attention modules: taken apart so that their heads can be cut, and put together again where nothing was."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from core.graph.attention import SplitAttention, SplitEncoderAttention, SplitMultiheadAttention, SplitSelfAttention
from core.graph.copies import deep_copy
from core.graph.windows import SplitRelativeAttention, SplitWindowAttention

TIMM = frozenset({"timm.layers.attention.Attention", "timm.models.vision_transformer.Attention"})
SWIN = frozenset(f"torchvision.models.swin_transformer.ShiftedWindowAttention{version}" for version in ("", "V2"))
MAXVIT = "torchvision.models.maxvit.RelativePositionalMultiHeadAttention"
TIMM_PARTS = frozenset({"qkv", "q_norm", "k_norm", "attn_drop", "norm", "gate", "proj", "proj_drop"})
TRANSFORMERS = frozenset({"vit.ViT", "deit.DeiT", "dinov2.Dinov2", "vit_msn.ViTMSN"})
"""Architectures of transformers whose attention is ``models.NAME.modeling_NAME.CLASSAttention``."""
PARTS = ("q_proj", "k_proj", "v_proj")
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def in_parts(model: nn.Module, tensors: Mapping[str, Tensor]) -> set[str]:
    """Names of the attention modules that a network saved as ``tensors`` has in parts, and ``model`` has whole.

    Those of transformers have the same names whole; they are in parts where their widths are other ones.
    """
    whole = dict(model.named_parameters(remove_duplicate=False))
    found = set()
    for name, value in tensors.items():
        owner, _, part = name.removesuffix(".weight").rpartition(".")
        if part in PARTS and all(f"{owner}.{other}.weight" in tensors for other in PARTS):
            found |= {owner} if name not in whole or whole[name].shape != value.shape else set()
    return found


def unpack(model: nn.Module, names: Collection[str] | None = None) -> dict[str, nn.Module]:
    """Put a `SplitAttention` in the place of each packed attention module of ``model`` that is known, in place.

    Modules that other code of torch's looks into, that several places share, or that have hooks or weights in common
    with others stay as they are.

    Args:
        model: the network.
        names: only these; None: all.

    Returns:
        The packed modules by name, without their weights.
    """
    found: dict[str, nn.Module] = {}
    places: dict[int, int] = {}
    for _, value in (*model.named_modules(remove_duplicate=False), *model.named_parameters(remove_duplicate=False)):
        places[id(value)] = places.get(id(value), 0) + 1
    for name, module in list(model.named_modules()):
        parent = model.get_submodule(name.rpartition(".")[0])
        inside = type(parent).__module__.startswith("torch.nn") and not isinstance(parent, CONTAINERS)
        parts = (*module.modules(), *module.parameters())
        if not name or inside or (names is not None and name not in names) or not _is_plain(module):
            continue
        split = None if any(places.get(id(part), 1) > 1 for part in parts) else _split(module)
        if split is not None:
            parent._modules[name.rpartition(".")[2]] = split.train(module.training)
            found[name] = _hollow(module)
    return found


def pack(model: nn.Module, packed: Mapping[str, nn.Module]) -> None:
    """Put the ``packed`` modules that `unpack` gave back in their places, in place, where every width is as it was."""
    for name, original in packed.items():
        split = model.get_submodule(name)
        if isinstance(split, SplitAttention) and (module := _packed(split, original)) is not None:
            model.get_submodule(name.rpartition(".")[0])._modules[name.rpartition(".")[2]] = module.train(
                split.training
            )


def _is_plain(module: nn.Module) -> bool:
    """Whether nothing hangs on a module and its parts: hooks, parametrizations, a forward of its own."""
    for part in module.modules():
        hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
        if any(hooks) or hasattr(part, "parametrizations") or "forward" in vars(part):
            return False
    return True


def _split(module: nn.Module) -> SplitAttention | None:
    """What computes the same as a packed module; None for one of a kind that is not known."""
    if type(module) is nn.MultiheadAttention:
        return _of_torch(module)
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    if kind in TIMM:
        return _of_timm(module)
    if kind in SWIN:
        return _of_swin(module)
    if kind == MAXVIT:
        return _of_maxvit(module)
    return _of_transformers(module) if kind in _ENCODERS else None


def _of_torch(module: nn.MultiheadAttention) -> SplitAttention | None:
    if module.bias_k is not None or module.bias_v is not None or module.add_zero_attn:
        return None
    if module._qkv_same_embed_dim:
        weights = module.in_proj_weight.chunk(3)
    else:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    biases = (None, None, None) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    out = _linear(module.out_proj.weight, module.out_proj.bias)
    q, k, v = (_linear(w, b) for w, b in zip(weights, biases, strict=True))
    numbers = {"scale": float(module.head_dim) ** -0.5, "dropout": float(module.dropout)}
    split = SplitMultiheadAttention(q, k, v, out, heads=module.num_heads, **numbers)
    split.batch_first = module.batch_first
    return split


def _of_timm(module: nn.Module) -> SplitAttention | None:
    parts = dict(module.named_children())
    known = parts.keys() <= TIMM_PARTS and not module._parameters and not module._buffers
    between = [parts.get(name) for name in ("q_norm", "k_norm", "norm")]
    bare = all(part is None or type(part) is nn.Identity for part in between) and parts.get("gate") is None
    linear = type(parts.get("qkv")) is nn.Linear and type(parts.get("proj")) is nn.Linear
    drops = [parts.get(name) for name in ("attn_drop", "proj_drop")]
    if not (known and bare and linear and all(type(drop) is nn.Dropout for drop in drops)):
        return None
    qkv, proj = cast(nn.Linear, parts["qkv"]), cast(nn.Linear, parts["proj"])
    biases = (None, None, None) if qkv.bias is None else qkv.bias.chunk(3)
    q, k, v = (_linear(w, b) for w, b in zip(qkv.weight.chunk(3), biases, strict=True))
    inside, behind = (cast(nn.Dropout, drop).p for drop in drops)
    heads, numbers = int(cast(int, module.num_heads)), {"scale": float(cast(float, module.scale)), "dropout": inside}
    split = SplitSelfAttention(q, k, v, _linear(proj.weight, proj.bias), heads=heads, **numbers)
    split.out_drop = behind
    return split


def _of_swin(module: Any) -> SplitAttention | None:
    parts = dict(module.named_children())
    own, silent = {"qkv", SplitWindowAttention.out}, None
    if parts.keys() - {"cpb_mlp"} != own or any(type(parts[name]) is not nn.Linear for name in own):
        return None
    biases = [None, None, None] if module.qkv.bias is None else list(module.qkv.bias.chunk(3))
    if hasattr(module, "logit_scale") and biases[1] is not None:
        silent, biases[1] = biases[1].detach().clone(), None
    q, k, v = (_linear(w, b) for w, b in zip(module.qkv.weight.chunk(3), biases, strict=True))
    numbers = {"scale": (module.proj.in_features // module.num_heads) ** -0.5, "dropout": module.attention_dropout}
    out = _linear(module.proj.weight, module.proj.bias)
    split = SplitWindowAttention(q, k, v, out, heads=module.num_heads, **numbers)
    split.size, split.shift, split.out_drop = tuple(module.window_size), tuple(module.shift_size), module.dropout
    split.silent = silent
    return _with_rest_of(module, split, own)


def _of_maxvit(module: Any) -> SplitAttention | None:
    parts = dict(module.named_children())
    own = {SplitRelativeAttention.packed_as, SplitRelativeAttention.out}
    if parts.keys() != own or any(type(part) is not nn.Linear for part in parts.values()):
        return None
    q, k, v = (_linear(w, b) for w, b in zip(module.to_qkv.weight.chunk(3), module.to_qkv.bias.chunk(3), strict=True))
    out = _linear(module.merge.weight, module.merge.bias)
    split = SplitRelativeAttention(q, k, v, out, heads=module.n_heads, scale=module.scale_factor)
    split.size = (module.size, module.size)
    return _with_rest_of(module, split, own)


def _with_rest_of(module: nn.Module, split: SplitAttention, own: Collection[str]) -> SplitAttention:
    """Give ``split`` what else a module has beside its ``own`` layers: parameters and buffers by the same names."""
    for name, value in module._parameters.items():
        copied = None if value is None else nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
        split.register_parameter(name, copied)
    for name, buffer in module._buffers.items():
        split.register_buffer(name, buffer, persistent=name not in module._non_persistent_buffers_set)
    for name, part in module.named_children():
        if name not in own:
            split.add_module(name, copy.deepcopy(part))
    return split


_ENCODERS = {
    f"transformers.models.{place}.modeling_{place}.{name}Attention"
    for place, name in (known.split(".") for known in TRANSFORMERS)
}


def _of_transformers(module: nn.Module) -> SplitAttention | None:
    parts, known = dict(module.named_children()), (*PARTS, SplitEncoderAttention.out)
    config: Any = getattr(module, "config", None)
    if parts.keys() != {*known} or any(type(part) is not nn.Linear for part in parts.values()):
        return None
    if getattr(config, "_attn_implementation", "") not in ("eager", "sdpa") or getattr(module, "is_causal", True):
        return None
    q, k, v, out = (_linear(part.weight, part.bias) for part in (cast(nn.Linear, parts[name]) for name in known))
    numbers: Any = module
    heads, scale, share = int(numbers.num_attention_heads), float(numbers.scaling), float(numbers.attention_dropout)
    split = SplitEncoderAttention(q, k, v, out, heads=heads, scale=scale, dropout=share)
    split.config = config
    return split


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with these numbers, in memory of its own, that train if they did."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    for name, value in (("weight", weight), ("bias", bias)):
        own = None if value is None else nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
        layer._parameters[name] = own
    return layer


def _hollow(module: nn.Module) -> nn.Module:
    """The module itself, its parameters without numbers."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                empty = torch.empty_like(value, device="meta")
                part._parameters[name] = nn.Parameter(empty, requires_grad=value.requires_grad)
    return module


def _packed(split: SplitAttention, original: nn.Module) -> nn.Module | None:
    """The ``original`` with the weights of ``split``; None where they do not fit into it."""
    shared = getattr(original, "config", None)  # all modules of a network have one
    module = deep_copy(original, {} if shared is None else {id(shared): split.config})
    for name, value in _joined(split, module).items():
        owner, _, leaf = name.rpartition(".")
        held = module.get_submodule(owner)._parameters
        old = held.get(leaf)
        if value is None and old is None:
            continue
        if value is None or (old is not None and old.shape != value.shape) or (old is None and owner == ""):
            return None
        held[leaf] = nn.Parameter(
            value.detach(), requires_grad=value.requires_grad if old is None else old.requires_grad
        )
    return module


def _joined(split: SplitAttention, module: nn.Module) -> dict[str, Tensor | None]:
    """The weights of ``split`` by the names that a packed module has for them; None: there are none, or no whole."""
    weights, biases = ([getattr(layer, part) for layer in split.projections] for part in ("weight", "bias"))
    if isinstance(split, SplitWindowAttention) and split.silent is not None:
        biases[1] = split.silent.to(biases[0]) if biases[1] is None else None
    if isinstance(split, SplitEncoderAttention):
        own = {f"{name}.weight": w for name, w in zip(PARTS, weights, strict=True)}
        own |= {f"{name}.bias": b for name, b in zip(PARTS, biases, strict=True)}
    elif isinstance(module, nn.MultiheadAttention) and not module._qkv_same_embed_dim:
        own = dict(zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), weights, strict=True))
        own["in_proj_bias"] = _cat(biases)
    elif isinstance(module, nn.MultiheadAttention):
        own = {"in_proj_weight": _cat(weights), "in_proj_bias": _cat(biases)}
    else:
        own = {f"{split.packed_as}.weight": _cat(weights), f"{split.packed_as}.bias": _cat(biases)}
    read = split.reader._parameters
    layers = {*PARTS, split.out}
    own |= {name: value for name, value in split.named_parameters() if name.split(".")[0] not in layers}
    return {**own, f"{split.out}.weight": read["weight"], f"{split.out}.bias": read["bias"]}


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Three parts as one; None where one of them is missing or has other rows, so that they are no whole."""
    whole = [part for part in parts if part is not None]
    return torch.cat(whole) if len(whole) == len(parts) and len({part.shape for part in whole}) == 1 else None
