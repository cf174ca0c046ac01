"""Any network: the conformance table over torchvision's classifiers and the registered networks."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.compress import Prepared, Result, compress, prepare
from core.export import load, save
from core.models import MODELS
from tests.conformance.networks import (
    BY_NAME,
    LAYERS,
    PREFIX,
    REGISTERED,
    TABLE,
    Network,
    mask,
    settle,
)
from tests.conformance.planted import merge_planted

ROUGH = (nn.GELU, nn.SiLU, nn.ReLU6, nn.Hardswish, nn.LayerNorm)
"""Modules that let a merge through only approximately (not the sigmoid of a gate: gates are merged if equal)."""


@dataclass
class Case:
    """One network of the table, prepared once for all tests on it."""

    network: Network

    @cached_property
    def images(self) -> Tensor:
        return self.network.images(4)

    @cached_property
    def model(self) -> nn.Module:
        return settle(self.network.build(), self.images)

    @cached_property
    def prepared(self) -> Prepared:
        return prepare(self.model, self.images)

    @cached_property
    def cut(self) -> Result:
        return compress(self.prepared, self.images, ratio=0.5, decomposition="none")

    @cached_property
    def merged(self) -> Result:
        return compress(self.prepared, self.images, ratio=0.5, decomposition="most-similar")


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, id=n.name, marks=n.marks) for n in TABLE],
)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def in_double(model: nn.Module, images: Tensor) -> Tensor:
    """The outputs of a float64 copy."""
    with torch.no_grad():
        outputs: Tensor = copy.deepcopy(model).double()(images.double())
    return outputs


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest output."""
    return float((a - b).abs().max() / a.abs().max())


def test_the_table_has_thirty_classifiers_and_every_registered_network() -> None:
    vision = [n.name for n in TABLE if n.name.startswith(PREFIX)]
    assert len(vision) == 31
    assert set(MODELS.names()) == REGISTERED
    assert len(TABLE) == len(BY_NAME) == len(vision) + len(REGISTERED)
    assert sum(n.light for n in TABLE) >= 8


def test_ratio_zero_is_the_identity(case: Case) -> None:
    result = compress(case.prepared, case.images, ratio=0.0)
    before, after = in_double(case.model, case.images), in_double(result.model, case.images)
    assert float((before - after).abs().max()) < 1e-5
    assert float((before[0] - before[1]).abs().max()) > 1e-6, "outputs that do not depend on the image show nothing"
    assert all(site.kept == tuple(range(site.size)) for site in result.sites)


def test_half_of_every_set_is_kept(case: Case) -> None:
    for site, group in zip(case.cut.sites, case.prepared.channels.sets, strict=True):
        slack = 1 if group.blocks is None else int(group.blocks.max()) + 1
        assert site.size / 2 - slack < len(site.kept) <= max(1, site.size / 2 + 0.5), site.name
        if group.blocks is not None:
            assert len(set(torch.bincount(group.blocks[list(site.kept)]).tolist())) == 1, site.name


def test_a_cut_leaves_what_it_implies(case: Case) -> None:
    """Shapes, parameters and outputs are those of the original run without the removed channels (see `mask`)."""
    cut = copy.deepcopy(case.cut.model).double()
    images = case.images.double()
    oracle = mask(copy.deepcopy(case.model).double(), cut, images)
    trained = {name for name, reason in case.cut.skipped.items() if reason == "only training uses it"}
    heads = {f"{name}.{kind}" for name in trained for kind in ("weight", "bias")}  # the oracle sees evaluation only
    shapes = {name: tuple(p.shape) for name, p in cut.named_parameters()}
    for name in heads & shapes.keys():
        assert len(shapes[name]) == len(oracle.shapes[name]), name
        assert shapes.pop(name)[:1] == oracle.shapes.pop(name)[:1], f"{name}: only its columns follow the channels"
    assert shapes == oracle.shapes
    with torch.no_grad():
        assert apart(oracle.output, cut(images)) < 1e-9
    for site in case.cut.sites:
        for name in site.producers:
            rows = oracle.rows.get(name)
            if rows is not None and len(case.prepared.channels.graph.model.get_submodule(name).weight) == site.size:
                assert tuple(rows) == site.kept, name


def test_every_layer_is_in_a_set_or_skipped_with_a_reason(case: Case) -> None:
    result = case.cut
    known = {name for site in result.sites for name in (*site.producers, *site.channel_wise)}
    assert not known & set(result.skipped)
    assert all(reason.strip() for reason in result.skipped.values())
    for name, module in case.model.named_modules():
        if isinstance(module, LAYERS):
            parent, _, own = name.rpartition(".")
            owners = {name, parent} if name.endswith("self_attention.out_proj") else {name}
            owners |= {f"{parent}.q_proj"} if own in ("qkv", "to_qkv") else set()
            assert owners & (known | set(result.skipped)), f"{name} is nowhere"
    consumers = {name for site in result.sites for name in site.consumers}
    assert consumers <= {name for name, _ in result.model.named_modules()}


def test_merging_keeps_the_shapes_and_the_argument(case: Case) -> None:
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    merged = case.merged
    with torch.no_grad():
        assert bool(torch.isfinite(merged.model(case.images)).all())
    cut = dict(case.cut.model.named_parameters())
    for name, value in merged.model.named_parameters():
        assert name.endswith("bias") or value.shape == cut[name].shape, name
    after = case.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_networks_of_relu_alone_are_exact_and_say_so(case: Case) -> None:
    rough = {type(m).__name__ for m in case.model.modules() if isinstance(m, ROUGH)}
    said = {op for site in case.merged.sites for op in site.approximate}
    assert bool(rough) == bool(said), (rough, said)


def test_planted_copies_are_merged_without_loss(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels that compute the same as a kept one are carried by it, whatever lies in between."""
    planted, merged, cut, images = merge_planted(case.prepared, case.images, monkeypatch)
    expected = in_double(planted, images)
    assert apart(expected, in_double(merged, images)) < 1e-5
    assert apart(expected, in_double(cut, images)) > 1e-2, "nothing was planted"


WHOLE = ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "regnet_x_400mf", "densenet121", "convnext_tiny"]


@pytest.mark.parametrize("name", [*WHOLE[:2], *(pytest.param(n, marks=pytest.mark.slow) for n in WHOLE[2:])])
def test_the_result_is_a_real_network(name: str, tmp_path: Path) -> None:
    """It deep-copies, trains, and comes back from one file."""
    network = BY_NAME[name]
    images = network.images(4)
    result = compress(network.build(), images, ratio=0.5)
    with torch.no_grad():
        outputs = result.model(images)
    for again in (copy.deepcopy(result.model), load(save(result.model, tmp_path / "net.safetensors"))):
        with torch.no_grad():
            assert torch.equal(again(images), outputs)
    twice = compress(load(tmp_path / "net.safetensors"), images, ratio=0.5)
    assert sum(p.numel() for p in twice.model.parameters()) < sum(p.numel() for p in result.model.parameters())
    _train_one_step(result.model, images)


def _train_one_step(model: nn.Module, images: Tensor) -> None:
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    F.cross_entropy(model(images), torch.arange(len(images))).backward()
    optimiser.step()
    assert all(p.grad is not None for p in model.parameters())
    assert [name for name, p in model.named_parameters() if p.dim() > 1 and torch.equal(p, before[name])] == []
