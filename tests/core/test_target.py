"""A target instead of a ratio: found by bisection, on functions whose answer is known and on a network."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.compress import compress, prepare
from core.config import TrialConfig
from core.errors import UsageError
from core.target import STEPS, Target, reach
from core.trial import run_trial
from core.workbench import Workbench
from tests.core.nets import images, make


@pytest.fixture
def bench() -> Workbench:
    net, _ = make("plain")
    x = images(200)
    with torch.no_grad():
        labels = net(x).argmax(1)
    return Workbench(net, x, labels, images(64), baseline_key="b").with_original()


@given(st.floats(0, 0.95), st.floats(0, 30))
def test_of_a_drop_the_largest_ratio_and_of_a_size_the_smallest(size: float, drop: float) -> None:
    found, made = reach(Target("accuracy_drop", drop), lambda ratio: ratio, lambda ratio: 30 * ratio)
    scan = max(i / STEPS for i in range(STEPS) if 30 * i / STEPS <= drop + 1e-9)
    assert found == made == scan
    found, made = reach(Target("params_fraction", 1 - size), lambda ratio: ratio, lambda ratio: 1 - ratio)
    assert found == made == min(i / STEPS for i in range(STEPS) if 1 - i / STEPS <= 1 - size + 1e-9)


def test_ratios_that_cannot_be_had_are_not_taken() -> None:
    def make_up_to_half(ratio: float) -> float:
        if ratio > 0.5:
            raise UsageError("so much cannot go")
        return ratio

    assert reach(Target("accuracy_drop", 20.0), make_up_to_half, lambda ratio: 10 * ratio)[0] == 0.5
    assert reach(Target("params_fraction", 0.6), make_up_to_half, lambda ratio: 1 - ratio)[0] == math.ceil(102.4) / 256
    with pytest.raises(UsageError, match=r"target params_fraction<=0.3 cannot be reached: so much cannot go"):
        reach(Target("params_fraction", 0.3), make_up_to_half, lambda ratio: 1 - ratio)


def test_what_is_wrong_at_every_ratio_is_said_as_it_is() -> None:
    def refuse(ratio: float) -> float:
        raise UsageError(f"no images at {ratio}")

    with pytest.raises(UsageError, match=r"^no images at 0\.0$"):
        reach(Target("accuracy_drop", 1.0), refuse, float)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("drop < 1", "write METRIC <= NUMBER"),
        ("parms <= 0.3", "unknown metric 'parms'; did you mean 'params'"),
        ("params <= 30", "above 0 and below 1"),
        ("params <= 0", "above 0 and below 1"),
        ("drop <= 100", "less than 100"),
        ("__import__('os') <= 1", "write METRIC <= NUMBER"),
    ],
)
def test_what_is_no_target_is_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what.replace("(", r"\(")):
        TrialConfig.parse({"target": text})


def test_a_target_makes_the_ratio_count_for_nothing() -> None:
    one, other = (
        TrialConfig.parse({"target": text, "ratio": r}) for text, r in (("drop<=1", 0.3), (" drop <= 1.0", 0.7))
    )
    assert one == other
    assert one.key == other.key != TrialConfig().key


@pytest.mark.parametrize("allocation", ["uniform", "budget"])
@pytest.mark.parametrize("target", ["params <= 0.4", "macs <= 0.5", "drop <= 0.5"])
def test_a_trial_meets_its_target_and_the_next_ratio_does_not(bench: Workbench, target: str, allocation: str) -> None:
    config = TrialConfig.parse({"target": target, "allocation": allocation, "decomposition": "least-squares"})
    record = run_trial(config, bench)
    assert record.status == "finished", record.reason
    aim = Target.parse(target)
    assert record.metrics[aim.metric] <= aim.most
    assert math.isnan(record.ratio)
    (note,) = [note for note in record.notes if note.startswith("ratio ")]
    ratio = round(float(note.split()[1]) * STEPS) / STEPS
    step = 1 / STEPS if aim.smallest else -1 / STEPS
    if ratio == 255 / 256:
        return  # nothing is smaller
    missed = run_trial(config.model_copy(update={"target": None, "ratio": ratio + step}), bench)
    assert missed.status == "failed" or missed.metrics[aim.metric] > aim.most


def test_a_target_that_cannot_be_reached_fails_the_trial_in_a_sentence(bench: Workbench) -> None:
    record = run_trial(TrialConfig.parse({"target": "params<=0.0001"}), bench)
    assert record.status == "failed"
    assert record.reason == (
        "target params_fraction<=0.0001 cannot be reached at ratio 0.9961: the channels that may go hold less than"
        " that; allow a larger size, or let more sets be cut"
    )


def test_python_reaches_a_target_as_the_docs_say() -> None:
    (net, _), x = make("plain"), images(1)
    prepared = prepare(net, x[:1])
    whole = sum(p.numel() for p in net.parameters())
    _, result = reach(
        Target.parse("params <= 0.5"),
        make=lambda ratio: compress(prepared, x[:1], ratio=ratio),
        measure=lambda result: sum(p.numel() for p in result.model.parameters()) / whole,
    )
    assert 0.4 < sum(p.numel() for p in result.model.parameters()) / whole <= 0.5
