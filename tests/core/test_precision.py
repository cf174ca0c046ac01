"""Autocast: an evaluation's forward passes compute in half precision, nothing else does, and its effect is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.config import TrialConfig
from core.errors import UsageError
from core.evaluators import EVALUATORS
from core.precision import autocasting
from core.records import Precision
from core.trial import run_trial
from core.workbench import Workbench
from sweep.backend.shared import share
from tests.core.nets import images, make


class Keeping(nn.Module):
    """Says what its layer computed in; fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(64, 10), list[torch.dtype]()

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.layer(x)
        self.seen.append(y.dtype)
        if len(x) > 4:
            raise RuntimeError("too many")
        return {"logits": y, "count": len(x)}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_outputs_are_those_of_autocast_in_full_precision(precision: Precision) -> None:
    torch.manual_seed(0)
    net, x = Keeping().eval(), torch.randn(4, 64)
    plain = net(x)["logits"]
    with torch.autocast("cpu", getattr(torch, precision)):
        wanted = net(x)["logits"]
    with torch.no_grad(), autocasting(net, precision, "cpu"):
        found = net(x)
        alone = net.layer(x)
    assert net.seen == [torch.float32, wanted.dtype, wanted.dtype]
    assert found["logits"].dtype == alone.dtype == torch.float32
    torch.testing.assert_close(found["logits"], wanted.float(), rtol=0, atol=0)
    assert not torch.equal(found["logits"], plain)
    assert torch.equal(alone, plain), "who calls a part of the network does it as always"
    assert torch.equal(net(x)["logits"], plain), "and so does everyone afterwards"


def test_a_network_that_fails_leaves_nothing_behind() -> None:
    net, x = Keeping().eval(), torch.randn(5, 64)
    with autocasting(net, "bfloat16", "cpu"):
        for _ in range(2):
            with pytest.raises(RuntimeError, match="too many"):
                net(x)
            assert not torch.is_autocast_enabled("cpu")
        net(x[:4])
    with pytest.raises(RuntimeError, match="too many"):
        net(x)
    assert net.seen == [*[torch.bfloat16] * 3, torch.float32]
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


def test_without_a_precision_nothing_changes() -> None:
    net, x = Keeping().eval(), torch.randn(4, 64)
    with autocasting(net, None, "cpu"):
        assert not net._forward_hooks
        net(x)
    assert net.seen == [torch.float32]


def test_a_device_that_does_not_compute_so_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    with (
        pytest.raises(UsageError, match=r"evaluation.autocast = 'float16' does not work on this machine's cpu \(torch"),
        autocasting(Keeping(), "float16", "cpu"),
    ):
        raise AssertionError("it went on")


def bench(autocast: Precision | None, **values: Any) -> Workbench:
    net, _ = make("plain")
    x = images(120)
    labels = net.eval()(x).argmax(1)
    return Workbench(model=net, images=x, labels=labels, train_images=x, autocast=autocast, **values)


def test_trials_are_evaluated_with_it_and_the_effect_is_kept() -> None:
    half, full = bench("bfloat16").with_original(), bench(None).with_original()
    assert half.original["loss"] != full.original["loss"]
    assert half.with_effect().original["full_precision_accuracy"] == full.original["accuracy"] == 100
    assert "full_precision_accuracy" not in full.with_effect().original
    config = TrialConfig(ratio=0.5)
    found, plain, shared = (run_trial(config, one) for one in (half, full, share(half).build()))
    assert found.key == plain.key
    assert found.metrics["loss"] != plain.metrics["loss"]
    assert found.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=0.1)
    assert shared.metrics["loss"] == found.metrics["loss"]
    assert found.metrics["params"] == plain.metrics["params"]
    assert [site["kept"] for site in found.sites] == [site["kept"] for site in plain.sites]


def test_evaluators_that_measure_are_given_it_too() -> None:
    seen: list[torch.dtype] = []

    def measure(model: nn.Module, batches: Any, device: str) -> float:
        outputs = [model(x) for x, _ in batches]
        seen.extend(y.dtype for y in outputs)
        return float(sum(y.sum() for y in outputs))

    scored = replace(EVALUATORS.get("task"), measure=measure)
    half, full = (bench(name, scored=scored).measured_by(measure) for name in ("bfloat16", None))
    assert half.with_original().original["score"] != full.with_original().original["score"]
    found = half.with_original().with_effect().original
    assert found["full_precision_score"] == full.with_original().original["score"]
    assert set(seen) == {torch.float32}
