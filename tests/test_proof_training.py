"""The part `training` of docs/proof.md: where trainings start, curves that are kept, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.proof import curves, originals, starts, training
from benchmarks.proof.originals import original, untrained
from benchmarks.proof.starts import BEST, MERGED, PRUNED, SCRATCH, SNIP, STARTS, TICKET, Bench, Case, made
from benchmarks.proof.training_text import FINE, LONGER, said, table
from core.config import BaselineConfig
from core.measure import accuracy_and_loss
from core.models import Recipe
from core.training import train
from tests.noise import Small


def layer_of(model: nn.Module, name: str) -> nn.Linear:
    found = model.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found


NET: dict[str, object] = {"model": "lenet-300-100", "epochs": 1, "batch_size": 2}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setitem(originals.NETS, "tiny", NET)
    small = Small(False, tmp_path / "cache", tmp_path)
    return Bench.of(Case("tiny", 0.8, 0.45), original("tiny", small), small)


def test_every_start_has_as_many_parameters_and_can_be_trained(bench: Bench) -> None:
    for start in STARTS:
        found = made(start, bench, 0)
        assert found.training is False
        assert all(weight.requires_grad for weight in found.parameters())
        assert layer_of(found, "ip1").out_features == 60


def test_a_start_of_another_size_is_found(bench: Bench) -> None:
    wider = starts.Start("wider", lambda bench, _: untrained("tiny", bench.setting))
    with pytest.raises(AssertionError, match="wider"):
        made(wider, bench, 0)


def test_a_ticket_is_the_original_s_beginning_at_the_channels_it_kept(bench: Bench) -> None:
    """l1 of the trained rows, by hand; and the beginning is that of the training, to the bit."""
    beginning = untrained("tiny", bench.setting)
    first = layer_of(beginning, "ip1").weight.clone()
    second = layer_of(beginning, "ip2").weight.clone()
    trained = bench.original.model
    kept = []
    for name, count in (("ip1", 60), ("ip2", 20)):
        layer = layer_of(trained, name)
        rows = torch.cat([layer.weight, layer.bias[:, None]], 1).abs().sum(1)
        kept.append(rows.argsort(descending=True)[:count].sort().values)
    found = made(starts.Start(TICKET, starts.ticket), bench, 3)
    assert torch.equal(layer_of(found, "ip1").weight, first[kept[0]])
    assert torch.equal(layer_of(found, "ip2").weight, second[kept[1]][:, kept[0]])
    recipe = BaselineConfig.parse({**NET, "dataset": "fashion-mnist"}).recipe
    again = train(beginning, bench.setting.dataset, recipe, seed=0)
    assert torch.equal(layer_of(again, "ip1").weight, layer_of(trained, "ip1").weight)


def test_snip_keeps_what_the_loss_of_new_weights_depends_on(bench: Bench) -> None:
    """Σ |gradient · weight| of the first layer's rows, by hand."""
    whole = starts.fresh(untrained("tiny", bench.setting), 5)
    images, labels = bench.setting.calibration()
    layer = layer_of(whole, "ip1")
    layer.requires_grad_(True)
    for x, y in zip(images.split(32), labels.split(32), strict=True):  # gradients add up
        nn.functional.cross_entropy(whole(x), y).backward()
    score = (layer.weight * layer.weight.grad).abs().sum(1) + (layer.bias * layer.bias.grad).abs()
    kept = score.argsort(descending=True)[:60].sort().values
    found = made(starts.Start(SNIP, starts.snip), bench, 5)
    assert torch.equal(layer_of(found, "ip1").weight, layer.weight[kept])


def test_how_long_each_is_trained(bench: Bench) -> None:
    case = bench.case
    assert training.schedule(case, BEST)[1] == FINE
    for name in (SCRATCH, TICKET, SNIP):
        assert training.schedule(case, name)[1] == replace(case.recipe, epochs=5)
        assert training.schedule(case, name + LONGER)[1] == replace(case.recipe, epochs=6)
    assert sorted(training.longest_first()) == sorted(training.names())
    assert "20 (LeNet-300-100), 3 (VGG-like)" in training.budget()


def test_curves_have_a_point_per_epoch_and_are_of_the_trained_network(bench: Bench) -> None:
    images, labels = bench.setting.dataset.inputs("test")
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    before = accuracy_and_loss(net.eval(), images, labels)[0]
    curve = curves.trained(net, bench.setting, replace(FINE, batch_size=2), 0)
    assert len(curve) == FINE.epochs + 1
    assert curve[0] == before
    assert curve[-1] == accuracy_and_loss(net.eval(), images, labels)[0]
    weights = net[1].weight.clone()
    assert not torch.equal(starts.fresh(net, 0)[1].weight, weights)


def test_a_curve_is_made_once_and_only_the_very_same_is_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def run(model: nn.Module, setting: Small, recipe: Recipe, seed: int) -> list[float]:
        ran.append(seed)
        return [10.0 + len(ran)] * (recipe.epochs + 1)

    monkeypatch.setattr(curves, "trained", run)
    small, recipe = bench.setting, Recipe(epochs=2)

    def curve(seed: int = 0, epochs: int = 2, shift: float = 0.0, full: bool = False) -> float:
        net = starts.fresh(nn.Sequential(nn.Linear(3, 2)), 0)
        net[0].bias.data += shift
        setting = replace(small, full=full)
        return curves.curve_of(net, {"net": "a net", "name": "x, y"}, replace(recipe, epochs=epochs), seed, setting)[0]

    assert curve() == curve() == 11
    assert [curve(seed=1), curve(epochs=3), curve(shift=1.0), curve(full=True)] == [12, 13, 14, 15]
    assert curve(shift=1.0) == 14
    files = sorted((small.cache / curves.FOLDER).iterdir())
    assert len(files) == 5
    assert all(path.name.startswith("a_net-x_y-") for path in files)
    for path in files:
        path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    assert curve() == 16, "another training's file"
    for damage in ("", "{}", "[]", '{"about": 1}'):
        for path in files:
            path.write_text(damage)
        assert curve() > 16, damage


def test_a_run_that_was_broken_off_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CASES", (bench.case,))
    monkeypatch.setattr(training, "SEEDS", range(2))
    monkeypatch.setattr(training, "begin", lambda name, setting: type("Task", (), {"original": bench.original}))
    whole, ran = curves.trained, list[int]()

    def breaks(model: nn.Module, setting: Small, recipe: Recipe, seed: int) -> list[float]:
        if len(ran) == 1:
            raise KeyboardInterrupt
        ran.append(seed)
        return whole(model, setting, recipe, seed)

    monkeypatch.setattr(curves, "trained", breaks)
    with pytest.raises(KeyboardInterrupt):
        training.measured((0, TICKET), bench.setting)
    monkeypatch.setattr(curves, "trained", lambda model, setting, recipe, seed: [*([1.0] * 6), ran.append(seed)][:6])
    found = training.measured((0, TICKET), bench.setting)
    assert ran == [0, 1]
    assert found[0] != found[1] == [1.0] * 6


def test_differences_within_the_seeds_are_said_to_be_none() -> None:
    found = {name: [[10.0, 80.0, 81.0, 82.0, 83.0, 84.0 + seed] for seed in range(3)] for name in training.names()}
    found[MERGED] = [[20.0, 79.0, 80.0, 82.0, 83.0, 85.0] for _ in range(3)]
    found[TICKET] = [[10.0, 80.0, 81.0, 82.0, 83.0, 80.0] for _ in range(3)]
    found[SNIP + LONGER] = [[10.0, *[80.0] * 7, 90.0] for _ in range(3)]
    words = said(found)
    assert "lead of merging over pruning is gone after 1 epoch of training" in words
    assert "that of `least-squares, obs` is none." in words
    assert "merging over pruning: +10.00 after 0, -1.00 after 1" in words
    assert "+0.00 (within the seeds) after 5 epochs" in words
    assert "over lottery ticket +5.00, and +0.00 (within the seeds) where that is trained as long" in words
    assert "over SNIP +0.00 (within the seeds), and -5.00 where" in words
    assert f"| {SNIP + LONGER} |  |  |  |  | 90.00 (90.00–90.00) |" in str(table(found))
    assert f"| {PRUNED} | 10.00 (10.00–10.00) | 80.00" in str(table(found))
