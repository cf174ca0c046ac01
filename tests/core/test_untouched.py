"""The result is like the original in everything but width, and making it leaves no trace anywhere else."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.compress import compress, prepare
from core.decompositions import DECOMPOSITIONS
from core.errors import ModelError
from core.export import load, save
from core.models import load_model


class Counting(nn.Module):
    """Counts its calls, draws random numbers, and has a channel buffer that is not part of the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3)
        self.calls = 0
        self.register_buffer("scale", torch.linspace(1, 2, 8).view(8, 1, 1), persistent=False)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen += 1
        return self.conv2(F.dropout(F.relu(self.bn1(self.conv1(x))) * self.scale, 0.0)).mean((2, 3))


class Auxiliary(nn.Module):
    """A head that only training uses, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)
        self.aux, self.aux_fc = nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(self.conv1(x))
        out = self.head(F.relu(self.conv2(x)).mean((2, 3)))
        if self.training:
            return out, self.aux_fc(F.relu(self.aux(x)).mean((2, 3)))
        return out


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def test_counters_and_random_states_stay_as_they_were() -> None:
    net, x = Counting(), images()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    result = compress(net, x, ratio=0.5, decomposition="least-squares", calibration=x)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])
    assert (net.calls, result.model.calls) == (0, 0)
    assert (float(net.seen), float(result.model.seen)) == (0.0, 0.0)


def test_every_module_keeps_its_own_mode_and_gradients() -> None:
    net = Counting().train()
    net.bn1.eval()
    net.conv1.weight.requires_grad_(False)
    result = compress(net, images(), ratio=0.5)
    assert {n: m.training for n, m in result.model.named_modules()} == {n: m.training for n, m in net.named_modules()}
    assert not result.model.conv1.weight.requires_grad
    assert result.model.conv2.weight.requires_grad


class Told(nn.Module):
    """One number is read, and one is told."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(1, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(x)))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("criterion", ["l1", "obs"])
@pytest.mark.parametrize("decomposition", DECOMPOSITIONS.names())
def test_of_one_prepared_network_every_configuration_is_made_as_if_it_were_the_first(
    decomposition: str, criterion: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    net, x = Told().to(dtype).eval(), torch.randn(64, 1, dtype=dtype)
    options = {"decomposition": decomposition, "criterion": criterion, "calibration": x}
    prepared = prepare(net, x)
    before = {name: value.clone() for name, value in prepared.channels.graph.model.state_dict().items()}
    compress(prepared, x, ratio=0.5, **options)
    after = prepared.channels.graph.model.state_dict()
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []
    again, alone = (compress(start, x, ratio=0.25, **options).model for start in (prepared, net))
    with torch.no_grad():
        assert torch.equal(again(x), alone(x))


def test_a_cut_buffer_outside_the_state_dict_is_exported(tmp_path: Path) -> None:
    net, x = Counting().eval(), images()
    result = compress(net, x, ratio=0.5, decomposition="none")
    assert result.model.scale.shape == (4, 1, 1)
    with torch.no_grad():
        again = load(save(result.model, tmp_path / "net.safetensors"), factory=lambda: Counting().eval())
        assert torch.equal(again(x), result.model(x))


def test_a_branch_that_only_training_uses_is_cut_with_the_rest() -> None:
    net, x = Auxiliary().eval(), images()
    result = compress(net, x, ratio=0.5)
    assert result.model.aux.weight.shape == (6, 4, 1, 1)
    assert result.model.conv1.weight.shape[0] == 4
    assert result.skipped["aux"] == "only training uses it"
    out, extra = result.model.train()(x)
    (out.sum() + extra.sum()).backward()
    assert all(p.grad is not None for p in result.model.parameters())


class Choosy(Auxiliary):
    """Its head for training pools images that have to be larger than those it is looked at with."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(side)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(self.conv1(x))
        out = self.head(F.relu(self.conv2(x)).mean((2, 3)))
        return (out, self.aux_fc(F.relu(self.aux(self.pool(x))).mean((2, 3)))) if self.training else out


@pytest.mark.parametrize(("side", "width"), [(12, 4), (50, 8)])
def test_a_head_for_larger_images_trains_afterwards(side: int, width: int) -> None:
    """Where larger images are of use, it is cut with the rest; else what it reads stays."""
    net, x = Choosy(side).eval(), images()
    with pytest.raises(RuntimeError, match="too small"):
        net.train()(x)
    result = compress(net.eval(), x, ratio=0.5)
    assert result.model.conv1.weight.shape[0] == result.model.aux.weight.shape[1] == width
    assert result.model.conv2.weight.shape[0] == 4
    if width == 8:
        assert "a layer that only training uses reads it" in result.skipped["conv1"]
    result.model.train()(torch.zeros(2, 3, 60, 60))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), [("googlenet", 64), ("inception_v3", 299), ("inception_v3", 96)])
def test_torchvision_networks_with_auxiliary_heads_train_afterwards(name: str, side: int) -> None:
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = getattr(torchvision.models, name)(num_classes=10, aux_logits=True, init_weights=False).eval()
    result = compress(net, torch.randn(1, 3, side, side), ratio=0.5)
    x = torch.randn(2, 3, max(side, 299), max(side, 299))
    outputs = result.model.train()(x)
    sum(y.sum() for y in outputs).backward()
    assert sum(p.numel() for p in result.model.parameters()) < 0.65 * sum(p.numel() for p in net.parameters())


def test_inference_mode_and_autocast_around_the_call_change_nothing() -> None:
    net, x = load_model("resnet20", in_channels=3), torch.randn(1, 3, 16, 16)
    expected = compress(net, x, ratio=0.5).model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = compress(net, x, ratio=0.5).model
    with torch.inference_mode():
        second = compress(net, x, ratio=0.5).model
    for model in (first, second):
        assert torch.equal(model(x), expected)
        model.train()(torch.cat([x, -x])).sum().backward()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda net: torch.jit.trace(net, images()), "the model is scripted.*pass the module it was made from"),
        (lambda net: net.to("meta"), "on the meta device, without values; load a checkpoint"),
        (lambda net: nn.DataParallel(net), "wrapped in DataParallel; pass model.module"),
        (lambda net: torch.compile(net), "compiled; pass model._orig_mod"),
    ],
)
def test_models_that_are_no_plain_modules_are_one_sentence(broken: object, message: str) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = broken(Auxiliary().eval())  # type: ignore[operator]
    with pytest.raises(ModelError, match=message):
        compress(model, images())
