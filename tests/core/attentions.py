"""Small networks with attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

WIDTH, HEADS, TOKENS = 16, 4, 6
HEAD = WIDTH // HEADS


class Net(nn.Module):
    """Tokens (N, L, 5) → (N, 3) by one layer of attention with a residual sum."""

    def __init__(self, attention: nn.Module, call: Any = None) -> None:
        super().__init__()
        self.stem, self.attention, self.head = nn.Linear(5, WIDTH), attention, nn.Linear(WIDTH, 3)
        self.call = call or (lambda m, x: m(x, x, x, need_weights=False)[0])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.head((x + self.call(self.attention, x)).mean(1))
        return y


def drawn(net: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.4
    return net.eval()


def of_torch(**options: Any) -> Net:
    return drawn(Net(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options)))  # type: ignore[return-value]


def tokens(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, TOKENS, 5, generator=torch.Generator().manual_seed(seed))


def apart(a: nn.Module, b: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((a(x) - b(x)).abs().max())


def twins(net: Net, part: int) -> None:
    """Make each second row of the queries (0), keys (1) or values (2) 0.6 times the one before it, biases too."""
    attention = net.attention
    for p in (attention.in_proj_weight, attention.in_proj_bias):
        rows = p.data.view(3, WIDTH, -1)
        rows /= rows.flatten(2).norm(dim=2, keepdim=True)  # so that scores say which twin goes
        if p.dim() == 2 or part == 2:
            rows[part, 1::2] = 0.6 * rows[part, ::2]


class Guarded(Net):
    """torch.fx cannot trace it, so that torch.export has to."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 100 or not x.dtype.is_floating_point:
            raise ValueError("too many tokens")
        return super().forward(x)


class Masked(Net):
    """A causal mask that it keeps, and one of padding that it is given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))
        self.register_buffer("mask", torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:  # type: ignore[override]
        x = self.stem(x)
        mixed, _ = self.attention(x, x, x, key_padding_mask=padding, attn_mask=self.mask)
        y: Tensor = self.head((x + mixed).mean(1))
        return y


def vision_transformer() -> nn.Module:
    """torchvision's, small: positions that are added to its tokens keep their channels."""
    from torchvision.models import VisionTransformer

    return drawn(VisionTransformer(8, 4, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=3))


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(2))
