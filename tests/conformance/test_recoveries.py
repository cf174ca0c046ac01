"""A kit that every recovery passes, and what each of them is for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.compress import compress
from core.config import TrialConfig, trainings
from core.errors import TrialError, UnknownNameError, UsageError
from core.recovery import RECOVERIES, recover, recovered
from tests.trained import FAMILIES

NAMES = ("distill", "fine-tune", "none")
TRAINING = ("distill", "fine-tune")


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.manual_seed(0)
    return FAMILIES["vgg"]().eval()


@pytest.fixture(scope="module")
def labels(original: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return original(x).argmax(1)


@pytest.fixture(scope="module")
def cut(original: nn.Module, x: Tensor) -> nn.Module:
    return compress(original, x[:1], ratio=0.7, decomposition="none").model


def test_the_table_is_complete() -> None:
    assert tuple(RECOVERIES.names()) == NAMES
    assert trainings() == TRAINING


@pytest.mark.parametrize("method", TRAINING)
def test_it_is_nearer_to_what_it_learns_from(
    method: str, original: nn.Module, cut: nn.Module, x: Tensor, labels: Tensor
) -> None:
    found = recovered(cut, original, x, method, steps=40, labels=labels)
    assert found.after < found.before
    assert found.note == ""
    assert [step for step, _ in found.curve] == list(range(1, 41))
    assert found.curve[-1][1] < found.curve[0][1]
    assert all(p.shape == q.shape for p, q in zip(found.model.parameters(), cut.parameters(), strict=True))


@pytest.mark.parametrize("method", NAMES)
def test_nothing_that_is_given_changes_and_a_seed_gives_the_same_network(
    method: str, original: nn.Module, cut: nn.Module, x: Tensor, labels: Tensor
) -> None:
    cut = copy.deepcopy(cut).train()
    next(iter(cut.parameters())).requires_grad_(False)
    before, state = copy.deepcopy(cut.state_dict()), torch.get_rng_state()
    teacher, images = copy.deepcopy(original.state_dict()), x.clone()
    one, two, other = (recover(cut, original, x, method, 3, seed, labels=labels) for seed in (5, 5, 6))
    assert all(torch.equal(value, before[name]) for name, value in cut.state_dict().items())
    assert all(torch.equal(value, teacher[name]) for name, value in original.state_dict().items())
    assert torch.equal(images, x)
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in (*cut.parameters(), *original.parameters(), *one.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert (method == "none") == all(
        torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )
    assert one.training
    assert [p.requires_grad for p in one.parameters()] == [p.requires_grad for p in cut.parameters()]


def test_batch_norms_keep_their_statistics(original: nn.Module, cut: nn.Module, x: Tensor) -> None:
    found = recover(cut, original, x, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(found.buffers(), cut.buffers(), strict=True))


def test_a_network_that_gets_no_better_stays_as_it_was(original: nn.Module, x: Tensor) -> None:
    found = recovered(original, original, x, steps=2)
    assert found.before == 0.0
    assert found.note == "distill made it no better on held-out images: the network stays as it was"
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), original.parameters(), strict=True))


def test_distill_sees_no_labels(original: nn.Module, cut: nn.Module, x: Tensor, labels: Tensor) -> None:
    with_labels = recover(cut, original, x, steps=3, labels=labels)
    without = recover(cut, original, x, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(with_labels.parameters(), without.parameters(), strict=True))


@pytest.mark.parametrize("count", [1, 3])
def test_values_are_no_logits_and_what_all_of_them_lack_is_brought_back(count: int) -> None:
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, count)).eval()
    x = torch.randn(64, 6)
    low = copy.deepcopy(original)
    with torch.no_grad():
        last = low[2]
        assert isinstance(last, nn.Linear)
        last.bias.sub_(1.0)
    found = recovered(low, original, x, steps=300, logits=False)
    assert found.before == pytest.approx(1.0, abs=1e-6)
    assert found.after < 0.1
    if count > 1:
        assert recovered(low, original, x, steps=5).before == pytest.approx(0.0, abs=1e-12), "of logits nothing is lost"


def test_outputs_in_a_table_are_distilled_one_by_one(original: nn.Module, cut: nn.Module, x: Tensor) -> None:
    class Table(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            out = self.net(x)
            return {"out": out, "first": out.argmax(1)}

    found = recovered(Table(cut), Table(original), x, steps=5)
    plain = recovered(cut, original, x, steps=5)
    assert found.curve == plain.curve
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), plain.model.parameters(), strict=True))


def test_tokens_are_not_mixed() -> None:
    torch.manual_seed(0)
    original = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    other = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    found = recovered(other, original, torch.randint(9, (64, 3)), steps=40)
    assert found.after < found.before


def test_a_network_that_gives_classes_only_cannot_learn() -> None:
    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).argmax(1)

    with pytest.raises(UsageError, match="gives no real numbers that training could bring nearer"):
        recover(Classes(), Classes(), torch.randn(8, 4), steps=1)


def test_images_are_mirrored_only_where_that_is_allowed(original: nn.Module, cut: nn.Module, x: Tensor) -> None:
    mirrored, straight = (recover(cut, original, x, steps=2, mirror=mirror) for mirror in (True, False))
    assert not all(torch.equal(a, b) for a, b in zip(mirrored.parameters(), straight.parameters(), strict=True))


def test_the_curve_of_a_long_one_is_short(original: nn.Module, cut: nn.Module, x: Tensor) -> None:
    small = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    found = recovered(small, small, x + 1, steps=130)
    assert len(found.curve) <= 50
    assert found.curve[-1][0] == 130


@pytest.mark.parametrize(
    ("given", "error", "what"),
    [
        ({"steps": 0}, UsageError, "recovery with 0 steps does nothing: ask for at least 1"),
        ({"method": "distil"}, UnknownNameError, "unknown recovery 'distil'; did you mean 'distill'"),
        ({"images": torch.zeros(1, 1, 28, 28)}, UsageError, "pass at least 2, better 256"),
        ({"method": "fine-tune"}, UsageError, r"fine-tune learns from labels: pass labels \(N,\) of the 64 images"),
        ({"method": "fine-tune", "labels": torch.zeros(3, dtype=torch.long)}, UsageError, r"\(3 given\)"),
        ({"images": torch.full((8, 1, 28, 28), 1e30)}, TrialError, "distill diverged at step 1: its loss is"),
    ],
)
def test_bad_requests_are_refused(
    given: dict[str, Any], error: type[Exception], what: str, original: nn.Module, cut: nn.Module, x: Tensor
) -> None:
    with pytest.raises(error, match=what):
        recover(cut, original, **{"images": x, "steps": 2, **given})


def test_a_configuration_says_what_recovers_it() -> None:
    plain, with_steps = TrialConfig(), TrialConfig(recovery_steps=50)
    assert plain == with_steps, "nothing reads the steps"
    assert plain.calibration is None
    trained = TrialConfig(recovery="distill")
    assert trained.calibration == "train-subset"
    assert trained.key != plain.key
    assert TrialConfig(recovery="distill", recovery_steps=50).key != trained.key
