"""Surgery: fold what is removed into the consumers, then cut every parameter along every axis that carries channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from core.channels import Channels, ChannelSet
from core.decompositions.base import Merge
from core.graph import Layer
from core.graph.trace import attribute

CONTIGUOUS = torch.contiguous_format


def parameter(model: nn.Module, name: str) -> Tensor | None:
    """The parameter or buffer ``name`` of ``model``; None where the module has none."""
    try:
        value: Tensor | None = attribute(model, name)
    except AttributeError:
        return None
    return value


def assign(model: nn.Module, name: str, value: Tensor, channels: Channels | None = None) -> None:
    """Replace the parameter or buffer ``name`` everywhere it is used, or create it as a parameter; "" is nowhere.

    Where it is used is looked up in the ``channels`` of the network, if these are given, else in all modules.
    """
    if not name:
        return
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    old = getattr(owner, leaf, None)
    if leaf in owner._buffers:
        owner._buffers[leaf] = value.detach()
        owner._non_persistent_buffers_set.discard(leaf)  # the network's code would make it anew, in full width
        return
    new = nn.Parameter(value.detach().contiguous(), requires_grad=True if old is None else old.requires_grad)
    if channels is None:
        users = list(model.modules())
    else:
        users = [model.get_submodule(other.rpartition(".")[0]) for other in channels.names_of(name)]
    for module in users if old is not None else ():
        for key, held in module._parameters.items():
            if held is old:
                module._parameters[key] = new
    owner._parameters[leaf] = new


def fold(model: nn.Module, channels: Channels, chosen: ChannelSet, layer: Layer, kept: Tensor, merge: Merge) -> str:
    """Fold the removed channels of one set into one consumer: V' = V·Z at the kept positions, bias += V·offset.

    ``model`` still has its full width; the kept positions of the weight are overwritten, the cut comes later.

    Returns:
        What could not be folded, in words; "" if all was.
    """
    weight = parameter(model, layer.weight)
    assert weight is not None
    v = swapped(weight.detach()) if _swaps(layer) else by_reader(weight.detach(), layer).clone(memory_format=CONTIGUOUS)
    rest = ""
    for covered, positions in by_channel(channels.local(chosen, layer.weight, layer.read_axis), chosen.size):
        z, offset, own = merge.z, merge.offset, kept
        if not bool(covered.all()):  # a chunk holds some of the channels only
            mine = covered[kept]
            z, offset = z[covered][:, mine], offset[covered]
            own = torch.searchsorted(covered.nonzero().flatten(), kept[mine])
        offset = offset.to(v)
        if bool((offset.abs() > 1e-6).any()):  # less is rounding, and not worth a bias parameter
            rest = _shift_bias(model, channels, layer, offset, positions, v)
        _add_up(v, z, own, positions)
    assign(model, layer.weight, swapped(v) if _swaps(layer) else by_weight(v, layer), channels)
    return rest


def _swaps(layer: Layer) -> bool:
    """Whether all that lies between a weight and its in-channels (see `by_reader`) is the order of its first axes."""
    return layer.groups == 1 and layer.read_axis == 1


def swapped(x: Tensor) -> Tensor:
    """A copy with the first two axes in the other order; for a matrix torch is several times as fast as for others.

    # NOTE: `contiguous` is no copy of a single row or column, and what is folded would go into the original.
    """
    if x.numel() == x.shape[0] * x.shape[1]:
        return x.flatten(1).T.clone(memory_format=CONTIGUOUS).view(x.shape[1], x.shape[0], *x.shape[2:])
    return x.transpose(0, 1).clone(memory_format=CONTIGUOUS)


def _add_up(v: Tensor, z: Tensor, kept: Tensor, positions: Tensor) -> None:
    """Set the kept positions of V (in, out of one group, …) to Zᵀ·V, in place."""
    row, column = z.nonzero(as_tuple=True)
    stays = torch.zeros(len(z), dtype=torch.bool).index_fill_(0, kept, value=True)[row]
    own = row[stays], column[stays]  # of the kept channels, one after the other
    as_they_are = (
        torch.equal(own[0], kept) and torch.equal(own[1], torch.arange(len(kept))) and bool((z[own] == 1).all())
    )
    if len(row) > len(z) or not as_they_are:
        read = v[positions]  # (n, m, out, …)
        v[positions[kept]] = (z.to(v).T @ read.flatten(1)).view(len(kept), *read.shape[1:])
        return
    row, column = row[~stays], column[~stays]  # each is added to kept channels
    wide, factor = v.flatten(1), z[row, column].repeat_interleave(positions.shape[1])
    added = wide[positions[row].flatten()].mul_(factor.to(v)[:, None])
    wide.index_add_(0, positions[kept[column]].flatten().to(v.device), added)


def _shift_bias(
    model: nn.Module, channels: Channels, layer: Layer, offset: Tensor, positions: Tensor, v: Tensor
) -> str:
    """Add V·offset to the bias of the layer (and of those that share its weight); V is (in, out of one group, …)."""
    if layer.groups == 1:
        weights = v.new_zeros(len(v)).index_add_(
            0, positions.flatten().to(v.device), offset.repeat_interleave(positions.shape[1])
        )
        gain = (weights @ v.flatten(1)).view(v.shape[1], -1).sum(1)
    else:
        parts = torch.einsum("n,nmo...->nmo", offset, v[positions])  # (n, m, out of one group)
        nothing = parts.new_zeros(layer.groups, parts.shape[2])
        block = (positions // (positions.numel() // layer.groups)).flatten().to(parts.device)
        gain = nothing.index_add_(0, block, parts.flatten(0, 1)).flatten()
    if layer.transposed:  # each output meets one tap in every stride
        gain = gain / layer.stride
    readers = [other for other in channels.graph.layers if other.weight == layer.weight]
    constants = dict.fromkeys(map(channels.constant_of, readers))
    if not all(name for name, _ in constants):
        return f"{layer.name} has no bias of its own"
    for name, sign in constants:
        constant = parameter(model, name)
        assign(model, name, sign * gain if constant is None else constant + sign * gain, channels)
    return ""


def by_reader(weight: Tensor, layer: Layer) -> Tensor:
    """The weight as (in-channel of the whole layer, out-channels of its group, …)."""
    if layer.groups == 1:
        return weight.movedim(layer.read_axis, 0)
    out, inside, *taps = weight.shape
    return weight.view(layer.groups, out // layer.groups, inside, *taps).transpose(1, 2).flatten(0, 1)


def by_weight(read: Tensor, layer: Layer) -> Tensor:
    """Inverse of `by_reader`; the in-channels may have become fewer, as many in every group."""
    if layer.groups == 1:
        return read.movedim(0, layer.read_axis)
    inside, out, *taps = read.shape
    return read.view(layer.groups, inside // layer.groups, out, *taps).transpose(1, 2).flatten(0, 1)


def by_channel(where: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Where the channels of a set lie along an axis: those that are there equally often, together.

    Args:
        where: (axis length,) channel of each position, or -1.
        size: of the set.

    Returns:
        Pairs: which channels (size,) these are, and the positions (n, m) of each of them, in order.
    """
    order = torch.argsort(where, stable=True)
    order = order[where[order] >= 0]
    times = torch.bincount(where[order], minlength=size)
    counts = {*times.tolist()} - {0}
    if len(counts) == 1:
        return [(times > 0, order.view(-1, *counts))]
    of_channel = where[order]  # halves that are read again, as in C2f
    return [(times == m, order[(times == m)[of_channel]].view(-1, m)) for m in sorted(counts)]


def replace_rows(model: nn.Module, channels: Channels, chosen: ChannelSet, kept: Tensor, rows: Tensor) -> None:
    """Replace the kept producers' rows by combinations P (k, n) of all rows, as seen behind the batch norm, if any.

    With effective rows A = a·W and constants b = β + a(bias − μ), a = γ/√(var+ε): W'_K = P·A/a_K, and β_K (or the bias)
    makes up the constant P·b.
    """
    layer = channels.layers[chosen.producers[0]]
    weight, bias = parameter(model, layer.weight), parameter(model, layer.bias)
    assert weight is not None
    w = weight.detach().movedim(layer.write_axis, 0).double()
    b = w.new_zeros(len(w)) if bias is None else bias.detach().double()
    norm = norm_behind(channels, chosen)
    new_w, rows = w.clone(), rows.to(w.device)
    if norm is None:
        new_w[kept] = torch.einsum("kn,n...->k...", rows, w)
        assign(model, layer.weight, new_w.movedim(0, layer.write_axis).to(weight.dtype))
        if bias is not None:
            new_b = b.clone()
            new_b[kept] = rows @ b
            assign(model, layer.bias, new_b.to(weight.dtype))
        return
    stats = {key: parameter(model, name) for key, name in norm[0].items()}
    gamma, beta, mu, var = (_double(stats.get(key), w) for key in ("weight", "bias", "running_mean", "running_var"))
    a = gamma / torch.sqrt(var + norm[1])
    safe = torch.where(a.abs() > 1e-12, a, torch.ones_like(a))
    effective, constant = torch.einsum("n,n...->n...", a, w), beta + a * (b - mu)
    new_w[kept] = torch.einsum("k,kn,n...->k...", 1 / safe[kept], rows, effective)
    assign(model, layer.weight, new_w.movedim(0, layer.write_axis).to(weight.dtype))
    new_beta = beta.clone()
    new_beta[kept] = rows @ constant - (a * (b - mu))[kept]
    assign(model, norm[0]["bias"], new_beta.to(weight.dtype))


def squared_norms(channels: Channels, chosen: ChannelSet) -> Tensor:
    """Of the rows that `replace_rows` replaces, (n,): behind the batch norm, if any, else with the bias as a column."""
    model, layer, norm = channels.graph.model, channels.layers[chosen.producers[0]], norm_behind(channels, chosen)
    weight, bias = parameter(model, layer.weight), parameter(model, layer.bias)
    assert weight is not None
    squares = weight.detach().movedim(layer.write_axis, 0).flatten(1).double().square().sum(1).cpu()
    if norm is None:
        return squares if bias is None else squares + bias.detach().double().cpu().square()
    gamma, var = (_double(parameter(model, norm[0][key]), squares) for key in ("weight", "running_var"))
    return squares * gamma.square() / (var + norm[1])


def _double(value: Tensor | None, like: Tensor) -> Tensor:
    assert value is not None
    return value.detach().to(like)


def norm_behind(channels: Channels, chosen: ChannelSet) -> tuple[Mapping[str, str], float] | None:
    """Parameter names and ε of the batch norm directly behind a set's only producer, or None."""
    for step in channels.graph.steps.values():
        source = channels.graph.steps.get(step.inputs[0]) if step.inputs else None
        if step.kind != "batch-norm" or source is None or source.mixer is None or len(step.parameters) < 4:
            continue
        if source.mixer.name == chosen.producers[0]:
            return step.parameters, float(step.options["eps"])
    return None


def cut(model: nn.Module, channels: Channels, gone: Tensor) -> None:
    """Remove the channels ``gone`` (numbers as in `Channels.unit_of`) from every parameter."""
    if len(gone) == 0:
        return
    keep_unit = torch.ones(int(channels.unit_of.max()) + 1, dtype=torch.bool)
    keep_unit[gone] = False
    grouped = {la.weight: la for la in channels.graph.layers if la.groups > 1}
    for (name, axis), units in channels.units_along.items():
        value = parameter(model, name)
        keep = keep_unit[units]
        if value is None or bool(keep.all()):
            continue
        index, value = keep.nonzero().flatten().to(value.device), value.detach()
        if name in grouped and axis == grouped[name].read_axis:
            assign(model, name, by_weight(by_reader(value, grouped[name])[index], grouped[name]), channels)
        else:
            assign(model, name, value.index_select(axis, index), channels)
    for module in model.modules():
        refresh(module)


def refresh(module: nn.Module) -> None:
    """Bring a module's size attributes in line with its parameters."""
    weight = module._parameters.get("weight")
    if weight is None:
        return
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.conv._ConvTransposeNd):
        module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.conv._ConvNd):
        if module.groups == module.out_channels > 1:
            module.groups = weight.shape[0]
        module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = weight.shape[0]
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and len(module.normalized_shape) == 1:
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.GroupNorm):
        module.num_groups = weight.shape[0] if module.num_groups == module.num_channels else module.num_groups
        module.num_channels = weight.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.numel()


def kept_positions(channels: Channels, profile: Tensor, gone: Tensor) -> Tensor:
    """Indices along a value's channel axis (atoms ``profile``) that stay."""
    stays = torch.ones(len(channels.unit_of), dtype=torch.bool).index_fill_(0, gone, False)
    stays = stays[channels.unit_of[profile.long()]]
    return stays.nonzero().flatten()


def units_gone(sets: Sequence[ChannelSet], kept: Mapping[str, Tensor]) -> Tensor:
    """Channel numbers removed, over all sets."""
    parts = []
    for chosen in sets:
        mask = torch.ones(chosen.size, dtype=torch.bool)
        mask[kept[chosen.name]] = False
        parts.append(chosen.units[mask])
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)
