"""Looking before returning: what the self-check sees, whom it blames, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.compress import compress, prepare
from core.graph.rules import RULES
from core.graph.rules.pointwise import activation
from core.graph.trace import duplicate, twin
from core.selfcheck import Masked, culprits, distance
from core.surgery import by_reader, by_weight
from tests.core.nets import images, make


def sets(names: str) -> Any:
    return [SimpleNamespace(name=name) for name in names]


@pytest.mark.parametrize(
    ("alone", "together", "blamed"),
    [
        ("c", "", "c"),
        ("aeh", "", "aeh"),
        ("", "bg", "g"),  # each is fine without the other: the first stays
        ("c", "ah", "ch"),
        ("abcdefgh", "", "abcdefgh"),
    ],
)
def test_who_is_to_blame_is_found_by_bisection(alone: str, together: str, blamed: str) -> None:
    calls = []

    def problem(groups: Sequence[Any]) -> str:
        names = {group.name for group in groups}
        calls.append(names)
        return "wrong" if names & set(alone) or (together and names >= set(together)) else ""

    found = culprits(problem, sets("abcdefgh"))
    assert "".join(sorted(found)) == blamed
    assert not problem([g for g in sets("abcdefgh") if g.name not in found])


def test_where_no_set_is_to_blame_none_is_named() -> None:
    """As where a network is wrong before anything is cut: it draws a random number that its trace has as a constant."""
    assert culprits(lambda some: "always", []) == {}


class Normed(nn.Module):
    """A softmax between two layers, and another set that has nothing to do with it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(F.relu(self.second(F.softmax(self.first(x), 1))))


def test_a_wrong_rule_costs_its_set_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "softmax", activation)
    result = compress(Normed(), torch.randn(3, 6), ratio=0.5)
    assert [site.name for site in result.sites] == ["second"]
    assert "computes something else, off by" in result.skipped["first"]


class Squeezed(nn.Module):
    """Drops the channel axis when there is a single channel: that shows at one ratio and not at another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 4), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(F.relu(self.second(F.relu(self.first(x)).squeeze())))


def test_what_shows_at_one_ratio_only_is_left_alone_at_that_ratio() -> None:
    net, x = Squeezed(), torch.randn(5, 6)
    prepared = prepare(net, x)
    assert len(compress(prepared, x, ratio=0.5).sites) == 2
    high = compress(prepared, x, ratio=0.75)
    assert [site.name for site in high.sites] == ["second"]
    assert "does not run without some of them" in high.skipped["first"]
    assert len(compress(prepared, x, ratio=0.5).sites) == 2, "what one trial finds does not change the next"


class Width(nn.Module):
    """Asks for its width in training mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        if self.training:
            x = x.view(-1, 8)
        return self.third(F.relu(self.second(x)))


def test_a_network_that_would_no_longer_train_is_seen() -> None:
    result = compress(Width().eval(), torch.randn(5, 6), ratio=0.5)
    assert [site.name for site in result.sites] == ["second"]
    assert "does not run in training mode" in result.skipped["first"]
    result.model.train()(torch.randn(5, 6)).sum().backward()


def test_constant_example_inputs_are_not_what_the_networks_are_compared_on() -> None:
    net, _ = make("plain")
    check = prepare(net, torch.zeros(1, 3, 8, 8)).check
    assert float(check.inputs[0].std()) > 0.5
    assert check.inputs[0].shape == (1, 3, 8, 8)


@pytest.mark.parametrize("name", ["residual", "depthwise", "squeeze-excite"])
def test_a_cut_that_went_wrong_is_seen(name: str) -> None:
    """Break the cut network in one number: the check must tell."""
    net, _ = make(name)
    prepared = prepare(net, images())
    full = twin(prepared.channels.graph.model)
    result = compress(prepared, images(), ratio=0.5, decomposition="none")
    kept = {site.name: torch.tensor(site.kept) for site in result.sites}
    gone = torch.cat([g.units[~torch.isin(torch.arange(g.size), kept[g.name])] for g in prepared.channels.sets])
    assert prepared.check.problem(full, result.model.eval(), gone) == ""
    weight = next(p for p in result.model.parameters() if p.dim() > 1)
    weight.data[0] += 0.1
    assert "off by" in prepared.check.problem(full, result.model, gone)


def in_a_row(middle: nn.Module, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), middle, nn.ReLU(), nn.Conv2d(out, 3, 1))


READERS = {
    "plain": lambda: make("plain")[0],
    "residual": lambda: make("residual")[0],
    "squeeze-excite": lambda: make("squeeze-excite")[0],
    "concat": lambda: make("concat")[0],
    "grouped": lambda: in_a_row(nn.Conv2d(8, 8, 3, groups=2), 8),
    "transposed": lambda: in_a_row(nn.ConvTranspose2d(8, 6, 2, 2), 6),
}


@pytest.mark.parametrize("name", READERS)
def test_what_no_layer_reads_is_as_if_its_columns_were_zero(name: str) -> None:
    """Masking what enters a layer gives what zeros in its weight give, and changes no weight."""
    torch.manual_seed(0)
    channels, x = prepare(READERS[name]().eval(), images()).channels, images()
    gone = torch.cat([s.units[::2] for s in channels.sets])
    full, zeroed = twin(channels.graph.model), duplicate(channels.graph.model)
    for layer in channels.graph.layers:
        units = channels.units_along.get((layer.weight, layer.read_axis))
        if units is not None and not channels.is_depthwise(layer):
            weight = zeroed.get_parameter(layer.weight)
            read = by_reader(weight.detach(), layer).clone()
            read[torch.isin(units, gone)] = 0
            weight.data = by_weight(read, layer).contiguous()
    found = Masked(full, channels, gone).run(x)
    torch.testing.assert_close(found, zeroed(x), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, full(x), rtol=1e-3, atol=1e-4), "something has been left out"


def test_the_distance_of_outputs() -> None:
    nan, inf = float("nan"), float("inf")
    assert distance(torch.tensor([1.0, nan]), torch.tensor([1.0, nan])) == 0
    assert distance(torch.tensor([2.0, 0.0]), torch.tensor([2.0, 1.0])) == 0.5
    assert distance(torch.tensor([1.0, inf]), torch.tensor([1.0, inf])) == 0
    assert distance(torch.tensor([1.0, 2.0]), torch.tensor([1.0, nan])) == inf
    assert distance(torch.zeros(2), torch.zeros(3)) == inf


class FaintCount(nn.Module):
    """Divides by a number of channels, in a branch that hardly counts, and cannot be run in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.plain = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([*x.chunk(2, 1)], 1) @ torch.eye(8, dtype=torch.float32)  # only torch.export follows this
        wide = torch.relu(self.wide(x))
        return self.head(torch.relu(self.plain(x)) + 2e-3 * self.narrow(wide / wide.shape[-1]))


def test_a_faint_difference_is_seen_where_float64_is_no_way_out() -> None:
    """It is far below what float32 may be off by in general, and far above what rounding does to this network."""
    torch.manual_seed(0)
    net, x = FaintCount().eval(), torch.randn(16, 8)
    with pytest.raises(RuntimeError):
        net.double()(x.double())
    found = compress(net.float(), x, ratio=0.7)
    assert "computes something else" in found.skipped["wide"]
    assert "wide" not in {site.name for site in found.sites}
