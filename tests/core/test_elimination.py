"""Backward elimination against brute force: which channels go, and what each removal costs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from core import elimination
from core.criteria.base import Consumer, InputMoments
from core.elimination import DAMPING, eliminate, parts_of
from tests import oracle


def made(x: Tensor, weight: Tensor, taps: int = 1, *, biased: bool = True, channel: Tensor | None = None) -> Consumer:
    """A linear consumer of x (m, n·taps) with ``weight`` (out, n·taps)."""
    n = weight.shape[1] // taps
    moments = InputMoments(
        len(x), x.mean(0)[None], (x.T @ x / len(x))[None], x.abs().mean(0)[None], (x != 0).double().mean(0)[None]
    )
    return Consumer(
        name="reader",
        channel=torch.arange(n) if channel is None else channel,
        weight=weight.view(-1, n, taps).transpose(0, 1),
        group=torch.zeros(n, dtype=torch.long),
        column=torch.arange(n * taps).view(n, taps),
        biased=biased,
        look=lambda: moments,
    )


def inputs(count: int, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.relu(torch.randn(count, size, generator=generator, dtype=torch.float64) @ mixed + 0.3)


def weights(out: int, size: int, seed: int = 1) -> Tensor:
    return torch.randn(out, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("biased", [False, True])
def test_order_and_costs_equal_brute_force(taps: int, biased: bool) -> None:
    x, w = inputs(60, 6 * taps), weights(4, 6 * taps)
    order, spent = eliminate(parts_of([made(x, w, taps, biased=biased)]), 6)
    expected, costs = oracle.elimination([(x.numpy(), w.numpy(), biased)], 6, taps, DAMPING)
    assert order.tolist() == expected
    torch.testing.assert_close(spent, torch.from_numpy(costs), rtol=1e-9, atol=1e-12)


def test_several_readers_add_up() -> None:
    both = [(inputs(50, 8, 3), weights(3, 8, 4), True), (inputs(50, 8, 5), weights(5, 8, 6), False)]
    order, spent = eliminate(parts_of([made(x, w, biased=b) for x, w, b in both]), 8)
    expected, costs = oracle.elimination([(x.numpy(), w.numpy(), b) for x, w, b in both], 8, 1, DAMPING)
    assert order.tolist() == expected
    torch.testing.assert_close(spent, torch.from_numpy(costs), rtol=1e-9, atol=1e-12)


def test_a_given_order_costs_what_brute_force_says() -> None:
    x, w, order = inputs(60, 7), weights(4, 7), [3, 0, 6, 1, 2, 5, 4]
    found, spent = eliminate(parts_of([made(x, w)]), 7, torch.tensor(order))
    assert found.tolist() == order
    expected = [oracle.lost(x.numpy(), w.numpy(), order[: m + 1], 1, DAMPING, centred=True) for m in range(7)]
    torch.testing.assert_close(spent, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pending", [1, 7, 12])
def test_how_much_is_collected_before_it_is_worked_in_changes_nothing(
    pending: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w = inputs(400, 60), weights(20, 60)
    order, spent = eliminate(parts_of([made(x, w, 3)]), 20)
    monkeypatch.setattr(elimination, "PENDING", pending)
    again, costs = eliminate(parts_of([made(x, w, 3)]), 20)
    assert torch.equal(order, again)
    torch.testing.assert_close(costs, spent, rtol=1e-8, atol=1e-12)


def test_all_is_lost_in_the_end_and_nothing_is_gained_on_the_way() -> None:
    x, w = inputs(80, 9), weights(4, 9)
    spent = eliminate(parts_of([made(x, w)]), 9)[1]
    assert torch.equal(spent.cummax(0).values, spent)
    assert 0.99 < float(spent[-1]) < 1.2  # damping makes it a little more than everything


def test_a_twin_and_a_dead_channel_go_first_and_cost_nothing() -> None:
    x, w = inputs(200, 6), weights(4, 6)
    x[:, 4], x[:, 2] = x[:, 1], 0.0
    order, spent = eliminate(parts_of([made(x, w)]), 6)
    assert order[0] == 2
    assert order[1] in (1, 4)
    assert float(spent[1]) < 0.02 < float(spent[-1])


@pytest.mark.parametrize(
    "spoil", [lambda x: x.zero_(), lambda x: x.fill_(3.0), lambda x: x.mul_(1e-200), lambda x: x.mul_(1e60)]
)
def test_inputs_that_say_nothing_give_finite_costs(spoil: Callable[[Tensor], Tensor]) -> None:
    x = spoil(inputs(20, 5))
    order, spent = eliminate(parts_of([made(x, weights(3, 5))]), 5)
    assert sorted(order.tolist()) == list(range(5))
    assert bool(spent.isfinite().all())


def test_a_huge_mean_leaves_finite_costs() -> None:
    """What is left of the covariance is rounding then, and may be indefinite."""
    x = inputs(30, 5)
    x[:, 2] = 1e9 + x[:, 2] * 1e3
    x[:, 3] = -1e9
    order, spent = eliminate(parts_of([made(x.float(), weights(3, 5).float())]), 5)
    assert sorted(order.tolist()) == list(range(5))
    assert bool(spent.isfinite().all())


def test_fewer_rows_than_inputs_are_enough() -> None:
    order, spent = eliminate(parts_of([made(inputs(4, 12), weights(3, 12))]), 12)
    assert sorted(order.tolist()) == list(range(12))
    assert bool(spent.isfinite().all())


def test_a_reader_of_some_channels_counts_them_only() -> None:
    x, w = inputs(60, 3), weights(4, 3)
    order, spent = eliminate(parts_of([made(x, w, channel=torch.tensor([1, 3, 4]))]), 6)
    assert sorted(order[:3].tolist()) == [0, 2, 5]
    assert spent[:3].tolist() == [0.0, 0.0, 0.0]


def test_each_group_of_a_grouped_reader_has_its_own_inputs() -> None:
    x, w = inputs(80, 4), weights(6, 4)
    halves = [made(x[:, some], w[:3, some]) for some in (slice(0, 2), slice(2, 4))]
    moments = [half.moments for half in halves]
    both = InputMoments(
        80,
        torch.cat([m.mean for m in moments]),
        torch.cat([m.second for m in moments]),
        torch.cat([m.magnitude for m in moments]),
        torch.cat([m.active for m in moments]),
    )
    grouped = Consumer(
        name="grouped",
        channel=torch.arange(4),
        weight=torch.cat([half.weight for half in halves]),
        group=torch.tensor([0, 0, 1, 1]),
        column=torch.tensor([[0], [1], [0], [1]]),
        biased=True,
        look=lambda: both,
    )
    apart = sum(eliminate(parts_of([half]), 2)[1][-1] for half in halves)
    torch.testing.assert_close(eliminate(parts_of([grouped]), 4)[1][-1], torch.as_tensor(apart))
