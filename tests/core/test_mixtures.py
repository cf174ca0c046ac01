"""Calibration images seen several times: mirrored and mixed, never where labels or statistics of images are wanted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.calibration.mixtures import AUTO, ENOUGH, NUMBERS, copies_for, extended
from core.compress import compress, prepare
from core.config import TrialConfig
from core.errors import UsageError
from core.trial import run_trial
from core.workbench import Workbench
from tests.core.nets import images, make


def test_each_image_is_there_mirrored_and_mixed() -> None:
    x = images(8)
    assert extended(x, 1) is x
    found = extended(x, 4)
    assert found.shape == (32, *x.shape[1:])
    fitted, judged = found[:24], found[24:]
    assert torch.equal(fitted[:6], x[:6])
    assert torch.equal(fitted[6:12], x[:6].flip(-1))
    assert torch.equal(judged[:2], x[6:])
    pool = torch.cat([x[:6], x[:6].flip(-1)]).flatten(1)
    for mixture in fitted[12:].flatten(1):  # lies between two of them
        pairs = [(a, b) for a in pool for b in pool]
        away = min(
            float((mixture - a - ((mixture - a) @ (b - a)) / (b - a).square().sum().clamp_min(1e-9) * (b - a)).norm())
            for a, b in pairs
        )
        assert away < 1e-4
    assert torch.equal(extended(x, 4), found)
    assert not torch.equal(extended(x, 4, seed=1), found)


def test_without_mirror_images_all_others_are_mixtures() -> None:
    x = images(8)
    found = extended(x, 2, mirror=False)
    assert torch.equal(found[:6], x[:6])
    assert not any(torch.equal(one, other.flip(-1)) for one in found[6:12] for other in x[:6])
    assert extended(torch.randn(6, 5), 3).shape == (18, 5)


def test_left_to_us_few_small_images_are_seen_more_often() -> None:
    assert copies_for(images(64), "auto") == AUTO
    assert copies_for(torch.zeros(ENOUGH, 3), "auto") == 1
    assert copies_for(torch.zeros(2, NUMBERS // 4), "auto") == 1
    assert copies_for(torch.zeros(64, 3, dtype=torch.long), "auto") == 1
    assert copies_for(torch.zeros(ENOUGH, 3), 3) == 3


def test_a_budget_sees_them_and_nothing_else_does_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    (net, _), x = make("plain"), images(64)
    prepared = prepare(net, x[:1])
    how: dict[str, Any] = {"criterion": "obs", "decomposition": "least-squares", "calibration": x}
    compress(prepared, x[:1], **how)
    compress(prepared, x[:1], **{**how, "decomposition": "most-similar", "allocation": "budget"})
    assert not prepared._extended
    same = compress(prepared, x[:1], allocation="budget", **how)
    (only,) = prepared._extended.values()
    again = compress(prepared, x[:1], allocation="budget", copies=4, **how)
    assert len(only) == 4 * 64
    assert torch.equal(same.model(x), again.model(x))


def test_they_are_refused_where_they_mean_nothing() -> None:
    (net, _), x = make("plain"), images(64)
    with pytest.raises(UsageError, match="copies = 0: must be 'auto' or a whole number"):
        compress(net, x[:1], copies=0)
    with pytest.raises(UsageError, match="bn_recalibrate wants the statistics of images"):
        compress(net, x[:1], copies=4, options={"bn_recalibrate": True}, calibration=x)
    with pytest.raises(UsageError, match="labels belong to images"):
        compress(net, x[:1], copies=4, criterion="taylor", calibration=x, labels=torch.zeros(64, dtype=torch.long))


def test_in_a_configuration_they_count_where_they_are_read() -> None:
    fitted = TrialConfig.parse({"decomposition": "least-squares", "calibration_copies": 4})
    assert fitted.key != TrialConfig.parse({"decomposition": "least-squares"}).key
    for values in ({}, {"criterion": "taylor"}, {"options": {"bn_recalibrate": True}}):
        assert TrialConfig.parse({**values, "calibration_copies": 4}) == TrialConfig.parse(values)
    net, _ = make("plain")
    x = images(64)
    bench = Workbench(net, x, torch.zeros(64, dtype=torch.long), images(64)).with_original()
    assert run_trial(fitted, bench).status == "finished"
