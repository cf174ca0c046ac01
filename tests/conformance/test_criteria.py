"""Every criterion: compared with a slow loop in float64, and its invariants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.compress import compress, prepare
from core.criteria import CRITERIA
from core.errors import UsageError
from core.prepared import Prepared, Scores
from tests import oracle
from tests.core.nets import Misnamed

NAMES = ("geometric-median", "l1", "l2")
"""Those that score each row by itself."""
OTHERS = ("activation", "apoz", "bn-scale", "obs", "random", "snip", "taylor")
SEEING = ("activation", "apoz", "obs", "snip", "taylor")


def rows(n: int = 12, fan_in: int = 27, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, fan_in, generator=torch.Generator().manual_seed(seed))


def row_score(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    score = CRITERIA.get(name).rows
    assert score is not None
    return score


def test_the_table_is_complete() -> None:
    assert CRITERIA.names() == sorted([*NAMES, *OTHERS])
    assert [name for name, part in CRITERIA.items() if part.rows is None] == list(OTHERS)
    assert [name for name, part in CRITERIA.items() if part.needs_calibration] == list(SEEING)
    assert [name for name, part in CRITERIA.items() if part.needs_labels] == ["snip", "taylor"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_the_slow_loop(name: str, seed: int) -> None:
    w = rows(seed=seed)
    expected = oracle.scores(name, w.double().numpy())
    np.testing.assert_allclose(row_score(name)(w.double()).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(row_score(name)(w).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_channels_and_sign_do_not_matter(name: str) -> None:
    w, score = rows(), row_score(name)
    order = torch.randperm(len(w), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(score(w[order]), score(w)[order])
    torch.testing.assert_close(score(-w), score(w))


@pytest.mark.parametrize("name", NAMES)
def test_scores_scale_with_the_weights(name: str) -> None:
    w, score = rows(), row_score(name)
    torch.testing.assert_close(score(3 * w), 3 * score(w))


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_a_larger_channel_scores_higher(name: str) -> None:
    w = rows(1).repeat(3, 1) * torch.tensor([[1.0], [3.0], [2.0]])
    assert row_score(name)(w).argsort(descending=True).tolist() == [1, 2, 0]


def test_geometric_median_finds_the_channel_in_the_middle_and_no_distance_to_itself() -> None:
    w = torch.tensor([[0.0], [1.0], [10.0]])
    assert row_score("geometric-median")(w).tolist() == [11.0, 10.0, 19.0]
    assert row_score("geometric-median")(torch.ones(4, 3)).tolist() == [0.0] * 4


class Net(nn.Module):
    """Two convolutions with batch norm, one without, a residual sum, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv3, self.fc = nn.Conv2d(8, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(x + self.bn2(self.conv2(x)))
        return self.fc(F.relu(self.conv3(x)).mean((2, 3)))


X = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.arange(40) % 4


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    made = Net().double().eval()
    for norm in (made.bn1, made.bn2):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
    return made


@pytest.fixture(scope="module")
def prepared(net: Net) -> Prepared:
    return prepare(net, X[:1])


def of_set(prepared: Prepared, name: str, criterion: str, seed: int = 0) -> Scores:
    (chosen,) = [s for s in prepared.channels.sets if s.name == name]
    return prepared.scores(chosen, criterion, X, seed, LABELS)


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_each_set_gets_a_finite_score_for_each_channel(name: str, prepared: Prepared) -> None:
    for own in prepared.channels.sets:
        values = of_set(prepared, own.name, name).values
        assert values.shape == (own.size,)
        assert bool(values.isfinite().all())
        assert bool((values >= 0).all())


def test_random_is_another_one_for_each_seed_and_set(prepared: Prepared) -> None:
    first = of_set(prepared, "conv1", "random").values
    assert torch.equal(first, of_set(prepared, "conv1", "random").values)
    assert not torch.equal(first, of_set(prepared, "conv1", "random", seed=1).values)
    assert not torch.equal(first[:6], of_set(prepared, "conv3", "random").values)
    x = X[:1]
    kept = [compress(prepared, x, ratio=0.5, criterion="random", seed=seed).sites[0].kept for seed in (0, 0, 1, 2)]
    assert kept[0] == kept[1]
    assert len(set(kept)) > 1


def test_bn_scale_is_gamma_and_without_a_norm_l1(net: Net, prepared: Prepared) -> None:
    found = of_set(prepared, "conv1", "bn-scale").values
    expected = sum(g.abs() / g.abs().mean() for g in (net.bn1.weight.detach(), net.bn2.weight.detach()))
    torch.testing.assert_close(found, torch.as_tensor(expected))
    without = of_set(prepared, "conv3", "bn-scale")
    assert torch.equal(without.values, of_set(prepared, "conv3", "l1").values)
    assert without.note == "no batch norm scales these channels: chosen by l1"
    notes = {s.name: s.note for s in compress(net, X[:1], criterion="bn-scale").sites}
    assert notes["conv3"].startswith("no batch norm scales these channels: chosen by l1")


def test_activation_and_apoz_are_what_the_reader_sees(net: Net, prepared: Prepared) -> None:
    with torch.no_grad():
        h = F.relu(net.bn1(net.conv1(X)))
        h = F.relu(h + net.bn2(net.conv2(h)))
        read = F.relu(net.conv3(h)).mean((2, 3))
    for name, value in (("activation", read.abs().mean(0)), ("apoz", (read != 0).double().mean(0))):
        torch.testing.assert_close(of_set(prepared, "conv3", name).values, value / value.mean())


def test_taylor_and_snip_are_gradient_times_weight(net: Net, prepared: Prepared) -> None:
    """Of `conv3` with its bias, from the definition: batches of 32 and 8 images."""
    products = []
    for some in (slice(0, 32), slice(32, 40)):
        net.zero_grad()
        F.cross_entropy(net(X[some]), LABELS[some]).backward()
        weight, bias = net.conv3.weight, net.conv3.bias
        assert weight.grad is not None
        assert bias is not None
        assert bias.grad is not None
        products.append(torch.cat([(weight.grad * weight).flatten(1), (bias.grad * bias)[:, None]], 1).detach())
    net.zero_grad()
    taylor = torch.stack([p.sum(1) ** 2 for p in products]).mean(0)
    snip = torch.stack(products).mean(0).abs().sum(1)
    torch.testing.assert_close(of_set(prepared, "conv3", "taylor").values, taylor)
    torch.testing.assert_close(of_set(prepared, "conv3", "snip").values, snip)


def test_obs_is_brute_force_on_what_the_reader_sees(net: Net, prepared: Prepared) -> None:
    with torch.no_grad():
        h = F.relu(net.bn1(net.conv1(X)))
        h = F.relu(h + net.bn2(net.conv2(h)))
        read = F.relu(net.conv3(h)).mean((2, 3)).numpy()
    order, costs = oracle.elimination([(read, net.fc.weight.detach().numpy(), True)], 6, 1, 1e-2)
    values = of_set(prepared, "conv3", "obs").values
    assert values.argsort(stable=True).tolist() == order
    np.testing.assert_allclose(values.sort().values.numpy(), costs, rtol=1e-8)


@pytest.mark.parametrize("name", ["taylor", "snip"])
@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (None, "learns from labels: pass labels=classes"),
        (LABELS[:3], "labels must be 40 whole numbers, one per calibration image"),
        (LABELS.double(), "labels must be 40 whole numbers"),
    ],
)
def test_labels_that_are_missing_or_wrong_are_refused(name: str, labels: Tensor | None, what: str, net: Net) -> None:
    with pytest.raises(UsageError, match=what):
        compress(net, X[:1], criterion=name, calibration=X, labels=labels)


@pytest.mark.parametrize("name", SEEING)
def test_images_that_are_missing_are_asked_for(name: str, net: Net) -> None:
    with pytest.raises(UsageError, match=f"^{name} looks at activations: pass calibration=images"):
        compress(net, X[:1], criterion=name)


@pytest.mark.parametrize("name", ["activation", "apoz", "obs"])
def test_a_reader_that_cannot_be_seen_is_left_out_and_said(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), Misnamed(6, 4, 3)).double().eval()
    (site,) = compress(net, X[:1], criterion=name, decomposition="none", calibration=X).sites
    assert "cannot look at what 2 reads: it is not what its weight says" in site.note
    assert "no consumer's input can be looked at: chosen by l1" in site.note
