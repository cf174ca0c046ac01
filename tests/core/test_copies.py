"""Copies of modules are what `copy.deepcopy` makes of them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from core.graph.copies import deep_copy
from core.graph.trace import separate, twin


class Odd(nn.Module):
    """Shares a parameter, a module, a buffer's numbers and a list; has a tensor outside the state dict, and a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.second, self.again = nn.Linear(4, 4), self.norm
        self.second.weight = self.first.weight
        self.register_buffer("whole", torch.arange(8.0))
        self.register_buffer("part", self.whole[2:6])
        self.plain, self.words = torch.ones(3), ["a", {"b": (1, [2])}]
        self.same = self.words
        self.fused = Fused()
        self.first.register_forward_hook(double)

    def forward(self, x: Tensor) -> Tensor:
        """Use all of it."""
        y: Tensor = self.again(self.second(self.norm(self.first(x)))) + self.part
        return y


class Fused(nn.Module):
    """Copies itself in its own way."""

    copied = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Fused:
        made = Fused()
        made.copied = True
        return made


def double(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Twice the output."""
    return 2 * output


def test_a_copy_is_what_deepcopy_makes() -> None:
    torch.manual_seed(0)
    model, x = Odd().eval(), torch.randn(3, 4)
    found, expected = deep_copy(model, {}), copy.deepcopy(model)
    assert isinstance(found, Odd)
    assert found.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), model.state_dict().values(), strict=True))
    assert torch.equal(found(x), model(x))
    assert vars(found).keys() == vars(expected).keys()
    assert [m.training for m in found.modules()] == [m.training for m in expected.modules()]
    assert found.fused.copied


def test_what_is_shared_inside_stays_shared_and_nothing_else_is() -> None:
    model = Odd()
    found: Any = deep_copy(model, {})
    assert found.second.weight is found.first.weight is not model.first.weight
    assert found.again is found.norm is not model.norm
    assert found.same is found.words is not model.words
    assert found.words[1]["b"][1] is not model.words[1]["b"][1]
    found.whole.fill_(9)
    assert bool((found.part == 9).all())
    assert not bool((model.whole == 9).any())
    found.norm.running_mean.fill_(3)
    found.plain.fill_(3)
    assert not bool((model.norm.running_mean == 3).any())
    assert not bool((model.plain == 3).any())


def test_what_the_memo_holds_is_not_copied() -> None:
    model = Odd()
    found: Any = deep_copy(model, {id(p): p for p in model.parameters()})
    assert all(a is b for a, b in zip(found.parameters(), model.parameters(), strict=True))
    assert found.whole is not model.whole


def test_a_separate_copy_shares_no_parameter_with_the_other_network() -> None:
    model = Odd()
    cut: Any = twin(model)
    cut.first.bias = nn.Parameter(torch.zeros(4))
    found: Any = separate(cut, model)
    assert found.first.bias is cut.first.bias, "it is its own already"
    theirs = {p.data_ptr() for p in model.parameters()}
    assert theirs.isdisjoint(p.data_ptr() for p in found.parameters())
    assert found.second.weight is found.first.weight
    assert torch.equal(found.first.weight, model.first.weight)
