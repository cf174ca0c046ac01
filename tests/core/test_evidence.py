"""What a criterion may look at: rows, norms, consumers' columns, and what consumers read on calibration images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.channels import find_channels
from core.compress import compress, prepare
from core.config import TrialConfig, image_readers
from core.criteria import CRITERIA, Criterion, ScoredSet
from core.errors import ModelError, UsageError
from core.evidence import InputStatistics, scored_set
from tests.core.nets import Misnamed, images


class Net(nn.Module):
    """A convolution with batch norm, a grouped and a strided convolution, a flatten, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, groups=2, stride=2, padding=1)
        self.conv3 = nn.Conv2d(8, 6, 1)
        self.fc1 = nn.Linear(6 * 4 * 4, 10)
        self.fc2 = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv1(x)))
        x = torch.relu(self.conv3(torch.relu(self.conv2(x))))
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    made = Net().eval()
    nn.init.uniform_(made.bn.weight, 0.5, 2.0)
    assert made.bn.running_mean is not None
    nn.init.normal_(made.bn.running_mean)
    return made


def seen(net: nn.Module, name: str, calibration: Tensor | None = None) -> ScoredSet:
    channels = find_channels(net, images(1).to(next(net.parameters()).dtype))
    (chosen,) = [s for s in channels.sets if s.name == name]
    return scored_set(channels, chosen, InputStatistics(channels, calibration))


def test_producers_have_their_rows_and_norms_their_parameters(net: Net) -> None:
    first = seen(net, "conv1")
    (producer,) = first.producers
    assert torch.equal(producer.rows, net.conv1.weight.flatten(1))
    assert producer.channel.tolist() == list(range(8))
    (norm,) = first.norms
    assert torch.equal(norm.gamma, net.bn.weight.double())
    assert torch.equal(norm.mean.float(), net.bn.get_buffer("running_mean"))
    linear = seen(net, "fc1")
    assert torch.equal(linear.producers[0].rows, torch.cat([net.fc1.weight, net.fc1.bias[:, None]], 1))
    assert linear.norms == []


def read_by(net: nn.Module, name: str, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = net.get_submodule(name).register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    with torch.no_grad():
        net(x)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize(
    ("producer", "reader"), [("conv1", "conv2"), ("conv2", "conv3"), ("conv3", "fc1"), ("fc1", "fc2")]
)
def test_a_consumers_columns_and_moments_make_up_what_it_gives(net: Net, producer: str, reader: str) -> None:
    """For each channel, weight · (what its columns read) summed over channels is the layer's output, less its bias."""
    x = images(6).double()
    net = net.double()
    (consumer,) = seen(net, producer, x).consumers
    assert consumer.name == reader
    layer: Any = net.get_submodule(reader)
    given = read_by(net, reader, x)
    groups = getattr(layer, "groups", 1)
    rows = (
        given
        if isinstance(layer, nn.Linear)
        else nn.functional.unfold(given, layer.kernel_size, padding=layer.padding, stride=layer.stride)
        .transpose(1, 2)
        .flatten(0, 1)
    )
    rows = rows.view(len(rows), groups, -1)
    made = torch.zeros(len(rows), groups, layer.weight.shape[0] // groups, dtype=torch.float64)
    for channel in range(len(consumer.channel)):
        group = int(consumer.group[channel])
        made[:, group] += rows[:, group, consumer.column[channel]] @ consumer.weight[channel].double().T
    with torch.no_grad():
        out = layer(given)
    expected = out if out.dim() == 2 else out.movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(made.flatten(1), expected - layer.bias)
    moments = consumer.moments
    assert moments.count == len(rows)
    torch.testing.assert_close(moments.mean, rows.mean(0))
    torch.testing.assert_close(moments.second, torch.einsum("mgi,mgj->gij", rows, rows) / len(rows))


def filed(name: str, score: Callable[[ScoredSet], Tensor], monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    monkeypatch.setitem(CRITERIA._parts, name, Criterion(score, **options))
    image_readers.cache_clear()


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    image_readers.cache_clear()


def outgoing(scored: ScoredSet) -> Tensor:
    """The size of the columns that read a channel."""
    total = torch.zeros(scored.size, dtype=torch.float64)
    for consumer in scored.consumers:
        total.index_add_(0, consumer.channel, consumer.weight.double().square().sum((1, 2)))
    return total


def scale(scored: ScoredSet) -> Tensor:
    """|γ|, or the order of the channels where there is no batch norm."""
    return scored.norms[0].gamma.abs() if scored.norms else torch.arange(scored.size, 0, -1).double()


ASKED: list[str] = []


def energy(scored: ScoredSet) -> Tensor:
    """E‖what a channel's columns read‖²."""
    total = torch.zeros(scored.size, dtype=torch.float64)
    for consumer in scored.consumers:
        ASKED.append(consumer.name)
        diagonal = consumer.moments.second.diagonal(dim1=1, dim2=2)
        total.index_add_(0, consumer.channel, diagonal[consumer.group[:, None], consumer.column].sum(1))
    return total


def test_a_criterion_of_any_kind_works_end_to_end(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(8)
    filed("outgoing", outgoing, monkeypatch)
    filed("scale", scale, monkeypatch)
    filed("energy", energy, monkeypatch, needs_calibration=True)
    kept = {
        name: {s.name: s.kept for s in compress(net, x[:1], ratio=0.5, criterion=name, calibration=given).sites}
        for name, given in (("outgoing", None), ("scale", None), ("energy", x))
    }
    best = net.bn.weight.abs().argsort(descending=True)[:4].sort().values.tolist()
    assert list(kept["scale"]["conv1"]) != list(range(4))
    first, second = set(range(4)), set(range(4, 8))  # the grouped convolution wants as many of each half
    halves = [sorted(half, key=lambda i: -float(net.bn.weight[i].abs()))[:2] for half in (first, second)]
    assert list(kept["scale"]["conv1"]) == sorted(halves[0] + halves[1]), best
    columns = net.fc2.weight.square().sum(0).argsort(descending=True)[:5].sort().values.tolist()
    assert list(kept["outgoing"]["fc1"]) == columns
    read = read_by(net, "fc2", x).square().mean(0).argsort(descending=True)[:5].sort().values.tolist()
    assert list(kept["energy"]["fc1"]) == read


def test_moments_are_computed_once_and_shared(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    x, other = images(8), images(4) + 1
    filed("energy", energy, monkeypatch, needs_calibration=True)
    filed("energy-again", energy, monkeypatch, needs_calibration=True)
    runs: list[int] = []
    from core.evidence import Reading

    moments = Reading.moments

    def counted(self: Reading, *inputs: Tensor) -> object:
        runs.append(len(inputs[0]))
        return moments(self, *inputs)

    monkeypatch.setattr(Reading, "moments", counted)
    prepared = prepare(net, x[:1])
    sets = len(prepared.channels.sets)
    ASKED.clear()
    first = compress(prepared, x[:1], ratio=0.5, criterion="energy", calibration=x)
    assert (len(runs), len(ASKED)) == (1, sets), "one run for all sets"
    compress(prepared, x[:1], ratio=0.7, criterion="energy", calibration=x)
    assert (len(runs), len(ASKED)) == (1, sets), "the scores are kept"
    compress(prepared, x[:1], ratio=0.7, criterion="energy-again", calibration=x)
    assert (len(runs), len(ASKED)) == (1, 2 * sets), "another criterion shares the moments"
    shifted = compress(prepared, x[:1], ratio=0.5, criterion="energy", calibration=other)
    assert len(runs) == 2, "other images, other moments"
    again = compress(net, x[:1], ratio=0.5, criterion="energy", calibration=other)
    assert [s.kept for s in shifted.sites] == [s.kept for s in again.sites]
    assert [s.kept for s in first.sites] == [
        s.kept for s in compress(prepared, x[:1], ratio=0.5, criterion="energy", calibration=x).sites
    ]


def test_a_criterion_that_looks_at_images_needs_some(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    filed("energy", energy, monkeypatch, needs_calibration=True)
    with pytest.raises(UsageError, match=r"^energy looks at activations: pass calibration=images"):
        compress(net, images(1), criterion="energy")
    config = TrialConfig(criterion="energy", decomposition="none")
    assert config.calibration == "train-subset"
    assert TrialConfig(criterion="l1", decomposition="none").calibration is None
    filed("forgetful", energy, monkeypatch)
    with pytest.raises(UsageError, match="let it declare needs_calibration"):
        compress(net, images(1), criterion="forgetful")


def test_an_input_that_cannot_be_laid_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    filed("energy", energy, monkeypatch, needs_calibration=True)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), Misnamed(6, 4, 3)).eval()
    with pytest.raises(UsageError, match="cannot look at what 2 reads: it is not what its weight says; leave it out"):
        compress(net, images(1), criterion="energy", calibration=images(4))


@pytest.mark.parametrize(
    ("score", "what"),
    [
        (lambda scored: torch.ones(scored.size + 1), "9 scores, or NaN"),
        (lambda scored: torch.full((scored.size,), torch.nan), "8 scores, or NaN"),
        (lambda scored: torch.ones(scored.size, 2), r"scores \(8, 2\)"),
    ],
)
def test_scores_that_are_none_are_refused(
    net: Net, score: Callable[[ScoredSet], Tensor], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filed("odd", score, monkeypatch)
    with pytest.raises(ModelError, match=f"criterion 'odd' gives {what} for conv1, a set of 8 channels"):
        compress(net, images(1), criterion="odd")
