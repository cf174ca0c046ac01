"""The scale matrix: against a slow loop, against the authors' published matrices, and at its edges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from core.channels import find_channels
from core.decompositions.most_similar import MostSimilar, min_max
from core.signature import Signature
from core.signatures import signatures
from tests import oracle
from tests.planting import randomise


def linear_signature(rows: Tensor) -> Signature:
    rows = rows.double()
    return Signature(rows @ rows.T, torch.zeros(len(rows), dtype=torch.float64))


def conv_signature(net: nn.Module, x: Tensor) -> Signature:
    channels = find_channels(net, x)
    return next(iter(signatures(channels, channels.sets[0]).values()))


def conv_bn(weight: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> nn.Sequential:
    n, inside = weight.shape[:2]
    net = nn.Sequential(nn.Conv2d(inside, n, 3, bias=False), nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, 2, 1))
    net[0].weight.data = weight
    net[1].weight.data, net[1].bias.data, net[1].running_mean, net[1].running_var = gamma, beta, mean, var
    return net.eval()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [-1.0, 0.1, 0.45])
def test_linear_scale_matrix_equals_the_slow_loop(seed: int, threshold: float) -> None:
    rows = torch.randn(15, 9, generator=torch.Generator().manual_seed(seed)).double()
    kept = [1, 4, 8, 13]
    z = MostSimilar(threshold=threshold).merge(linear_signature(rows), torch.tensor(kept)).z
    np.testing.assert_allclose(z.numpy(), oracle.most_similar(rows.numpy(), kept, threshold), rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_exact_batch_norm_terms_equal_the_slow_loop(seed: int, lam: float) -> None:
    net = randomise(
        nn.Sequential(nn.Conv2d(2, 10, 3, bias=False), nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 3, 3)), seed
    )
    net[1].weight.data[::3] *= -1
    kept = [0, 2, 5, 7]
    merge = MostSimilar(threshold=0.1, lam=lam).merge(conv_signature(net, torch.randn(1, 2, 8, 8)), torch.tensor(kept))
    numbers = [
        t.detach().double().numpy() for t in (net[1].weight, net[1].bias, net[1].running_mean, net[1].running_var)
    ]
    w = net[0].weight.detach().double().flatten(1).numpy()
    z, offset = oracle.most_similar_exact(w, *numbers, 1e-5, kept, 0.1, lam)
    assert (z[[i for i in range(10) if i not in kept]] != 0).any(), "the case must merge something"
    np.testing.assert_allclose(merge.z.numpy(), z, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(merge.offset.numpy(), offset, atol=1e-6)


def published_cases(reference: Path) -> list[dict]:
    with safe_open(str(reference / "published_scale_matrices.safetensors"), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
        cases = json.loads(file.metadata()["cases"])
    for case in cases:
        case.update({k.split(".")[1]: v for k, v in tensors.items() if k.startswith(f"{case['name']}.")})
    return cases


def test_published_scale_matrices_are_reproduced(reference: Path) -> None:
    cases = published_cases(reference)
    assert len(cases) == 6
    for case in cases:
        if case["kind"] == "linear":
            method = MostSimilar(threshold=case["threshold"])
            signature = linear_signature(case["weight_and_bias"])
        else:
            method = MostSimilar(threshold=case["threshold"], lam=case["lam"], bn_scale="published")
            names = ("weight", "bn_weight", "bn_bias", "bn_running_mean", "bn_running_var")
            net = conv_bn(*(case[name] for name in names))
            signature = conv_signature(net, torch.randn(1, case["weight"].shape[1], 8, 8))
        z = method.merge(signature, case["kept"]).z
        np.testing.assert_allclose(z.numpy(), case["scale"].numpy(), rtol=1e-4, atol=1e-7, err_msg=case["name"])


def test_kept_rows_are_the_identity_and_nothing_merges_below_the_threshold() -> None:
    rows = torch.eye(6, dtype=torch.float64)
    kept = torch.tensor([0, 3])
    z = MostSimilar(threshold=0.1).merge(linear_signature(rows), kept).z
    assert torch.equal(z[kept], torch.eye(2, dtype=torch.float64))
    assert z.sum() == 2


def test_zero_rows_neither_merge_nor_carry() -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [2.0, 0.1]], dtype=torch.float64)
    z = MostSimilar(threshold=-1.0).merge(linear_signature(rows), torch.tensor([0, 1])).z
    assert torch.isfinite(z).all()
    assert z[2].tolist() == [0.0, 0.0]
    assert z[3, 0] == 0
    assert z[3, 1] > 2


def test_min_max_of_equal_values_is_zero_and_ignores_what_is_missing() -> None:
    x = torch.tensor([[3.0, 3.0, 3.0], [1.0, torch.nan, 3.0]])
    found = min_max(x.clone(), x.isnan())
    assert found[0].tolist() == [0.0] * 3
    assert found[1, 0] == 0
    assert found[1, 2] == 1
    assert found[1, 1].isinf()


@pytest.mark.parametrize("op", ["relu", "leaky_relu", "gelu", "silu", "hardswish"])
def test_expected_activation_equals_numerical_integration(op: str) -> None:
    layers = {
        "relu": nn.ReLU(),
        "leaky_relu": nn.LeakyReLU(0.2),
        "gelu": nn.GELU(),
        "silu": nn.SiLU(),
        "hardswish": nn.Hardswish(),
    }
    net = randomise(nn.Sequential(nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), layers[op], nn.Conv2d(6, 3, 1)))
    signature = conv_signature(net, torch.randn(1, 2, 8, 8))
    assert signature.mean is not None
    beta, gamma = net[1].bias.detach().double(), net[1].weight.detach().double()
    y = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    density = torch.exp(-0.5 * y**2) / (2 * torch.pi) ** 0.5
    values = layers[op](beta[:, None] + gamma[:, None] * y)
    expected = torch.trapezoid(values * density, y, dim=1)
    torch.testing.assert_close(signature.mean, expected, rtol=2e-3, atol=2e-3)
    exact = op in ("relu", "leaky_relu")
    assert signature.approximate == (() if exact else (op,))
