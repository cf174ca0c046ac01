"""On a GPU: the same networks, the same accuracies, the same records as on the CPU. Skipped where there is none."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core import resumable
from core.calibration import Scale
from core.compress import compress
from core.config import TrialConfig
from core.criteria import CRITERIA
from core.datasets import ImageDataset, load_dataset
from core.decompositions import DECOMPOSITIONS
from core.measure import evaluate, latency_ms, logits_of
from core.models import Recipe
from core.recovery import RECOVERIES, recover
from core.resumable import Continuation
from core.training import train
from core.trial import run_trial
from core.workbench import Workbench
from sweep.api import run
from sweep.backend.shared import share
from tests.core.test_resumable import BrokenOffError, until

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
RECIPE = Recipe(epochs=6, batch_size=64, lr=0.05, augment=True)
IMAGES = 64


def network() -> nn.Module:
    """Convolutions with batch norms, a depthwise one, a residual sum, and two linear layers."""
    torch.manual_seed(3)
    return Net()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32), nn.ReLU())
        self.narrow = nn.Sequential(nn.Conv2d(32, 16, 1), nn.BatchNorm2d(16))
        self.head = nn.Sequential(nn.Conv2d(16, 24, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten())
        self.last = nn.Sequential(nn.Linear(216, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.narrow(self.deep(self.wide(x)))
        return self.last(self.head(x))


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def trained(digits: ImageDataset) -> nn.Module:
    model = network()
    return train(model, digits, RECIPE, seed=0, device="cuda").cpu()


@pytest.fixture(scope="module")
def benches(trained: nn.Module, digits: ImageDataset) -> dict[str, Workbench]:
    """One on the CPU, and one as a worker with a GPU builds it."""
    images, labels = digits.inputs("test")
    train_images, train_labels = digits.inputs("train")
    words: dict[str, Any] = {"train_labels": train_labels, "scale": Scale(digits.mean, digits.std)}
    bench = Workbench(trained.eval(), images, labels, train_images, baseline_key="b", **words).with_original()
    return {"cpu": bench, "cuda": share(bench).build("cuda")}


CONFIGS = [
    *({"criterion": "l1", "decomposition": name} for name in DECOMPOSITIONS.names()),
    *({"criterion": name, "decomposition": "least-squares"} for name in CRITERIA.names()),
    *({"decomposition": "least-squares", "allocation": name} for name in ("global", "budget")),
    *({"decomposition": "least-squares", "calibration": name} for name in ("noise", "synthetic")),
    *({"decomposition": "least-squares", "options": options} for options in ({"decoupling": 0.5}, {"rectified": 2})),
    *({"decomposition": "most-similar", "recovery": name, "recovery_steps": 60} for name in RECOVERIES.names()),
]


def made(words: dict[str, Any]) -> TrialConfig:
    """The configuration, with calibration images where something of it looks at them."""
    given = {"ratio": 0.5, **words}
    try:
        return TrialConfig.model_validate(given)
    except ValueError:
        return TrialConfig.model_validate({"calibration": "train-subset", "calibration_images": IMAGES, **given})


@pytest.mark.parametrize("words", CONFIGS, ids=str)
def test_a_trial_gives_the_same(benches: dict[str, Workbench], words: dict[str, Any]) -> None:
    config = made(words)
    one, other = (run_trial(config, benches[name]) for name in ("cpu", "cuda"))
    assert (one.status, other.status) == ("finished", "finished"), (one.reason, other.reason)
    assert other.key == one.key
    assert other.metrics["params"] == one.metrics["params"]
    assert other.metrics["macs"] == one.metrics["macs"]
    random = words.get("recovery") not in (None, "none") or words.get("calibration") == "synthetic"
    assert other.metrics["accuracy"] == pytest.approx(one.metrics["accuracy"], abs=5 if random else 1)
    assert other.provenance["device"] == torch.cuda.get_device_name()
    assert one.provenance["device"] == "cpu"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_autocast(benches: dict[str, Workbench], precision: Any) -> None:
    bench = replace(benches["cuda"], autocast=precision, original={}).with_original().with_effect()
    assert bench.original["accuracy"] == pytest.approx(benches["cpu"].original["accuracy"], abs=1)
    found = bench.evaluate(bench.model).metrics["loss"]
    assert found != benches["cuda"].evaluate(benches["cuda"].model).metrics["loss"], "it computes in the other type"


def test_an_evaluation_gives_the_same_whatever_the_batch(trained: nn.Module, digits: ImageDataset) -> None:
    images, labels = digits.inputs("test")
    wanted = logits_of(trained, images)
    model = copy.deepcopy(trained).cuda()
    for size in (7, 100, 1000):
        found = logits_of(model, images, size, "cuda")
        assert float((found - wanted).abs().max()) < 0.02 * float(wanted.abs().max()), "TF32 is torch's own choice here"
        there, here = (evaluate(net, images, labels, size, at) for net, at in ((model, "cuda"), (trained, "cpu")))
        assert there.accuracy == pytest.approx(here.accuracy, abs=0.5)


def test_batches_are_halved_until_they_fit() -> None:
    """For real: of the whole memory a small share is ours, and a batch is wider than that."""
    net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images, labels = torch.rand(64, 3, 128, 128), torch.zeros(64, dtype=torch.long)
    wanted = logits_of(net, images, 8)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(150_000_000 / total)
    try:
        found = logits_of(net.cuda(), images, 64, "cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-2)
    assert evaluate(net, images, labels, 64, "cuda").images == 64


def test_latencies_wait_for_the_device(trained: nn.Module) -> None:
    net = nn.Sequential(*(nn.Linear(4096, 4096) for _ in range(8))).cuda()
    short = latency_ms(net[:1], torch.rand(256, 4096, device="cuda"))
    assert latency_ms(net, torch.rand(256, 4096, device="cuda")) > 3 * short


def test_a_training_that_was_broken_off_goes_on(
    digits: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "SAVE_SECONDS", 0.0)

    def again(**more: Any) -> nn.Module:
        return train(network(), digits, RECIPE, seed=7, device="cuda", **more)

    whole = again().state_dict()
    kept = Continuation(tmp_path / "net.training", "it")
    with pytest.raises(BrokenOffError):
        again(progress=until(3), continuation=kept)
    rest = again(continuation=kept).state_dict()
    for name, value in whole.items():
        assert value.device.type == "cuda"
        torch.testing.assert_close(rest[name], value, rtol=0.1, atol=0.05)  # a GPU's sums are not the same twice


def test_recovery_stays_on_the_device(benches: dict[str, Workbench]) -> None:
    bench = benches["cuda"]
    images = bench.some(200)
    assert isinstance(images, Tensor)
    small = compress(bench.model, images[:1], ratio=0.6, decomposition="most-similar").model
    better = recover(small, bench.model, images, method="distill", steps=50, seed=0)
    assert {p.device.type for p in better.parameters()} == {"cuda"}
    assert bench.evaluate(better).metrics["accuracy"] > bench.evaluate(small).metrics["accuracy"]


@pytest.mark.slow
def test_a_sweep(tmp_path: Path) -> None:
    """Four workers share the GPU; the front is that of the CPU."""
    words: dict[str, Any] = {"results": tmp_path / "results", "samples": 24, "seed": 1}
    gpu = run("digits-quick", name="gpu", gpus_per_trial=0.25, **words)
    cpu = run("digits-quick", name="cpu", **words)
    assert gpu.status == cpu.status == "finished"
    assert {t.provenance["device"] for t in gpu.trials} == {torch.cuda.get_device_name()}
    assert {t.key for t in gpu.trials} == {t.key for t in cpu.trials}
    scores = [{t.key: t.metrics["accuracy"] for t in done.trials} for done in (gpu, cpu)]
    for key, value in scores[0].items():
        assert value == pytest.approx(scores[1][key], abs=1.5), key
    for record in gpu.front:
        model = gpu.model(record)
        assert {p.device.type for p in model.parameters()} == {"cpu"}
        assert float(sum(p.numel() for p in model.parameters())) == record.metrics["params"]
    assert {path.stem for path in (gpu.folder / "models").glob("*.safetensors")} == {r.key for r in gpu.front}
