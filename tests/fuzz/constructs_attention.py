"""Attention and recurrence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz.constructs import MAPS, TOKENS, Body, Draw, construct


def projections(d: Draw, c: int, width: int = 8) -> dict[str, nn.Module]:
    return {"q": nn.Linear(c, width), "k": nn.Linear(c, width), "v": nn.Linear(c, width), "out": nn.Linear(width, c)}


@construct("multi-head-attention", TOKENS)
def multi_head(d: Draw, c: int) -> Body:
    return Body(
        lambda m, x: x + m.a(x, x, x, need_weights=False)[0], c, a=nn.MultiheadAttention(c, 4, batch_first=True)
    )


@construct("attention-weights-out", TOKENS)
def weights_out(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Any:
        y, weights = m.a(x, x, x)
        return x + y, weights

    return Body(forward, c, a=nn.MultiheadAttention(c, 2, batch_first=True))


@construct("cross-attention", TOKENS)
def cross(d: Draw, c: int) -> Body:
    attention = nn.MultiheadAttention(c, 2, kdim=6, vdim=10, batch_first=True)
    parts = {"k": nn.Linear(c, 6), "v": nn.Linear(c, 10)}
    return Body(lambda m, x: x + m.a(x, F.relu(m.k(x)), F.relu(m.v(x)), need_weights=False)[0], c, a=attention, **parts)


@construct("encoder-layer", TOKENS)
def encoder(d: Draw, c: int) -> Body:
    layer = nn.TransformerEncoderLayer(c, 4, 12, dropout=0.0, batch_first=True)
    return Body(lambda m, x: m.layer(x), c, layer=layer)


@construct("attention-by-hand", TOKENS)
def by_hand(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        weights = (m.q(x) @ m.k(x).transpose(1, 2) / 8**0.5).softmax(-1)
        return x + m.out(weights @ m.v(x))

    return Body(forward, c, **projections(d, c))


@construct("attention-counted-scale", TOKENS)
def counted(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        q, k = m.q(x), m.k(x)
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        return x + m.out(weights @ m.v(x))

    return Body(forward, c, **projections(d, c))


@construct("attention-heads", TOKENS)
def heads(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (layer(x).view(n, t, 2, -1).transpose(1, 2) for layer in (m.q, m.k, m.v))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + m.out(y.transpose(1, 2).reshape(n, t, -1))

    return Body(forward, c, **projections(d, c))


@construct("attention-packed", TOKENS)
def packed(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = m.qkv(x).reshape(n, t, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        return x + m.out(y.transpose(1, 2).flatten(2))

    return Body(forward, c, qkv=nn.Linear(c, 24), out=nn.Linear(8, c))


@construct("attention-einsum", TOKENS)
def einsum(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        weights = torch.einsum("nic,njc->nij", m.q(x), m.k(x)).softmax(-1)
        return x + m.out(torch.einsum("nij,njc->nic", weights, m.v(x)))

    return Body(forward, c, **projections(d, c))


@construct("attention-linear", TOKENS)
def linear(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        q, k = F.elu(m.q(x)) + 1, F.elu(m.k(x)) + 1
        return x + 0.1 * m.out(q @ (k.transpose(1, 2) @ m.v(x)))

    return Body(forward, c, **projections(d, c))


@construct("attention-pooling", TOKENS)
def pooling(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        return x + (m.score(x).softmax(1) * x).sum(1, keepdim=True)

    return Body(forward, c, score=nn.Linear(c, 1))


@construct("attention-over-maps", MAPS)
def over_maps(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.q(x).flatten(2), m.k(x).flatten(2), m.v(x).flatten(2)
        weights = torch.bmm(q.permute(0, 2, 1), k).softmax(-1)
        return x + m.gamma * torch.bmm(v, weights.permute(0, 2, 1)).view(x.shape)

    parts = {"q": nn.Conv2d(c, 4, 1), "k": nn.Conv2d(c, 4, 1), "v": nn.Conv2d(c, c, 1)}
    return Body(forward, c, gamma=nn.Parameter(torch.tensor(0.6)), **parts)


@construct("class-token", TOKENS)
def class_token(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = torch.cat([m.token.expand(x.shape[0], -1, -1), x[:, 1:]], 1) + m.places
        return F.relu(m.layer(x))

    token, places = nn.Parameter(torch.randn(1, 1, c)), nn.Parameter(torch.randn(1, 6, c))
    return Body(forward, c, token=token, places=places, layer=nn.Linear(c, c))


@construct("rotary", TOKENS)
def rotary(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        angle = torch.arange(x.shape[1], device=x.device).to(x.dtype)[:, None] * 0.3
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

    return Body(forward, c)


def recurrent(name: str, kind: Callable[..., nn.RNNBase], **options: Any) -> None:
    times = 2 if options.get("bidirectional") else 1
    construct(name, TOKENS)(
        lambda d, c: Body(lambda m, x: m.rnn(x)[0], 8 * times, rnn=kind(c, 8, batch_first=True, **options))
    )


recurrent("lstm", nn.LSTM)
recurrent("lstm-two-ways", nn.LSTM, bidirectional=True, num_layers=2)
recurrent("gru", nn.GRU)
recurrent("rnn", nn.RNN)


@construct("lstm-cell", TOKENS)
def cell(d: Draw, c: int) -> Body:
    def forward(m: Any, x: Tensor) -> Tensor:
        state, outputs = None, []
        for step in x.unbind(1):
            state = m.cell(step, state)
            outputs.append(state[0])
        return torch.stack(outputs, 1)

    return Body(forward, 8, cell=nn.LSTMCell(c, 8))
