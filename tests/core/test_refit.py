"""Sequential refit: the closed form against numpy, exactness where the original is reachable, residual sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from core.compress import compress
from core.decompositions.least_squares import LeastSquares
from core.errors import ModelError
from core.moments import Moments
from core.windows import unfold
from tests.core.nets import images, make


def test_the_solution_is_the_ridge_solution_in_plain_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(50, 6, generator=generator) + 3, torch.randn(50, 4, generator=generator) - 2
    v_kept = torch.randn(4, 6, generator=generator)
    moments = Moments()
    for rows, outputs in zip(torch.split(x, 7), torch.split(t, 7), strict=True):
        moments.add(rows[None], outputs[None])
    v, b = (part[0] for part in LeastSquares(damping=0.3).solve(moments, v_kept[None]))
    xn, tn = x.double().numpy(), t.double().numpy()
    xc, tc = xn - xn.mean(0), tn - tn.mean(0)
    a = 0.3 * (1 + 600 * 6 / 50) * (xc**2).mean(0).mean()
    # minimise |tc - xc V'|^2 / N + a |V - V_K|^2 as one stacked least-squares problem
    left = np.vstack([xc / np.sqrt(50), np.sqrt(a) * np.eye(6)])
    right = np.vstack([tc / np.sqrt(50), np.sqrt(a) * v_kept.double().numpy().T])
    expected = np.linalg.lstsq(left, right, rcond=None)[0].T
    np.testing.assert_allclose(v.numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b.numpy(), tn.mean(0) - expected @ xn.mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("flat", "damping"), [(False, 1e-4), (True, 2e-3)])
def test_damping_left_to_us_is_smaller_where_layers_see_patches(flat: bool, damping: float) -> None:
    x = images(64)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 12), nn.ReLU(), nn.Linear(12, 4))
    net = mlp.eval() if flat else make("plain")[0]

    def compressed(options: dict[str, float]) -> dict[str, torch.Tensor]:
        return compress(net, x[:1], decomposition="least-squares", options=options, calibration=x).model.state_dict()

    ours, same, other = (compressed(o) for o in ({}, {"damping": damping}, {"damping": 2.1e-3 - damping}))
    assert all(torch.equal(ours[n], same[n]) for n in ours)
    assert not all(torch.equal(ours[n], other[n]) for n in ours)


def test_twins_are_recovered_from_images_alone() -> None:
    original, doubled = make("plain")
    options = {"prior_threshold": 1.0, "damping": 1e-8}
    result = compress(doubled, images(), decomposition="least-squares", options=options, calibration=images(512))
    x = images(8)
    with torch.no_grad():
        assert float((result.model(x) - original(x)).abs().max()) < 1e-2
    assert max(max(s.reconstruction.values()) for s in result.sites) < 1e-4


@pytest.mark.parametrize("name", ["residual", "pre-activation"])
def test_refit_beats_pruning_and_a_sum_absorbs_what_the_skip_lost(name: str) -> None:
    net, _ = make(name)
    x = images(256)

    def error(method: str) -> float:
        model = compress(net, x[:1], ratio=0.5, decomposition=method, calibration=x[:128]).model
        return float((model(x[128:]) - net(x[128:])).square().mean().detach())

    assert error("least-squares") < 0.35 * error("none")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(3, 5, 3, stride=2, padding=1),
        nn.Conv2d(3, 5, (3, 2), dilation=2),
        nn.Conv2d(3, 5, 3, padding="same"),
        nn.Conv3d(3, 5, 2, stride=2),
    ],
    ids=["1d", "2d", "same", "3d"],
)
def test_patches_times_weight_is_the_convolution(layer: nn.Module) -> None:
    x = torch.randn(2, 3, *[9] * (layer.weight.dim() - 2))
    expected = (layer(x) - layer.bias.view(1, -1, *[1] * (x.dim() - 2))).flatten(2)
    found = torch.einsum("ok,nkp->nop", layer.weight.flatten(1), unfold(layer, x))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_mixing_stretches_few_images_and_leaves_many_alone() -> None:
    method = LeastSquares(mixed_to=100)
    few = images(10)
    stretched = method.stretch(few)
    assert stretched.shape == (100, 3, 8, 8)
    assert not torch.equal(stretched[10:20], stretched[20:30])
    assert torch.equal(stretched[:10], few)
    assert torch.equal(stretched, method.stretch(few)), "the same images give the same mixtures"
    assert method.stretch(images(200)).shape[0] == 200
    assert torch.equal(LeastSquares(mixed_to=0).stretch(few), few)


def test_calibration_of_the_wrong_shape_is_one_sentence() -> None:
    net, _ = make("plain")
    with pytest.raises(ModelError, match=r"does not run on calibration images of shape \(4, 1, 8, 8\)"):
        compress(net, images(), decomposition="least-squares", calibration=torch.randn(4, 1, 8, 8))
