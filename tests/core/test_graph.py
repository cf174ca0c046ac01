"""The channel graph: a finished one holds on to no value that ran through the network."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from core.compress import prepare
from core.graph import build_graph
from core.graph.trace import GraphRunner
from tests.core.nets import images
from tests.planting import randomise


class Everything(nn.Module):
    """A step of each kind that could hold on to a value: activations, a PReLU, sums, products, a parameter, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.prelu, self.gate = nn.Conv2d(8, 8, 3, padding=1), nn.PReLU(), nn.Conv2d(8, 8, 1)
        self.scale, self.norm = nn.Parameter(torch.ones(8, 1, 1)), nn.GroupNorm(8, 8)
        self.last = nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.first(x)))
        x = self.prelu(self.second(x)) + nn.functional.gelu(x) * 2
        x = self.norm(x * torch.sigmoid(self.gate(x))) * self.scale
        x = nn.functional.adaptive_avg_pool2d(x, 2)
        return self.last(torch.cat([x.clamp(min=0)], 1).flatten(1))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, StorageWeakRef]]:
    """The memory of every value that a node of any graph returns from now on."""
    found: list[tuple[str, StorageWeakRef]] = []
    run_node = GraphRunner.run_node

    def recorded(self: GraphRunner, n: fx.Node) -> Any:
        value = run_node(self, n)
        for leaf in pytree.tree_leaves(value):
            if isinstance(leaf, Tensor) and n.op not in ("placeholder", "get_attr"):
                found.append((n.name, StorageWeakRef(leaf.untyped_storage())))
        return value

    monkeypatch.setattr(GraphRunner, "run_node", recorded)
    return found


def alive(seen: list[tuple[str, StorageWeakRef]]) -> list[str]:
    gc.collect()
    return [name for name, memory in seen if not memory.expired()]


def test_a_finished_graph_keeps_no_activation_alive(seen: list[tuple[str, StorageWeakRef]]) -> None:
    graph = build_graph(randomise(Everything()), images())
    assert len(graph.steps) >= 15
    assert len(seen) >= 15
    assert alive(seen) == []


def test_a_prepared_network_keeps_no_activation_alive(seen: list[tuple[str, StorageWeakRef]]) -> None:
    prepared = prepare(randomise(Everything()), images())
    assert len(prepared.channels.sets) >= 1
    assert len(seen) >= 30
    assert alive(seen) == []


def test_an_activation_that_is_kept_is_seen(seen: list[tuple[str, StorageWeakRef]]) -> None:
    runner = GraphRunner(fx.symbolic_trace(Everything()), randomise(Everything()))
    with torch.no_grad():
        held = runner.run(images())
    assert alive(seen) == ["last", "output"]
    del held, runner
    assert alive(seen) == []
