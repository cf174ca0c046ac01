"""Racing: the bound against exhaustive sums, rivals against the definition, and fronts that are never lost."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from core import trial
from core.compress import Result
from core.config import TrialConfig
from core.measure import evaluate, margins
from core.metrics import KNOWN_FRACTIONS
from core.pareto import pareto_front
from core.race import Lane, Race, Rival, add, at_most, hardest_first, image_order, merge, most_right, rivals_of
from core.records import TrialRecord
from core.trial import run_trial
from core.workbench import Workbench
from tests.core.nets import images, make

POPULATIONS = [(n, total) for total in (1, 2, 7, 13, 24) for n in range(1, total + 1)]
ERRORS = (0.3, 0.05, 1e-3)


def probability(k: int, n: int, positives: int, total: int) -> Fraction:
    """P(K = k), by counting subsets."""
    return Fraction(math.comb(positives, k) * math.comb(total - positives, n - k), math.comb(total, n))


@pytest.mark.parametrize(("n", "total"), POPULATIONS)
def test_the_distribution_equals_counting_subsets(n: int, total: int) -> None:
    for positives, right in product(range(total + 1), range(n + 1)):
        exact = sum(probability(k, n, positives, total) for k in range(right + 1))
        assert at_most(right, n, positives, total) == pytest.approx(float(exact), abs=1e-12)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("n", "total"), POPULATIONS)
def test_the_bound_fails_as_rarely_as_it_says_whatever_the_network(n: int, total: int, error: float) -> None:
    """Summed over every draw: no number of right images makes the bound fail more often than ``error``."""
    for positives in range(total + 1):
        possible = range(max(0, n - (total - positives)), min(n, positives) + 1)
        missed = sum(
            probability(k, n, positives, total) for k in possible if most_right(k, n, total, error) < positives
        )
        assert missed <= error


@pytest.mark.parametrize("error", ERRORS)
def test_the_bound_is_the_tightest_of_its_kind(error: float) -> None:
    """One image less, and a network with that many right images would be excluded although it is not unlikely."""
    for n, total in POPULATIONS:
        for right in range(n + 1):
            bound = most_right(right, n, total, error)
            assert bound == right or sum(probability(k, n, bound, total) for k in range(right + 1)) > error


@given(st.integers(1, 400), st.data())
def test_the_bound_is_monotone_and_within_what_is_possible(total: int, data: st.DataObject) -> None:
    seen = data.draw(st.integers(1, total))
    right = data.draw(st.integers(0, seen))
    certain, bound = most_right(right, seen, total, 0.0), most_right(right, seen, total, 0.01)
    assert right <= bound <= certain == right + total - seen
    assert bound <= most_right(right, seen, total, 0.001), "surer is larger"
    if right < seen:
        assert bound <= most_right(right + 1, seen, total, 0.01), "more right images, more possible ones"
    if seen == total:
        assert bound == right


def test_the_bound_agrees_with_a_figure_of_its_own() -> None:
    """10,000 images of which 250 are drawn, half of them right: 62.15 % by scipy.stats.hypergeom at 1e-4."""
    from scipy.stats import hypergeom

    bound = most_right(125, 250, 10_000, 1e-4)
    assert hypergeom.cdf(125, 10_000, bound, 250) > 1e-4 >= hypergeom.cdf(125, 10_000, bound + 1, 250)
    assert 60 < bound / 100 < 63


accuracies = st.integers(0, 6).map(float)
sizes = st.integers(0, 3).map(lambda n: n / 4)
rival = st.builds(Rival, accuracy=accuracies, sizes=st.tuples(*[sizes] * len(KNOWN_FRACTIONS)))


def goal(rivals: Sequence[Rival], at: Rival) -> float | None:
    return Race(rivals=tuple(rivals)).lane(dict(zip(KNOWN_FRACTIONS, at.sizes, strict=True)), 100).goal


@given(st.lists(rival, max_size=12), rival)
def test_leaving_covered_rivals_out_changes_no_goal(rivals: list[Rival], at: Rival) -> None:
    best = merge((), rivals)
    assert goal(best, at) == goal(rivals, at)
    assert not any(a.covers(b) for a in best for b in best if a is not b)
    larger = [r for r in rivals if any(a > b for a, b in zip(r.sizes, at.sizes, strict=True))]
    smaller = [r.accuracy for r in rivals if r not in larger]
    assert goal(best, at) == max(smaller, default=None)


@given(st.lists(rival, max_size=8), st.lists(rival, max_size=8))
def test_merging_in_parts_is_merging_at_once(one: list[Rival], other: list[Rival]) -> None:
    assert set(merge(merge((), one), merge((), other))) == set(merge((), [*one, *other]))


def record(config: TrialConfig, status: str = "finished", **metrics: float) -> TrialRecord:
    return TrialRecord.model_validate(
        {"key": config.key, "config": config.as_json(), "status": status, "metrics": metrics}
    )


def test_rivals_are_finished_records_only() -> None:
    left = dict.fromkeys(KNOWN_FRACTIONS, 0.5)
    good = record(TrialConfig(ratio=0.5), accuracy=80.0, loss=1.0, **left)
    worse = record(TrialConfig(ratio=0.4), accuracy=70.0, loss=1.0, **dict.fromkeys(KNOWN_FRACTIONS, 0.6))
    stopped = record(TrialConfig(ratio=0.6), "stopped", accuracy_upper=99.0, accuracy_estimate=98.0, **left)
    failed = record(TrialConfig(ratio=0.7), "failed")
    assert rivals_of([worse, stopped, good, failed]) == (Rival(accuracy=80.0, sizes=(0.5, 0.5, 0.5)),)
    assert add(rivals_of([good]), worse) == rivals_of([good])
    race = Race(error=0.01)
    assert race.after(stopped) == race.after(failed) == race
    assert race.after(good) == Race(rivals=rivals_of([good]), error=0.01)


@given(st.lists(rival, max_size=4), st.floats(0, 0.5))
def test_a_race_survives_json(rivals: list[Rival], error: float) -> None:
    race = Race(rivals=tuple(rivals), error=error)
    assert Race.model_validate_json(race.model_dump_json()) == race


@pytest.mark.parametrize("wrong", [{"error": -1e-3}, {"error": 1.0}, {"rival": ()}])
def test_a_race_refuses_what_it_does_not_know(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Race.model_validate(wrong)


def test_a_trial_that_can_still_equal_the_goal_is_not_beaten() -> None:
    lane = Lane(goal=90.0, total=1000, probe=0, error=0.1)
    assert not lane.beaten(right=300, seen=400), "600 more make 90 %"
    assert lane.beaten(right=299, seen=400)
    assert not Lane(None, 1000, 0, 0.1).beaten(0, 999), "nothing is known at its size"


def test_only_the_probe_is_judged_by_chance() -> None:
    lane = Lane(goal=90.0, total=10_000, probe=250, error=1e-4)
    assert lane.beaten(125, 250)
    assert not lane.beaten(250, 500), "later images are no random draw: as many wrong, and nothing follows"
    assert not Lane(90.0, 10_000, 250, 0.0).beaten(125, 250), "nor without an allowance for error"


def test_the_reason_says_how_sure_it_is() -> None:
    lane = Lane(goal=85.2, total=10_000, probe=250, error=1e-4)
    assert lane.reason({250: 225, 500: 230, 3000: 1400}) == (
        "beaten after 3,000 of 10,000 images: at most 84.00 %, where 85.20 % is known at this size or less"
    )
    assert "after 250 of 10,000 images" in (early := lane.reason({250: 125}))
    assert " % (99.99 % sure), where 85.20 %" in early


@given(st.data())
def test_what_is_said_of_a_stopped_trial_is_possible(data: st.DataObject) -> None:
    lane = Lane(90.0, 1000, data.draw(st.sampled_from([0, 100])), 0.01)
    right, running = 0, {}
    for seen in range(100, data.draw(st.sampled_from([200, 500, 1000])), 100):
        right += data.draw(st.integers(0, 100))
        running[seen] = right
    bounds = lane.bounds(running)
    assert bounds["accuracy_upper"] == lane.upper(right, max(running))
    assert 100 * right / 1000 <= bounds["accuracy_estimate"] <= bounds["accuracy_upper"] <= 100


@given(st.integers(1, 60), st.data())
def test_the_order_is_a_random_probe_and_then_the_hardest_first(count: int, data: st.DataObject) -> None:
    probe = data.draw(st.integers(0, count))
    margin = torch.tensor(data.draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count))).float()
    order = image_order(margin, probe, torch.Generator().manual_seed(data.draw(st.integers(0, 9))))
    assert sorted(order.tolist()) == list(range(count))
    rest = margin[order[probe:]]
    assert torch.equal(rest, rest.sort().values)


def test_the_probe_is_drawn_evenly() -> None:
    """Whatever the difficulty of an image, it is in a probe of 5 of 20 a quarter of the time."""
    draws = [image_order(torch.arange(20.0), 5, torch.Generator().manual_seed(s))[:5] for s in range(2000)]
    counts = torch.cat(draws).bincount(minlength=20)
    assert (counts - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_margins_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0], [2.0, 2.0, 2.0]])
    found = margins(nn.Flatten(), logits.view(3, 3, 1, 1), torch.tensor([0, 2, 1]), batch_size=2)
    assert found.tolist() == [2.0, -3.0, 0.0]


class Answers(nn.Module):
    """As sure of class 1 as it is told for each image; the first pixel is the image's number, and all labels are 1."""

    def __init__(self, sure: Tensor, size: int = 0) -> None:
        super().__init__()
        self.register_buffer("sure", sure)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        sure = self.sure[x[:, 0, 0, 0].long()]
        return torch.stack([torch.zeros_like(sure), sure], 1)


COUNT = 2000


def planted(seed: int, trials: int = 60) -> tuple[Workbench, dict[str, Answers], list[TrialConfig]]:
    """A bench, a network per configuration, and the configurations in a random order.

    Networks err where an image is hard (its number says how), the more the smaller they are; many are nearly as good
    as the best of their size, as in real sweeps, and some are hopeless.
    """
    rng = torch.Generator().manual_seed(seed)
    hard = torch.linspace(2, -8, COUNT)
    number = torch.arange(COUNT, dtype=torch.float32).view(-1, 1, 1, 1)
    bench = Workbench(Answers(1.5 - hard, 1000), number, torch.ones(COUNT, dtype=torch.long), number, batch_size=100)
    configs = [TrialConfig(ratio=0.1 * (1 + t % 6), seed=t) for t in range(trials)]
    networks = {}
    for config in configs:
        skill = 1.4 - config.ratio - 0.3 * float(torch.rand((), generator=rng)) ** 3
        skill -= 4.0 * (float(torch.rand((), generator=rng)) < 0.3)
        noise = 0.3 * torch.randn(COUNT, generator=rng)
        networks[config.key] = Answers(skill - hard - noise, round(1000 * (1 - config.ratio)))
    return bench, networks, [configs[i] for i in torch.randperm(trials, generator=rng).tolist()]


def plant(networks: dict[str, Answers], monkeypatch: pytest.MonkeyPatch) -> None:
    def compressed(config: TrialConfig, _: Workbench) -> Result:
        return Result(networks[config.key], [], {})

    monkeypatch.setattr(trial, "compress_trial", compressed)
    monkeypatch.setattr(
        "core.workbench.sizes", lambda net, _: dict.fromkeys(("params", "macs", "bytes"), float(net.size))
    )


def raced(bench: Workbench, configs: Sequence[TrialConfig], lag: int, error: float = 1e-4) -> list[TrialRecord]:
    """Run the trials, each knowing the rivals among all but the ``lag`` before it."""
    records: list[TrialRecord] = []
    for config in configs:
        known = records[: max(0, len(records) - lag)]
        records.append(run_trial(config, bench, Race(rivals=rivals_of(known), error=error)))
    return records


@pytest.mark.parametrize("seed", range(12))
def test_a_planted_front_is_never_lost(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, networks, configs = planted(seed)
    plant(networks, monkeypatch)
    bench = bench.with_original()
    full = [run_trial(config, bench) for config in configs]
    records = raced(hardest_first(bench, seed=seed), configs, lag=seed % 8)
    assert [r.key for r in pareto_front(records)] == [r.key for r in pareto_front(full)]
    assert any(r.images == bench.batch_size for r in records), "the probe finds the hopeless ones"
    spent = sum(r.images for r in records)
    assert spent < 0.5 * COUNT * len(configs), "and it saves images"
    truth = {r.key: r.metrics for r in full}
    for r in records:
        if r.status == "finished":
            assert r.metrics["accuracy"] == truth[r.key]["accuracy"]
            assert r.images == COUNT
        else:
            assert truth[r.key]["accuracy"] <= r.metrics["accuracy_upper"]


def test_the_order_of_the_images_decides_how_much_is_saved_and_not_what_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, networks, configs = planted(3)
    plant(networks, monkeypatch)
    bench = bench.with_original()
    easiest = hardest_first(bench, probe=0)
    easiest.images, easiest.labels = easiest.images.flip(0), easiest.labels.flip(0)
    good, bad = (raced(b, configs, lag=2) for b in (hardest_first(bench), easiest))
    assert [r.key for r in pareto_front(good)] == [r.key for r in pareto_front(bad)]
    assert sum(r.images for r in good) < 0.6 * sum(r.images for r in bad)


@pytest.fixture
def bench() -> Workbench:
    """A small network on 96 images that it gets right, in batches of eight."""
    net, _ = make("plain")
    x = images(96)
    with torch.no_grad():
        labels = net(x).argmax(1)
    return Workbench(net, x, labels, images(32), baseline_key="b", batch_size=8).with_original()


def rival_like(record: TrialRecord, accuracy: float, scale: float = 1.0) -> Rival:
    return Rival(accuracy=accuracy, sizes=tuple(scale * record.metrics[name] for name in KNOWN_FRACTIONS))


def test_a_beaten_trial_stops_and_says_what_is_known(bench: Workbench) -> None:
    config = TrialConfig(ratio=0.9)
    full = run_trial(config, bench)
    assert full.images == 96
    assert full.metrics["accuracy"] < 80, "bad enough to be stopped"
    record = run_trial(config, hardest_first(bench), Race(rivals=(rival_like(full, 99.0),)))
    assert (record.status, record.key) == ("stopped", full.key)
    assert 0 < record.images < 96
    assert record.reason.startswith(f"beaten after {record.images} of 96 images: at most ")
    assert set(record.metrics) == {"params", "macs", "bytes", *KNOWN_FRACTIONS, "accuracy_upper", "accuracy_estimate"}
    assert all(record.metrics[name] == full.metrics[name] for name in ("params", "macs", "bytes", *KNOWN_FRACTIONS))
    assert full.metrics["accuracy"] <= record.metrics["accuracy_upper"] < 99.0
    assert record.sites == full.sites
    assert record.evaluate_seconds > 0
    text = record.model_dump_json()
    assert TrialRecord.model_validate_json(text).model_dump_json() == text


@pytest.mark.parametrize("shrunk", KNOWN_FRACTIONS)
def test_only_a_rival_that_is_no_larger_in_any_size_stops_a_trial(bench: Workbench, shrunk: str) -> None:
    config = TrialConfig(ratio=0.9)
    full = run_trial(config, bench)
    sizes = tuple(full.metrics[name] * (1.001 if name == shrunk else 1) for name in KNOWN_FRACTIONS)
    larger = Rival(accuracy=99.0, sizes=sizes)
    assert run_trial(config, bench, Race(rivals=(larger,))).status == "finished"
    assert run_trial(config, bench, Race(rivals=(larger, rival_like(full, 99.0, 0.5)))).status == "stopped"


@pytest.mark.parametrize("method", ["none", "most-similar", "nmf", "least-squares"])
def test_a_race_that_is_not_lost_changes_nothing(bench: Workbench, method: str) -> None:
    """A trial runs to the end against rivals as good as itself, and its figures are those without a race."""
    config = TrialConfig(ratio=0.5, decomposition=method)
    ordered = hardest_first(bench)
    full, again = run_trial(config, bench), run_trial(config, ordered)
    race = Race(rivals=(rival_like(full, full.metrics["accuracy"]), rival_like(full, 100.0, 1.01)))
    record = run_trial(config, ordered, race)
    noisy = {"latency_ms", "latency_fraction"}
    assert record.status == "finished"
    assert {k: v for k, v in record.metrics.items() if k not in noisy} == {
        k: v for k, v in again.metrics.items() if k not in noisy
    }
    assert record.metrics["accuracy"] == full.metrics["accuracy"]
    assert record.images == full.images == 96


def test_hardest_first_keeps_the_images_and_draws_a_probe_of_one_batch(bench: Workbench) -> None:
    before = bench.images.clone()
    bench.labels = torch.arange(len(before)) % 3
    ordered = hardest_first(bench, seed=1)
    assert ordered.probe == bench.batch_size
    assert torch.equal(bench.images, before)
    assert bench.probe == 0
    pairs = {(tuple(x.flatten().tolist()), int(y)) for x, y in zip(bench.images, bench.labels, strict=True)}
    assert pairs == {(tuple(x.flatten().tolist()), int(y)) for x, y in zip(ordered.images, ordered.labels, strict=True)}
    assert not torch.equal(ordered.images, hardest_first(bench, seed=2).images)
    assert torch.equal(ordered.images, hardest_first(bench, seed=1).images)
    few = Workbench(bench.model, bench.images[:79], bench.labels[:79], bench.train_images, batch_size=8)
    assert hardest_first(few).probe == 0, "fewer than ten batches leave no room for a probe"


def test_outputs_that_are_not_finite_fail_in_a_race_too(bench: Workbench) -> None:
    config = TrialConfig(ratio=0.9)
    full = run_trial(config, bench)
    race = Race(rivals=(rival_like(full, 100.0),))
    ordered = hardest_first(bench)
    ordered.prepared.channels.graph.model.fc2.bias.data.fill_(torch.nan)
    record = run_trial(config, ordered, race)
    assert (record.status, record.images, record.metrics) == ("failed", 0, {})
    assert "metric 'loss' is nan" in record.reason


def test_an_unexpected_error_leaves_its_traceback(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by hand")

    assert "UsageError: sites: 'nowhere'" in run_trial(TrialConfig(sites=("nowhere",)), bench).log
    monkeypatch.setattr(trial, "compress_trial", broken)
    record = run_trial(TrialConfig(), bench)
    assert record.reason == "ZeroDivisionError: by hand"
    assert "in broken" in record.log


def test_an_evaluation_stops_where_it_is_told() -> None:
    net = Answers(torch.tensor([1.0, -1.0] * 5))
    number = torch.arange(10.0).view(-1, 1, 1, 1)
    asked: list[tuple[int, int]] = []

    def enough(right: int, seen: int) -> bool:
        asked.append((right, seen))
        return seen >= 6

    found = evaluate(net, number, torch.ones(10, dtype=torch.long), 3, enough=enough)
    assert asked == [(2, 3), (3, 6)]
    assert found.right == {3: 2, 6: 3}
    assert (found.images, found.accuracy) == (6, 50.0)
    asked.clear()
    whole = evaluate(net, number, torch.ones(10, dtype=torch.long), 5, enough=lambda r, s: bool(asked.append((r, s))))
    assert (whole.images, whole.accuracy, asked) == (10, 50.0, [(3, 5)]), "after the last batch nobody is asked"


def test_records_from_before_racing_load() -> None:
    config = TrialConfig(ratio=0.5)
    old = {
        "key": config.key,
        "config": config.model_dump(mode="json"),
        "status": "finished",
        "metrics": {"accuracy": 1},
    }
    assert TrialRecord.model_validate_json(json.dumps(old)).images == 0
