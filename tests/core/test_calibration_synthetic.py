"""``synthetic``: images whose statistics are those that the network's batch norms remember."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from core.calibration import Scale, calibration_images, synthetic
from core.compress import compress
from core.errors import ModelError, UsageError

SHAPE = (1, 16, 16)
SCALE = Scale((0.3,), (0.35,))


def stripes(count: int, seed: int) -> Tensor:
    """Images of a kind that noise is not: bars of random width, place and direction on black."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.zeros(count, *SHAPE)
    for image in pixels:
        start, width, upright = (int(torch.randint(1, n, (), generator=generator)) for n in (9, 6, 3))
        image[0, :, start : start + width] = float(torch.rand((), generator=generator)) * 0.5 + 0.5
        if upright == 1:
            image.copy_(image.transpose(-1, -2).clone())
    return SCALE.apply(pixels)


def network(norm: bool = True) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for inside, out in ((1, 16), (16, 16), (16, 24)):
            layers += [nn.Conv2d(inside, out, 3, padding=1), *([nn.BatchNorm2d(out)] if norm else []), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 4))


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    """A network that remembers stripes."""
    made = network()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        made.train()(stripes(512, 0))
    return made.eval()


def mismatch(net: nn.Module, images: Tensor) -> float:
    """Mean over norms and channels of ((m − μ)² + (√v − σ)²) / σ², by hand."""
    inside: list[Tensor] = []
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    handles = [m.register_forward_hook(lambda _, x, __: inside.append(x[0])) for m in norms]
    with torch.no_grad():
        net(images)
    for handle in handles:
        handle.remove()
    found = []
    for norm, x in zip(norms, inside, strict=True):
        var = norm.running_var.clamp_min(1e-3 * float(norm.running_var.mean()))
        off = (x.mean((0, 2, 3)) - norm.running_mean) ** 2 + (x.std((0, 2, 3)) - norm.running_var.sqrt()) ** 2
        found.append((off / var).mean())
    return float(torch.stack(found).mean())


def made(net: nn.Module, count: int = 64, seed: int = 0, scale: Scale | None = SCALE) -> Tensor:
    return calibration_images("synthetic", model=net, shape=SHAPE, count=count, seed=seed, scale=scale)


@pytest.fixture(scope="module")
def images(net: nn.Sequential) -> Tensor:
    return made(net)


class TestWhatTheImagesAre:
    def test_their_statistics_are_those_of_the_norms(self, net: nn.Module, images: Tensor) -> None:
        noise = calibration_images("noise", shape=SHAPE, count=64)
        assert mismatch(net, stripes(64, 1)) < 0.05, "the yardstick"
        assert mismatch(net, images) < 0.1 * mismatch(net, noise)

    def test_also_when_they_are_shifted_or_mirrored(self, net: nn.Module, images: Tensor) -> None:
        noise = mismatch(net, calibration_images("noise", shape=SHAPE, count=64))
        shifted = nn.functional.pad(images, (1, 0, 0, 1), mode="replicate")[..., 1:, :16]
        assert mismatch(net, shifted) < 0.15 * noise
        assert mismatch(net, images.flip(-1)) < 0.15 * noise

    def test_without_a_scale_too(self, net: nn.Module) -> None:
        noise = calibration_images("noise", shape=SHAPE, count=64)
        assert mismatch(net, made(net, scale=None)) < 0.2 * mismatch(net, noise)

    def test_they_stay_within_what_pixels_can_be(self, images: Tensor) -> None:
        low, high = (float(bound) for bound in SCALE.bounds())
        assert low <= float(images.min()) < float(images.max()) <= high
        assert low == pytest.approx(-0.3 / 0.35)
        assert high == pytest.approx(0.7 / 0.35)

    def test_they_differ_from_one_another(self, images: Tensor) -> None:
        apart = torch.cdist(images.flatten(1), images.flatten(1)) + 1e9 * torch.eye(len(images))
        assert float(apart.min()) > 1.0

    def test_a_decomposition_gains_from_them(self, net: nn.Module, images: Tensor) -> None:
        """The outputs on real images are nearer to the original's than with noise."""
        real = stripes(256, 2)
        off = {}
        for name, given in {"synthetic": images, "noise": calibration_images("noise", shape=SHAPE, count=64)}.items():
            small = compress(net, real[:1], ratio=0.5, decomposition="least-squares", calibration=given).model
            with torch.no_grad():
                off[name] = float((small(real) - net(real)).square().mean())
        assert off["synthetic"] < 0.7 * off["noise"]


class TestDraws:
    def test_batches_are_of_one_size_and_together_as_many_as_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert synthetic._sizes(256, (1, 28, 28)) == [64] * 4
        assert synthetic._sizes(65, (1, 28, 28)) == [33, 32]
        assert synthetic._sizes(1, (1, 28, 28)) == [1]
        assert synthetic._sizes(20, (3, 224, 224)) == [7, 7, 6]

    def test_the_next_batch_begins_elsewhere(self, net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(synthetic, "STEPS", 3)
        monkeypatch.setattr(synthetic, "BATCH", 8)
        first, second = made(net, count=16).split(8)
        assert not torch.allclose(first, second)

    def test_it_works_where_torch_records_no_gradients(self, net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(synthetic, "STEPS", 3)
        with torch.no_grad():
            images = made(net, count=4)
        with torch.inference_mode():
            again = made(net, count=4)
        assert torch.equal(images, made(net, count=4))
        assert torch.equal(images, again)


class TestRefusals:
    def test_a_network_without_batch_norm(self) -> None:
        with pytest.raises(UsageError, match=r"this network has none: use noise or folder:PATH"):
            made(network(norm=False))

    def test_norms_that_remember_nothing(self) -> None:
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten())
        with pytest.raises(UsageError, match="has none"):
            made(net)

    def test_norms_that_never_run(self) -> None:
        class Idle(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm, self.fc = nn.BatchNorm2d(1), nn.Linear(256, 3)

            def forward(self, x: Tensor) -> Tensor:
                return self.fc(x.flatten(1))

        with pytest.raises(UsageError, match="none of this network's batch norms runs"):
            made(Idle())

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("name", ["1.running_mean", "3.weight"])
    def test_values_that_are_not_finite(self, value: float, name: str) -> None:
        net = network()
        net.state_dict()[name].view(-1)[0] = value
        with pytest.raises(ModelError, match=r"NaN or infinite values .*: look at its weights and running statistics"):
            made(net)

    def test_images_of_another_shape_than_the_network_takes(self, net: nn.Module) -> None:
        with pytest.raises(ModelError, match=r"does not take images \(3, 16, 16\) \(.*\): name their shape"):
            calibration_images("synthetic", model=net, shape=(3, 16, 16))


def test_outputs_other_than_logits_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "STEPS", 2)
    for net in (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(256))):
        assert made(net, count=3).shape == (3, *SHAPE)
