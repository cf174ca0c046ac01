"""Allocation ``budget``: the budget is met and used up, and spent where errors say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from core.appraisal import distance
from core.compress import Result, compress, prepare
from core.errors import UsageError
from core.measure import sizes
from tests.core.nets import images
from tests.trained import FAMILIES


def cut(net: torch.nn.Module, x: torch.Tensor, ratio: float, **options: Any) -> Result:
    chosen = {"criterion": "obs", "decomposition": "least-squares", "allocation": "budget", "sharpness": 1.0}
    return compress(net, x[:1], ratio=ratio, calibration=x, **{**chosen, **options})


def left(result: Result, net: torch.nn.Module, x: torch.Tensor, of: str = "params") -> float:
    return sizes(result.model, x[:1])[of] / sizes(net, x[:1])[of]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("of", ["params", "macs", "bytes"])
@pytest.mark.parametrize("family", ["vgg", "mobile"])
def test_the_budget_is_met_and_used_up(family: str, of: str, x: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = FAMILIES[family]().eval()
    prepared = prepare(net, x[:1])
    for ratio in (0.5, 0.9):
        for sharpness in (0.0, 1.0):
            result = cut(prepared, x, ratio, of=of, sharpness=sharpness)  # type: ignore[arg-type]
            assert 1 - ratio - 0.01 < left(result, net, x, of) <= 1 - ratio, (ratio, sharpness)


def test_sharpness_goes_from_alike_to_where_it_costs_least(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    net: Any = FAMILIES["vgg"]().eval()
    net.features[3][0].weight.data[:, 16:] = 0.0  # nobody misses half of the first set
    prepared = prepare(net, x[:1])
    shares = {}
    for sharpness in (0.0, 1.0):
        result = cut(prepared, x, 0.6, sharpness=sharpness)  # type: ignore[arg-type]
        shares[sharpness] = [len(s.kept) / s.size for s in result.sites]
    assert max(shares[0.0]) - min(shares[0.0]) <= 0.1
    assert shares[1.0][0] <= 0.5 < max(shares[1.0])


def test_auto_takes_one_of_those_it_tries_and_says_so(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = FAMILIES["vgg"]().eval()
    prepared = prepare(net, x[:1])
    result = cut(prepared, x, 0.8, sharpness="auto")  # type: ignore[arg-type]
    (note,) = result.notes
    chosen = float(note.split()[1])
    again = cut(prepared, x, 0.8, sharpness=chosen)  # type: ignore[arg-type]
    assert [s.kept for s in result.sites] == [s.kept for s in again.sites]
    assert note == f"sharpness {chosen:g} keeps the outputs best"


@pytest.mark.parametrize("criterion", ["l1", "obs"])
@pytest.mark.parametrize("decomposition", ["none", "most-similar", "least-squares"])
def test_any_criterion_and_decomposition_have_curves(criterion: str, decomposition: str, x: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = FAMILIES["vgg"]().eval()
    result = cut(net, x, 0.7, criterion=criterion, decomposition=decomposition)
    assert 0.28 < left(result, net, x) <= 0.3


def test_curves_never_fall_and_begin_at_nothing(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    prepared = prepare(FAMILIES["vgg"]().eval(), x[:1])
    for own in prepared.channels.sets:
        curve = prepared.curve(own, prepared.scores(own, "l1").values, x)
        assert len(curve) == own.size + 1
        assert curve[0] == 0.0
        assert bool((np.diff(curve) >= 0).all())
        obs = prepared.curve(own, prepared.scores(own, "obs", x).values, x)
        assert obs[own.size // 2] <= curve[own.size // 2] + 1e-12, "elimination is greedy on this very curve"


def test_what_obs_has_found_out_is_the_curve(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    prepared = prepare(FAMILIES["vgg"]().eval(), x[:1])
    for own in prepared.channels.sets:
        scores = prepared.scores(own, "obs", x).values
        known = prepared.curve(own, scores, x, cumulative=True)
        np.testing.assert_allclose(known, prepared.curve(own, scores, x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{"multiple": 8}, {"min_channels": 12}, {"multiple": 4, "min_channels": 10}])
def test_widths_are_multiples_and_not_too_small(options: dict[str, int], x: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = FAMILIES["vgg"]().eval()
    for allocation in ("budget", "uniform", "global"):
        result = cut(net, x, 0.7, allocation=allocation, **options)
        for site in result.sites:
            kept, multiple = len(site.kept), options.get("multiple", 1)
            assert kept % multiple == 0 or kept == site.size
            assert kept >= options.get("min_channels", 1)
        if allocation == "budget":
            assert left(result, net, x) <= 0.3


def test_a_budget_that_cannot_be_met_is_refused(x: torch.Tensor) -> None:
    net = FAMILIES["vgg"]().eval()
    with pytest.raises(UsageError, match=r"a budget of 0\.1 % of the params cannot be reached: .* % are left; lower"):
        cut(net, x, 0.999, min_channels=4)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"sharpness": 1.5}, "sharpness = 1.5: must be 'auto' or from 0"),
        ({"sharpness": "sharp"}, "sharpness = 'sharp': must be"),
        ({"of": "flops"}, "of = 'flops': must be 'params', 'macs' or 'bytes'"),
        ({"multiple": 0}, "multiple = 0: must be a whole number of at least 1"),
        ({"min_channels": -1}, "min_channels = -1"),
        ({"calibration": None, "criterion": "l1", "decomposition": "none"}, "allocation 'budget' looks at activations"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], what: str, x: torch.Tensor) -> None:
    given = {"calibration": x, "criterion": "obs", "decomposition": "none", "allocation": "budget", **options}
    with pytest.raises(UsageError, match=what):
        compress(FAMILIES["vgg"]().eval(), x[:1], ratio=0.5, **given)


def test_it_works_where_channels_must_stay_balanced() -> None:
    """A grouped convolution wants as many channels of each group."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 12, 3), torch.nn.ReLU(), torch.nn.Conv2d(12, 12, 3, groups=3), torch.nn.ReLU(),
        torch.nn.Conv2d(12, 5, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    ).eval()  # fmt: skip
    x = images(16)
    result = cut(net, x, 0.5)
    assert left(result, net, x) <= 0.5
    assert all(len(site.kept) % 3 == 0 for site in result.sites)


def test_values_are_compared_as_values_and_logits_by_their_differences() -> None:
    wanted = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    assert distance(wanted, wanted + 5) == pytest.approx(0.0, abs=1e-12)
    assert distance(wanted, wanted + 5, logits=False) > 10
    assert distance(wanted[:, :1], wanted[:, :1] + 5) > 10, "one number is no distribution"
