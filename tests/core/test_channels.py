"""Channel sets: found through the traced graph, and a reason for every layer that is left alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.channels import find_channels
from core.compress import compress, prepare
from core.errors import ModelError, UsageError
from core.graph.trace import is_finite
from core.models import load_model
from tests.core.nets import NETS, images, make


def sets_of(net: nn.Module, x: Tensor) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    return {s.name: (s.producers, s.consumers) for s in find_channels(net, x).sets}


def test_a_chain_has_one_set_per_hidden_layer() -> None:
    net, _ = make("plain")
    channels = find_channels(net, images())
    assert sets_of(net, images()) == {
        "conv1": (("conv1",), ("conv2",)),
        "conv2": (("conv2",), ("fc1",)),
        "fc1": (("fc1",), ("fc2",)),
    }
    assert dict(channels.skipped) == {"fc2": "it is the network's output"}


def test_a_residual_sum_ties_its_producers() -> None:
    net, _ = make("residual")
    assert sets_of(net, images()) == {
        "stem": (("stem", "conv2"), ("conv1", "fc")),
        "conv1": (("conv1",), ("conv2",)),
    }


def test_depthwise_and_gate_belong_to_the_set_they_scale() -> None:
    channels = find_channels(make("depthwise")[0], images())
    assert channels.sets[0].channel_wise == ("depthwise",)
    gated = find_channels(make("squeeze-excite")[0], images())
    assert sets_of(make("squeeze-excite")[0], images())["conv"] == (("conv", "fc2"), ("fc1", "last"))
    assert gated.gates == {"fc2"}


@pytest.mark.parametrize("name", NETS)
def test_every_layer_is_in_a_set_or_skipped_with_a_reason(name: str) -> None:
    net, _ = make(name)
    channels = find_channels(net, images())
    known = {p for s in channels.sets for p in (*s.producers, *s.channel_wise)} | set(channels.skipped)
    assert known == {n for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert all(channels.skipped.values())


@pytest.mark.parametrize(("name", "inside", "coupled"), [("resnet20", 9, 3), ("wrn-40-4", 18, 4)])
def test_paper_networks_have_a_set_inside_each_block_and_one_per_stage(name: str, inside: int, coupled: int) -> None:
    channels = find_channels(load_model(name, in_channels=3), torch.randn(1, 3, 32, 32))
    block = [s for s in channels.sets if s.producers[0].endswith(".conv1")]
    assert len(block) == inside
    assert all(len(s.producers) == 1 for s in block)
    assert len(channels.sets) - len(block) == coupled


class Reader(nn.Module):
    """A hidden convolution read by something; each subclass reads it another way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def read(self, x: Tensor) -> Tensor:
        return self.last(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(F.relu(self.conv(x)))


class Softmax(Reader):
    def read(self, x: Tensor) -> Tensor:
        return self.last(x.softmax(1))


class OverChannels(Reader):
    def read(self, x: Tensor) -> Tensor:
        return self.last(x * x.mean(1, keepdim=True))


class Halves(Reader):
    def read(self, x: Tensor) -> Tensor:
        a, b = x.split([3, 5], 1)
        return self.last(torch.cat([b, a], 1))


class Literal(Reader):
    def read(self, x: Tensor) -> Tensor:
        return self.last(x.view(-1, 8, 8, 8))


class WithInput(Reader):
    def read(self, x: Tensor) -> Tensor:
        return self.last(x + F.pad(x.new_ones(1), (0, 7)).view(1, 8, 1, 1))


class Returned(Reader):
    def read(self, x: Tensor) -> Tensor:
        return self.last(x), x


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (Softmax(), "'softmax' reads it"),
        (OverChannels(), "'mean' runs over the channels"),
        (Halves(), "'split' takes these channels apart"),
        (Literal(), "the channel count 8 is written into 'view'"),
        (Returned(), "network's output"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_what_cannot_be_cut_is_skipped_with_the_reason(net: nn.Module, reason: str) -> None:
    assert reason in find_channels(net, images()).skipped["conv"]
    with pytest.raises(ModelError, match=r"no layer whose channels could be removed.*conv"):
        compress(net, images())


def test_a_module_used_twice_is_cut_consistently() -> None:
    class Twice(Reader):
        def read(self, x: Tensor) -> Tensor:
            return self.last(x) + self.last(x * 2)

    result = compress(Twice(), images(), ratio=0.5, decomposition="most-similar")
    assert result.model.last.in_channels == 4
    assert result.model(images()).shape == (4, 4, 8, 8)


def test_a_shared_parameter_is_cut_in_both_places() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
            self.b.weight = self.a.weight
            self.first = nn.Linear(3, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(F.relu(self.b(F.relu(self.a(F.relu(self.first(x)))))))

    result = compress(Tied(), torch.randn(2, 3), ratio=0.5, decomposition="none")
    assert result.model.a.weight is result.model.b.weight
    assert result.model(torch.randn(2, 3)).shape == (2, 2)


def test_sites_limit_the_work_and_the_rest_is_said() -> None:
    net, _ = make("residual")
    result = compress(net, images(), sites=["conv1"])
    assert [s.name for s in result.sites] == ["conv1"]
    assert result.skipped["stem"] == result.skipped["conv2"] == "not among the chosen sites"
    with pytest.raises(UsageError, match=r"'conv7' matches no producer.*did you mean .*'conv1'"):
        compress(net, images(), sites=["conv7"])


def test_a_model_in_training_mode_with_dropout_stays_so_and_is_untouched() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    result = compress(net, torch.randn(3, 4))
    assert net.training
    assert result.model.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert result.model[0].out_features == 4


def test_bad_models_and_inputs_get_one_sentence() -> None:
    net, _ = make("plain")
    with pytest.raises(ModelError, match=r"does not run on example inputs of shape \(4, 1, 8, 8\).*as the model takes"):
        prepare(net, torch.randn(4, 1, 8, 8))
    with pytest.raises(ModelError, match="on cpu and the example inputs on meta; move both to one device"):
        prepare(net, torch.randn(4, 3, 8, 8, device="meta"))
    net.conv1.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"'conv1.weight' has NaN or infinite values; load a sound checkpoint"):
        prepare(net, images())


def test_control_flow_on_values_names_the_line() -> None:
    class Branch(Reader):
        def read(self, x: Tensor) -> Tensor:
            if float(x.sum()) > 0:
                return self.last(x)
            return self.last(-x)

    with pytest.raises(ModelError, match=r"cannot be traced. torch.fx: .*test_channels.py:\d+.*torch.export: "):
        prepare(Branch(), images())


class Looking(nn.Module):
    """Control flow on shapes: torch.fx cannot trace it, torch.export can."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.shape[0] > 1000:
            x = x * 2
        x = self.depthwise(F.relu(self.bn(self.conv1(x)))).mean((2, 3))
        return {"logits": self.fc2(F.gelu(self.fc1(self.norm(x))))}


def test_what_fx_cannot_trace_goes_through_export() -> None:
    net, x = Looking().eval(), images(64)
    result = compress(net, x[:1], ratio=0.5, decomposition="least-squares", calibration=x)
    assert {s.name: len(s.kept) for s in result.sites} == {"conv1": 4, "fc1": 4}
    assert isinstance(result.model, Looking)
    assert result.model(images(7))["logits"].shape == (7, 5)
    assert all(0 <= lost < 1 for site in result.sites for lost in site.reconstruction.values())
    identity = compress(net, x, ratio=0.0)
    assert torch.equal(identity.model(x)["logits"], net(x)["logits"])


def test_finite_numbers_whose_sum_is_not_are_finite() -> None:
    large = torch.full((4,), 3e38)
    assert bool(large.sum().isinf())
    assert is_finite(large)
    for wrong in (torch.nan, torch.inf, -torch.inf):
        assert not is_finite(torch.tensor([1.0, wrong, 0.0]))
    assert not is_finite(torch.tensor([torch.inf, -torch.inf]))
