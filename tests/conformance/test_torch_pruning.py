"""Channel sets agree with torch-pruning's groups, wherever that library works; each disagreement is explained.

torch-pruning follows autograd's graph, this package symbolic traces: two independent ways to the same sets.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
from torch import Tensor, nn

from core.channels import OUTPUT, Channels, find_channels
from tests.conformance.networks import BY_NAME

tp = pytest.importorskip("torch_pruning")

ROOTS = [nn.Conv2d, nn.Linear]
NOT_ASKED = {
    "swin_t": "torch-pruning runs out of 14 GB of memory",
    "swin_v2_t": "torch-pruning does not come back within two minutes",
    "maxvit_t": "torch-pruning does not come back within two minutes",
}
FAILS = {
    "shufflenet_v2_x0_5": (ZeroDivisionError, "torch-pruning cannot follow the shuffle: a size becomes 0"),
    "shufflenet_v2_x1_0": (ZeroDivisionError, "torch-pruning cannot follow the shuffle: a size becomes 0"),
}
LIGHT = {"resnet18", "squeezenet1_1", "vgg-small", "resnet20"}


@dataclass(frozen=True)
class Members:
    """Layers by what they do to the channels of one set."""

    producers: frozenset[str]
    consumers: frozenset[str]
    channel_wise: frozenset[str]


@dataclass(frozen=True)
class Disagreement:
    """How many sets only one side has, and why."""

    reason: str
    only_ours: int = 0
    only_theirs: int = 0


EXPLAINED = {
    "vit_b_16": Disagreement(
        "torch-pruning cuts the residual stream, with rules of its own for nn.MultiheadAttention and bare parameters; "
        "here the tokens' positions keep the stream whole, and each attention has two sets within its heads",
        only_ours=24,
        only_theirs=1,
    ),
}


def ours(channels: Channels) -> set[Members]:
    trained = channels.graph.training_only  # torch-pruning follows the network as it is evaluated
    return {
        Members(frozenset(s.producers), frozenset(s.consumers) - trained, frozenset(s.channel_wise))
        for s in channels.sets
    }


def theirs(model: nn.Module, images: Tensor) -> set[Members]:
    """torch-pruning's groups, convolutions and linear layers only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=images)
        groups = list(graph.get_all_groups(root_module_types=ROOTS))
    names = {module: name for name, module in model.named_modules()}
    return {_members(graph, group, names) for group in groups}


def _members(graph: object, group: object, names: dict[nn.Module, str]) -> Members:
    found: dict[str, set[str]] = {"producers": set(), "consumers": set(), "channel_wise": set()}
    for dependency, _ in group:
        module = dependency.target.module
        if not isinstance(module, tuple(ROOTS)):
            continue
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels:
            found["channel_wise"].add(names[module])
        elif graph.is_out_channel_pruning_fn(dependency.handler):
            found["producers"].add(names[module])
        else:
            found["consumers"].add(names[module])
    return Members(**{kind: frozenset(layers) for kind, layers in found.items()})


def compare(name: str) -> tuple[set[Members], set[Members]]:
    """(sets only here, sets only there) of a network; theirs without the group of the output, which nobody cuts."""
    network = BY_NAME[name]
    model, images = network.build(), network.images(1)
    channels = find_channels(model, images)
    outputs = {layer for layer, reason in channels.skipped.items() if reason == OUTPUT}
    mine = ours(channels)
    other = {members for members in theirs(model, images) if not members.producers & outputs}
    assert len(mine) > 1
    return mine - other, other - mine


ASKED = sorted(set(BY_NAME) - set(NOT_ASKED) - set(FAILS))


def test_the_tables_cover_every_network() -> None:
    assert all(known.reason and known.only_ours + known.only_theirs > 0 for known in EXPLAINED.values())
    assert set(NOT_ASKED) | set(FAILS) <= set(BY_NAME)
    assert set(EXPLAINED) <= set(ASKED)
    assert len(ASKED) >= 25
    assert set(ASKED) >= LIGHT


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in LIGHT else BY_NAME[n].marks or pytest.mark.slow) for n in ASKED]
)
def test_sets_agree(name: str) -> None:
    only_ours, only_theirs = compare(name)
    expected = EXPLAINED.get(name, Disagreement("none"))  # one that disappears must leave the table
    assert len(only_ours) == expected.only_ours, only_ours
    assert len(only_theirs) == expected.only_theirs, only_theirs


@pytest.mark.parametrize("name", FAILS)
def test_torch_pruning_still_fails_where_we_say_so(name: str) -> None:
    network = BY_NAME[name]
    with pytest.raises(FAILS[name][0]):
        theirs(network.build(), network.images(1))
