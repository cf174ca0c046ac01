"""Every wiring of `tests.core.wirings`: planted twins and copies are merged without loss, and cuts are consistent."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.compress import compress, prepare
from core.criteria import CRITERIA, by_row
from tests.conformance.networks import mask
from tests.conformance.planted import first_ones, plant_copies
from tests.core.wirings import WIRINGS, Wiring

CUT = list(WIRINGS)
DOUBLED = [name for name, wiring in WIRINGS.items() if wiring.double is not None]
NOT_EXACT = {"tokens", "group-norms", "channels-last", "flat-norm"}
MASKED = sorted(set(CUT) - {"functional", "siamese", "two-inputs", "many-outputs", "own-norms", "padded-last"})
"""Wirings of modules with one input and one output: what the NaN oracle can follow."""


def tensors(output: Any) -> list[Tensor]:
    """Every tensor in a nested output."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [tensor for part in parts for tensor in tensors(part)]


def difference(a: nn.Module, b: nn.Module, wiring: Wiring) -> float:
    with torch.no_grad():
        left, right = tensors(a(*wiring.inputs)), tensors(b(*wiring.inputs))
    return max(float((x - y).abs().max()) for x, y in zip(left, right, strict=True))


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_table_has_every_wiring() -> None:
    assert len(WIRINGS) == 30
    assert len(DOUBLED) == 17
    assert len(MASKED) == 24


@pytest.mark.parametrize("name", DOUBLED)
def test_merging_planted_twins_is_lossless(name: str) -> None:
    wiring = WIRINGS[name]
    original, doubled = wiring.twins()
    assert difference(original, doubled, wiring) < 1e-5, "the planting itself must not change the function"
    result = compress(doubled, wiring.inputs, ratio=0.5, criterion="l1", decomposition="most-similar")
    assert difference(original, result.model, wiring) < 1e-4
    assert size(result.model) == size(original)
    assert all(site.cosine > 1 - 1e-6 for site in result.sites)
    assert any(site.approximate for site in result.sites) == (name in NOT_EXACT)
    cut = compress(doubled, wiring.inputs, ratio=0.5, criterion="l1", decomposition="none")
    assert difference(original, cut.model, wiring) > 1e-2


@pytest.mark.parametrize("name", CUT)
def test_merging_planted_copies_is_lossless(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    CRITERIA.names()
    monkeypatch.setitem(CRITERIA._parts, "first", by_row(first_ones))
    wiring = WIRINGS[name]
    prepared = prepare(wiring.make(), wiring.inputs)
    planned = compress(prepared, wiring.inputs, criterion="first", decomposition="none")
    planted = plant_copies(prepared, {site.name: site.kept for site in planned.sites})
    merged = compress(planted, wiring.inputs, criterion="first")
    assert difference(planted, merged.model, wiring) < 1e-5
    assert any(site.approximate for site in merged.sites) == (name in NOT_EXACT)
    cut = compress(planted, wiring.inputs, criterion="first", decomposition="none")
    assert difference(planted, cut.model, wiring) > 1e-2, "nothing was planted"


@pytest.mark.parametrize("name", MASKED)
def test_a_cut_computes_what_is_left_of_the_original(name: str) -> None:
    wiring = WIRINGS[name]
    model = wiring.make().double()
    (images,) = wiring.inputs
    result = compress(model, images.double(), decomposition="none")
    oracle = mask(model, result.model, images.double())
    with torch.no_grad():
        assert float((oracle.output - result.model(images.double())).abs().max()) < 1e-9
    layers = {name: shape for name, shape in oracle.shapes.items() if name != "gamma"}  # a parameter of no module
    assert {name: tuple(result.model.get_parameter(name).shape) for name in layers} == layers


@pytest.mark.parametrize("name", CUT)
def test_the_result_copies_and_trains(name: str) -> None:
    wiring = WIRINGS[name]
    result = compress(wiring.make(), wiring.inputs)
    assert difference(result.model, copy.deepcopy(result.model), wiring) == 0
    sum(tensor.square().sum() for tensor in tensors(result.model.train()(*wiring.inputs))).backward()
    assert all(p.grad is not None for p in result.model.parameters())
