"""How ``folding`` finds its clusters from the bottom up, against slow loops and against scipy."""

from __future__ import annotations

import itertools

import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor, nn

from core.compress import compress
from core.config import TrialConfig
from core.decompositions.folding import ward


def partition(labels: Tensor) -> set[frozenset[int]]:
    return {frozenset((labels == label).nonzero().flatten().tolist()) for label in labels.unique()}


def test_ward_is_scipys() -> None:
    x = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in (1, 5, 20, 39, 40):
        theirs = torch.tensor(fcluster(linkage(x.numpy(), "ward"), k, "maxclust"))
        found = ward(x @ x.T, torch.ones(40, dtype=x.dtype), k)
        assert len(found.unique()) == k
        assert partition(found) == partition(theirs)


def test_ward_with_weights_against_slow_loops() -> None:
    """The union that loses least, with the loss as a sum over the members."""
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(12, 4, generator=rng, dtype=torch.float64)
    w = torch.rand(12, generator=rng, dtype=torch.float64) + 0.1

    def loss(members: tuple[int, ...]) -> float:
        own, weight = x[list(members)], w[list(members), None]
        return float((weight * (own - (weight * own).sum(0) / weight.sum()).square()).sum())

    groups: list[tuple[int, ...]] = [(i,) for i in range(12)]
    while len(groups) > 5:
        a, b = min(itertools.combinations(groups, 2), key=lambda p: loss(p[0] + p[1]) - loss(p[0]) - loss(p[1]))
        groups = [g for g in groups if g not in (a, b)] + [a + b]
    assert partition(ward(x @ x.T, w, 5)) == {frozenset(group) for group in groups}


def test_equal_channels_fold_exactly_by_ward() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        net[0].weight[4:] = net[0].weight[:4]
        net[0].bias[4:] = net[0].bias[:4]
        net[0].weight[1] = net[0].bias[1] = 0  # a channel without weights, and its twin
        net[0].weight[5] = net[0].bias[5] = 0
    x = torch.randn(20, 6)
    small = compress(net, x[:1], ratio=0.5, decomposition="folding", options={"linkage": "ward"}).model
    torch.testing.assert_close(small(x), net(x))


def test_the_new_option_leaves_keys_alone() -> None:
    def key(**options: str) -> str:
        return TrialConfig.parse({"decomposition": "folding", "options": options}).key

    assert key() == key(linkage="k-means") != key(linkage="ward")
