"""Blocks of `tests.core.blocks`: how much of them is compressed, and what is left alone for which reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from core.channels import find_channels
from core.compress import compress
from core.decompositions import DECOMPOSITIONS
from core.evidence import InputStatistics
from core.export import load, save
from core.graph.rules import CHANGED
from core.graph.rules.layers import COMPUTED
from core.seen import seen_moments
from tests.core.blocks import Branches, C2fNet, OwnNorms, PaddedLast, Standardised
from tests.planting import randomise

IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def left(model: nn.Module, **options: Any) -> tuple[float, dict[str, str]]:
    result = compress(model, IMAGES, ratio=0.5, **options)
    assert result.model.train()(IMAGES).shape == (16, 5)
    parameters = [sum(p.numel() for p in m.parameters()) for m in (result.model, model)]
    return parameters[0] / parameters[1], result.skipped


@pytest.mark.parametrize("shortcut", [True, False])
def test_chunks_that_feed_several_readers_are_compressed(shortcut: bool) -> None:
    share, skipped = left(randomise(C2fNet(32, shortcut=shortcut)))
    assert share < 0.27
    assert [*skipped] == ["fc"]


@pytest.mark.parametrize("criterion", ["l1", "obs", "activation"])
@pytest.mark.parametrize("decomposition", sorted(DECOMPOSITIONS.names()))
def test_every_method_works_on_halves_that_are_read_unequally_often(criterion: str, decomposition: str) -> None:
    share, _ = left(randomise(C2fNet(16)), criterion=criterion, decomposition=decomposition, calibration=IMAGES)
    assert share < 0.28


def test_functional_batch_norm_is_compressed() -> None:
    share, skipped = left(randomise(OwnNorms(32)))
    assert share < 0.3
    assert [*skipped] == ["fc"]


def test_images_are_padded_whatever_the_order_of_their_axes() -> None:
    share, skipped = left(randomise(PaddedLast(32)))
    assert share < 0.4
    assert [*skipped] == ["fc"]


def test_a_layer_that_changes_its_weight_is_left_alone_and_named() -> None:
    share, skipped = left(randomise(Standardised()))
    assert share < 1
    assert skipped["conv2"] == CHANGED
    assert skipped["conv1"] == COMPUTED, "what it reads stays"
    assert "conv3" not in skipped


class Averaged(nn.Conv2d):
    """A weight that is computed in many steps, each of which reads the one before it twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        for _ in range(60):
            weight = (weight + weight.abs().neg()) / 2
        return super()._conv_forward(x, weight.reshape_as(self.weight), self.bias)


def test_a_weight_of_many_steps_is_named_at_once() -> None:
    """Every way back to the parameter would be 2⁶⁰ ways."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Averaged(8, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1))
    skipped = compress(randomise(net), IMAGES, ratio=0.5).skipped
    assert (skipped["0"], skipped["2"]) == (COMPUTED, CHANGED)


def test_no_branch_loses_all_of_its_channels() -> None:
    """The criterion would: channels of the small branch are the weakest of the set by far."""
    net = randomise(Branches())
    net.small.weight.data *= 1e-3
    net.mix.weight.data[-2:] *= 1e-3
    result = compress(net, IMAGES, ratio=0.5)
    assert [*result.skipped] == ["fc"]
    site = next(site for site in result.sites if "small" in site.producers)
    assert len(site.kept) == 4
    assert result.model.get_parameter("small.weight").shape[0] == 1


class Template(nn.Module):
    """What is drawn anew takes nothing but its type from the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.fc(x.mean((2, 3))) + x.new_full((5,), 0.5)


def test_a_tensor_made_like_another_reads_nothing_of_it() -> None:
    assert [*left(randomise(Template()))[1]] == ["fc"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("decomposition", ["most-similar", "least-squares"])
def test_a_network_keeps_its_number_format(dtype: torch.dtype, decomposition: str, tmp_path: Path) -> None:
    """Through merging, refitting and a file; and it gives about what the same network in float32 gives."""
    images = IMAGES.to(dtype)
    options: dict[str, Any] = {"ratio": 0.5, "decomposition": decomposition}
    result = compress(randomise(C2fNet(16)).to(dtype), images, calibration=images, **options)
    assert {v.dtype for v in result.model.state_dict().values() if v.is_floating_point()} == {dtype}
    assert [*result.skipped] == ["fc"]
    again = load(save(result.model, tmp_path / "net.safetensors"), factory=lambda: C2fNet(16).to(dtype).eval())
    wide = compress(randomise(C2fNet(16)), IMAGES, calibration=IMAGES, **options)
    with torch.no_grad():
        outputs, expected = result.model(images), wide.model(IMAGES)
        assert outputs.dtype == dtype
        assert torch.equal(again(images), outputs)
    assert [site.kept for site in wide.sites] == [site.kept for site in result.sites]
    assert float((outputs.float() - expected).abs().max() / expected.abs().max()) < 0.05


def test_what_is_seen_of_halves_is_averaged_over_their_own_places() -> None:
    """A 1×1 layer reads one half of the channels once and the other three times; each counts for itself."""
    net = randomise(C2fNet(16)).eval()
    channels = find_channels(net, IMAGES)
    chosen = next(s for s in channels.sets if s.name == "one.cv1.conv")
    read: list[torch.Tensor] = []
    hook = net.one.cv2.conv.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].detach()))
    with torch.no_grad():
        net(IMAGES)
    hook.remove()
    where = channels.local(chosen, "one.cv2.conv.weight", 1)
    assert sorted(torch.bincount(where).unique().tolist()) == [1, 3]
    mean, square = read[0].double().mean((0, 2, 3)), read[0].double().square().mean((0, 2, 3))
    found = seen_moments(channels, chosen, InputStatistics(channels, IMAGES))["one.cv2.conv"]
    assert found is not None
    for channel in range(chosen.size):
        assert float(found.mean[channel]) == pytest.approx(float(mean[where == channel].mean()), rel=1e-4, abs=1e-6)
        wanted = float(square[where == channel].mean())
        assert float(found.second[channel, channel]) == pytest.approx(wanted, rel=1e-4, abs=1e-6)


class Again(nn.Module):
    """Some channels of a set are read twice by the same layer, and nothing says how many of these there must be."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 1)
        self.a, self.b = nn.Conv2d(width, width // 2, 1), nn.Conv2d(width, width // 2, 1)
        self.last, self.fc = nn.Conv2d(width + width // 2, width, 1), nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        a = self.a(x)
        y = torch.cat([a, self.b(x)], 1) + self.mix(x)
        return self.fc(self.last(torch.cat([y, a], 1).relu()).relu().mean((2, 3)))


def test_channels_that_are_read_unequally_often_without_halves_stay() -> None:
    skipped = left(randomise(Again()))[1]
    reason = "last reads some of these channels more often than others"
    assert {name: skipped[name] for name in ("a", "b", "mix")} == dict.fromkeys(("a", "b", "mix"), reason)
