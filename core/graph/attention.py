"""Attention with a projection each for queries, keys and values, so that the channels of its heads can be cut.

Torch's `nn.MultiheadAttention` and timm's ``Attention`` hold the widths of their heads as numbers and the three
projections as one matrix; transformers' image encoders hold the former. The modules of this file, which
`core.graph.packed` puts in their places, compute the same:

    y = out_proj( concat_h softmax(scale · Q_h K_hᵀ) V_h ),    Q = q_proj(x), K = k_proj(x), V = v_proj(x),

with the scale that the packed module had, however wide its heads are later. The functions `paired` and `attend` are
single nodes of a traced graph; their rules are in `core.graph.rules.attention`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


def paired(q: Tensor, k: Tensor, heads: int, batch_first: bool = True) -> tuple[Tensor, Tensor]:
    """Queries (…, L, h·d) and keys (…, S, h·d) whose dimensions are multiplied pair by pair, as they are."""
    return q, k


def attend(
    pair: tuple[Tensor, Tensor],
    v: Tensor,
    heads: int,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    batch_first: bool = True,
) -> Tensor:
    """Mixtures of the values' tokens, (…, L, h·e), each head's by the softmax of its own scaled products.

    Args:
        pair: what `paired` gives.
        v: values (…, S, h·e).
        heads: h.
        scale: of the products.
        mask: as `torch.nn.functional.scaled_dot_product_attention` takes it.
        causal: whether a token sees no later one.
        dropout: share of the mixture's weights that are zero.
        batch_first: whether three axes are (N, L, channels) and not (L, N, channels).
    """
    q, k, v = (_by_head(x, heads, batch_first) for x in (*pair, v))
    mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale=scale)
    mixed = mixed.transpose(-3, -2)
    if mask is not None:  # kernels for ONNX leave it in another order than torch's own, which a view would not do for
        mixed = mixed.clone(memory_format=torch.contiguous_format)
    mixed = mixed.flatten(-2)
    return mixed if batch_first or mixed.dim() < 3 else mixed.transpose(0, 1)


def weights_of(
    pair: tuple[Tensor, Tensor], heads: int, scale: float, mask: Tensor | None, average: bool, batch_first: bool
) -> Tensor:
    """The mixtures' weights (…, L, S) as a mean over heads, or (…, h, L, S); arguments as in `attend`."""
    q, k = (_by_head(x, heads, batch_first) for x in pair)
    products = scale * (q @ k.transpose(-2, -1))
    weights: Tensor = (products if mask is None else products + mask).softmax(-1)
    return weights.mean(-3) if average else weights


def joined_mask(mask: Tensor | None, padding: Tensor | None, heads: int, like: Tensor) -> Tensor:
    """What is added to the products: −∞ where one of torch's two masks is True, a real mask as it is.

    Args:
        mask: (L, S) or (N·h, L, S).
        padding: (N, S), or (S,) without a batch.
        heads: h.
        like: queries, (N, L, h·d) or (L, N, h·d), or (L, h·d) without a batch.
    """
    total = like.new_zeros(())
    if mask is not None:
        own = _added_to(mask, like)
        total = total + (own.view(-1, heads, *own.shape[1:]) if own.dim() == like.dim() == 3 else own)
    return total if padding is None else total + _added_to(padding, like)[..., None, None, :]


def _added_to(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)


def _by_head(x: Tensor, heads: int, batch_first: bool) -> Tensor:
    if x.dim() == 3 and not batch_first:
        x = x.transpose(0, 1)
    return x.reshape(*x.shape[:-1], heads, -1).transpose(-3, -2)


def mix(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
    """What `attend` gives for queries, keys and values; ``rest``: its other arguments, all of them, in order."""
    if _as_operator.get():
        found: Tensor = torch.ops.neuron_merging.attend(q, k, v, *rest)
        return found
    return attend(paired(q, k, rest[0], rest[-1]), v, *rest)


_as_operator = ContextVar("_as_operator", default=False)
_LIBRARY = torch.library.Library("neuron_merging", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "attend(Tensor q, Tensor k, Tensor v, int heads, float scale, Tensor? mask, bool causal, float dropout,"
    " bool batch_first) -> Tensor"
)
_LIBRARY.impl(  # type: ignore[no-untyped-call]
    "attend", lambda q, k, v, *rest: attend((q, k), v, *rest), "CompositeImplicitAutograd"
)


@contextlib.contextmanager
def as_operators() -> Iterator[None]:
    """While this lasts, attention is one operator, so that torch.export does not look into it."""
    token = _as_operator.set(True)
    try:
        yield
    finally:
        _as_operator.reset(token)


def restore(graph: fx.Graph) -> None:
    """Put `paired` and `attend` in the places of these operators, in place."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target is torch.ops.neuron_merging.attend.default:
            q, k, v, *rest = list(node.args)
            with graph.inserting_before(node):
                pair = graph.call_function(paired, (q, k, rest[0], rest[-1]))
                node.replace_all_uses_with(graph.call_function(attend, (pair, v, *rest)))
            graph.erase_node(node)


fx.wrap("paired")
fx.wrap("attend")
fx.wrap("weights_of")
fx.wrap("joined_mask")


class SplitAttention(nn.Module):
    """Attention as described above: four linear layers, and what `attend` takes beside them.

    Args:
        q_proj: (h·d, in) projection of the queries; likewise ``k_proj`` and, (h·e, in), ``v_proj``.
        k_proj: of the keys.
        v_proj: of the values.
        out_proj: (out, h·e) layer that reads the mixed values.
        heads: h.
        scale: of the products.
        dropout: share of the mixture's weights that are zero in training.

    Attributes:
        out: the name that the layer which reads the mixed values has in the packed module, and here.
        packed_as: the name of the one layer there that gives queries, keys and values, where there is one.
    """

    out = "out_proj"
    packed_as = "qkv"

    def __init__(
        self,
        q_proj: nn.Linear,
        k_proj: nn.Linear,
        v_proj: nn.Linear,
        out_proj: nn.Linear,
        *,
        heads: int,
        scale: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = q_proj, k_proj, v_proj
        self.add_module(self.out, out_proj)
        self.heads, self.scale, self.dropout = heads, scale, dropout

    def extra_repr(self) -> str:
        """What the four layers do not say."""
        return f"heads={self.heads}, scale={self.scale:.6g}, dropout={self.dropout}"

    @property
    def projections(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        """Those of queries, keys and values."""
        return self.q_proj, self.k_proj, self.v_proj

    @property
    def reader(self) -> nn.Module:
        """The layer that reads the mixed values."""
        return self.get_submodule(self.out)


class SplitMultiheadAttention(SplitAttention):
    """What stands for an `nn.MultiheadAttention`; called like one.

    Attributes:
        batch_first: as there.
    """

    batch_first: bool = False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The mixed values, and their weights if these are asked for; ``is_causal`` only says what a mask is."""
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        masked = attn_mask is not None or key_padding_mask is not None
        mask = joined_mask(attn_mask, key_padding_mask, self.heads, query) if masked else None
        share = self.dropout if self.training else 0.0
        mixed = mix(q, k, v, self.heads, self.scale, mask, False, share, self.batch_first)
        weights = None
        if need_weights:
            pair = paired(q, k, self.heads, self.batch_first)
            weights = weights_of(pair, self.heads, self.scale, mask, average_attn_weights, self.batch_first)
        return self.reader(mixed), weights


class SplitSelfAttention(SplitAttention):
    """What stands for timm's ``Attention``; called like one.

    Attributes:
        out_drop: share of the outputs that are zero in training.
    """

    out = "proj"
    out_drop: float = 0.0

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """The mixed tokens of x (N, L, in)."""
        q, k, v = (layer(x) for layer in self.projections)
        share = self.dropout if self.training else 0.0
        mixed = mix(q, k, v, self.heads, self.scale, attn_mask, is_causal, share, True)
        return F.dropout(self.reader(mixed), self.out_drop, self.training)


class SplitEncoderAttention(SplitAttention):
    """What stands for the attention of transformers' image encoders; called like one.

    Attributes:
        config: as there.
    """

    out = "o_proj"
    config: Any = None

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        """The mixed tokens of hidden_states (N, L, in), and no weights."""
        q, k, v = (layer(hidden_states) for layer in self.projections)
        share = self.dropout if self.training else 0.0
        mixed = mix(q, k, v, self.heads, self.scale, attention_mask, False, share, True)
        return self.reader(mixed), None
