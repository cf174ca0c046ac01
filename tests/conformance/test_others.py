"""Networks of other packages: nothing changes at ratio 0, half of the channels can go, and what is left is a network.

It runs in both modes, trains, and comes back from a file; what was left alone has a reason.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from core.compress import compress, prepare
from core.export import load, save
from tests.conformance.networks import LAYERS, settle
from tests.conformance.others import OTHERS, Other
from tests.conformance.planted import merge_planted


@pytest.fixture(scope="module", params=[pytest.param(o, id=o.name, marks=pytest.mark.slow) for o in OTHERS])
def other(request: pytest.FixtureRequest) -> Other:
    if importlib.util.find_spec(request.param.package) is None:
        pytest.skip(f"{request.param.package} is not installed")
    return request.param


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def apart(a: nn.Module, b: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        pairs = zip(tensors(a(images)), tensors(b(images)), strict=True)
        return max(float((x - y).abs().max() / x.abs().max().clamp_min(1e-12)) for x, y in pairs)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_table_has_networks_of_every_package() -> None:
    found = Counter(other.package for other in OTHERS)
    assert found["timm"] >= 25
    assert found["transformers"] >= 4
    assert found["torchvision"] >= 4
    assert found["segmentation_models_pytorch"] == 1
    assert found["ultralytics"] == 2
    assert len({other.name for other in OTHERS}) == len(OTHERS)


def test_it_is_compressed(other: Other, tmp_path: Path) -> None:
    images = other.images()
    model = settle(other.build(), images)
    prepared = prepare(model, images)
    assert apart(model, compress(prepared, images, ratio=0.0).model, images) < 1e-4
    result = compress(prepared, images, ratio=0.5)
    assert 100 * size(result.model) / size(model) < other.left
    _every_layer_is_accounted_for(model, result)
    path = save(result.model, tmp_path / "small.safetensors")
    again = load(path, factory=other.build)
    assert apart(result.model, again, images) == 0
    outputs = tensors(again.train()(torch.cat([images, -images])))
    sum(y.float().square().mean() for y in outputs).backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in again.parameters())


def test_planted_copies_are_merged_without_loss(other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    images = other.images()
    prepared = prepare(settle(other.build(), images), images)
    planted, merged, cut, images = merge_planted(prepared, images, monkeypatch)
    assert apart(planted, merged, images) < 1e-5
    assert apart(planted, cut, images) > 1e-2, "nothing was planted"


def _every_layer_is_accounted_for(model: nn.Module, result: Any) -> None:
    known = {name for site in result.sites for name in (*site.producers, *site.channel_wise)}
    assert not known & set(result.skipped)
    assert all(reason.strip() for reason in result.skipped.values())
    for name in {name.removesuffix(".q_proj") for name in known if name.endswith(".q_proj")}:
        known.add(f"{name}.qkv")  # one matrix in timm's networks, three layers where heads are cut
    missing = [
        name
        for name, module in model.named_modules()
        if isinstance(module, LAYERS) and not {name, name.rpartition(".")[0]} & (known | set(result.skipped))
    ]
    assert missing == []
