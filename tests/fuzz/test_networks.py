"""Random networks: a few by default, two hundred where the slow tests run; and every oracle can fail."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.compress import Result, compress, prepare
from tests.fuzz import oracles
from tests.fuzz.__main__ import reports, table
from tests.fuzz.constructs import constructs
from tests.fuzz.networks import Case, dealt, generate
from tests.fuzz.oracles import Report, check

FEW, ALL = range(25), range(200)
QUIET = pytest.mark.filterwarnings("ignore")
"""Networks warn of what they do, tracers of what they see."""


def sound(seeds: range) -> list[Report]:
    found = list(reports(seeds[0], len(seeds)))
    failures = [str(failure) for report in found for failure in report.failures]
    assert not failures, "\n".join(failures)
    assert sum(bool(report.refused) for report in found) <= len(found) / 10
    return found


@QUIET
def test_a_few() -> None:
    found = sound(FEW)
    text = table(found)
    assert all(name in text for report in found for name in report.case.names)


@QUIET
@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 50, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in ALL[100::50])])
def test_two_hundred(first: int) -> None:
    found = sound(range(first, first + 50))
    checked = sum((report.checked for report in found), Counter[str]())
    assert all(checked[name] > 37 for name in ("ratio 0", "cut", "least-squares", "untouched", "export", "trains"))
    assert sum(sum(report.cut.values()) for report in found) > 125


def test_every_construct_occurs_at_least_twice_in_two_hundred() -> None:
    occurs = Counter(construct.name for seed in ALL for construct in dealt(seed)[1])
    assert len(constructs()) >= 290
    assert {name: occurs[name] for name in constructs() if occurs[name] < 2} == {}
    assert {len(dealt(seed)[1]) for seed in ALL} == {2, 3, 4, 5, 6}


@QUIET
def test_a_seed_always_makes_the_same_network_and_leaves_no_trace() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    for seed in range(0, 40, 3):
        a, b = generate(seed), generate(seed)
        assert a.names == b.names
        assert {n: m.training for n, m in a.model.named_modules()} == {
            n: m.training for n, m in b.model.named_modules()
        }
        for (name, x), y in zip(a.model.state_dict().items(), b.model.state_dict().values(), strict=True):
            assert torch.equal(x, y), name
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])


def test_all_numbers_of_a_parameter_are_different() -> None:
    """Which of them are gone from a cut network could not be told otherwise."""
    deliberate = {"dead-channel", "constant-channel", "unread-channel", "pruned-rows", "pruned-entries", "half-twins"}
    for seed in range(60):
        case = generate(seed)
        for name, value in case.model.named_parameters():
            if not deliberate & {*case.names}:
                assert len(value.unique()) == value.numel(), (seed, name)


# --- every oracle can fail ------------------------------------------------------------------------------------


class Plain(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2, self.head = (
            nn.Conv2d(3, 8, 3),
            nn.LayerNorm(8),
            nn.Conv2d(8, 8, 3),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv1(x).relu().movedim(1, -1)).movedim(-1, 1)
        return self.head(self.conv2(x).relu().mean((2, 3)))


def plain(kind: type[nn.Module] = Plain) -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(0, ("plain",), "maps", kind().eval(), (torch.randn(4, 3, 8, 8),), (torch.randn(16, 3, 8, 8),))


def cut(case: Case, **options: Any) -> Result:
    return compress(case.model, case.inputs, ratio=0.5, decomposition="none", **options)


def failed(judge: Callable[[Report], Any], case: Case) -> list[str]:
    report = Report(case)
    judge(report)
    return [failure.oracle for failure in report.failures]


@torch.no_grad()
def shuffled_columns(model: Plain) -> None:
    model.conv2.weight.data = model.conv2.weight[:, [1, 0, 2, 3]]


@torch.no_grad()
def nudged(model: Plain) -> None:
    model.head.bias.add_(1e-3)


@torch.no_grad()
def rows_of_others(model: Plain) -> None:
    model.conv1.weight.data = model.conv1.weight.flip(0)


def test_a_sound_cut_is_sound() -> None:
    case = plain()
    assert failed(lambda report: oracles.judge_cut(case, cut(case), report), case) == []
    assert failed(lambda report: oracles.account(case, cut(case), report), case) == []
    assert check(case).checked["cut"] == 1


@pytest.mark.parametrize("wrong", [shuffled_columns, nudged, rows_of_others])
def test_a_wrong_cut_is_seen(wrong: Callable[[Plain], None]) -> None:
    case = plain()
    result = cut(case)
    wrong(result.model)  # type: ignore[arg-type]
    assert "cut" in failed(lambda report: oracles.judge_cut(case, result, report), case)


def test_columns_cut_without_their_channels_are_seen() -> None:
    """The consumer loses other channels than the producer, and every shape fits."""
    case = plain()
    result = cut(case)
    kept = result.sites[0].kept
    other = sorted({*range(8)} - {*kept})
    with torch.no_grad():
        result.model.conv2.weight.data = case.model.conv2.weight[list(result.sites[1].kept)][:, other].clone()
    assert "cut" in failed(lambda report: oracles.judge_cut(case, result, report), case)


class Centred(nn.Module):
    """Its channels are read by their mean as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        return self.head(self.conv2(x - x.mean(1, keepdim=True)).relu().mean((2, 3)))


def test_channels_that_something_else_reads_are_seen() -> None:
    """The cut network runs, has the original's rows and columns, and is not the original without the channels."""
    case = plain(Centred)
    wrong, kept = copy.deepcopy(case.model), [0, 2, 5, 6]
    wrong.conv1.weight.data, wrong.conv1.bias.data = wrong.conv1.weight[kept], wrong.conv1.bias[kept]
    wrong.conv2.weight.data = wrong.conv2.weight[:, kept]
    result = Result(wrong, (), {})
    assert failed(lambda report: oracles.judge_cut(case, result, report), case) == ["cut"]


def test_rows_that_are_not_those_reported_are_seen() -> None:
    case = plain()
    result = cut(case)
    rows_of_others(result.model)  # type: ignore[arg-type]
    assert "rows" in failed(lambda report: oracles.judge_cut(case, result, report), case)


def test_a_forgotten_layer_and_an_empty_reason_are_seen() -> None:
    case = plain()
    result = cut(case)
    for skipped in ({}, dict.fromkeys(result.skipped, " ")):
        wrong = Result(result.model, result.sites, skipped)
        assert failed(partial(oracles.account, case, wrong), case) == ["accounted"]


def test_another_structure_of_the_outputs_is_seen() -> None:
    case = plain()
    for change in (lambda m, a, y: (y,), lambda m, a, y: y.double(), lambda m, a, y: y[:, :3]):
        wrong = copy.deepcopy(case.model)
        wrong.register_forward_hook(change)
        assert oracles.layout_problem(case, wrong)


class Broken(oracles.Trial):
    """Every result has a weight that is a little off."""

    def compress(self, **options: Any) -> Result:
        result = super().compress(**options)
        nudged(result.model)  # type: ignore[arg-type]
        return result


def test_a_change_at_ratio_zero_is_seen() -> None:
    case = plain()
    prepared = prepare(case.model, case.inputs)
    for kind, wrong in ((oracles.Trial, False), (Broken, True)):
        trial = kind(case, prepared, random.Random(0))
        assert any(oracles.ratio_zero(trial, Report(case))) == wrong


def test_a_lossy_merge_of_copies_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4)).eval()
    case = Case(0, ("plain",), "maps", net, (torch.randn(4, 3, 8, 8),), ())
    trial = oracles.Trial(case, prepare(net, case.inputs), random.Random(0))
    assert list(oracles.planted_copies(trial, Report(case))) == [""]
    lossless = compress
    monkeypatch.setattr(
        oracles,
        "compress",
        lambda *a, **o: lossless(*a, **{**o, "decomposition": "none"}) if "sites" in o else lossless(*a, **o),
    )
    assert "off by" in next(oracles.planted_copies(trial, Report(case)))


def test_a_bad_fit_is_seen() -> None:
    case = plain()
    off, infinite = copy.deepcopy(case.model), copy.deepcopy(case.model)
    nudged(off)  # type: ignore[arg-type]
    infinite.head.bias.data[0] = torch.inf
    assert not any(oracles.fit_problems(case, case.model, off))
    assert "squared error" in "".join(oracles.fit_problems(case, off, case.model))
    assert "finite" in "".join(oracles.fit_problems(case, infinite, case.model))


def test_another_mode_a_step_that_fails_and_a_file_that_differs_are_seen() -> None:
    case = plain()
    wrong = copy.deepcopy(case.model)
    wrong.norm.train()
    assert "mode" in oracles.mode_problem(case.model, wrong)
    wrong = copy.deepcopy(case.model)
    wrong.head.weight.requires_grad_(False)
    assert "learn" in oracles.mode_problem(case.model, wrong)
    wrong.norm.normalized_shape = (7,)
    assert "RuntimeError" in oracles.step_problem(wrong, case.inputs)
    assert oracles.step_problem(case.model, case.inputs) == ""
    wrong = copy.deepcopy(case.model)
    nudged(wrong)  # type: ignore[arg-type]
    assert "not the same" in oracles.export_problem(case, case.model, wrong)
    wrong = copy.deepcopy(case.model)
    wrong.norm.eps = 0.1
    assert "off by" in oracles.export_problem(case, case.model, wrong)


def test_whatever_changes_in_the_argument_is_seen() -> None:
    def other_weight(net: Any) -> None:
        net.head.bias.data[0] += 1

    def draws(net: Any) -> None:
        torch.rand(1)

    case = plain()
    model: Any = case.model
    model.calls, model.scale = 0, torch.ones(3)
    changes: tuple[Callable[[Any], object], ...] = (
        other_weight,
        lambda net: net.norm.train(),
        lambda net: net.head.weight.requires_grad_(False),
        lambda net: setattr(net, "calls", 1),
        lambda net: net.scale.mul_(2),
        lambda net: random.random(),
        lambda net: np.random.rand(),
        draws,
    )
    for change in changes:
        before = oracles.snapshot(case.model)
        assert oracles.changed(before, oracles.snapshot(case.model)) == ""
        with torch.random.fork_rng(devices=[]):
            change(case.model)
            assert oracles.changed(before, oracles.snapshot(case.model)).startswith("changed")


def test_what_is_printed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = prepare
    monkeypatch.setattr(oracles, "prepare", lambda *args: (print("hello"), silent(*args))[1])
    assert "quiet" in {failure.oracle for failure in check(plain()).failures}


def test_an_exception_and_a_refusal_without_need_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.errors import ModelError

    def fails(error: Exception) -> Callable[..., Any]:
        def raises(*_: Any) -> None:
            raise error

        return raises

    for error, oracle in (
        (ValueError("x"), "no exception"),
        (ModelError("Plain cannot be traced"), "refusal"),
        (ModelError("something else"), "refusal"),
    ):
        monkeypatch.setattr(oracles, "prepare", fails(error))
        assert [failure.oracle for failure in check(plain()).failures] == [oracle]
