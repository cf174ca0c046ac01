"""What no trial changes is made once, by whichever process comes first, and made anew where the file is of no use."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import core.config
import core.prepared
from core.config import TrialConfig
from core.criteria import CRITERIA
from core.criteria.base import Criterion, ScoredSet
from core.shelf import FolderShelf, Kept, Shelf, digest_of
from core.trial import compress_trial, run_trial
from core.workbench import Workbench
from tests.core.nets import images, make


def made(calls: list[int], value: float = 1.0) -> Callable[[], Kept]:
    def make_it() -> Kept:
        calls.append(1)
        return Kept({"x": torch.full((3,), value, dtype=torch.float64)}, "a remark")

    return make_it


def test_a_second_time_it_is_read(tmp_path: Path) -> None:
    calls: list[int] = []
    first = FolderShelf(tmp_path / "new").once("curve of conv1", made(calls))
    again = FolderShelf(tmp_path / "new").once("curve of conv1", made(calls, 2.0))
    assert torch.equal(first.tensors["x"], again.tensors["x"])
    assert again.note == "a remark"
    FolderShelf(tmp_path / "new").once("curve of conv2", made(calls))
    assert len(calls) == 2
    Shelf().once("curve of conv2", made(calls))
    assert len(calls) == 3


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "header", "of another"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    shelf, calls = FolderShelf(tmp_path), list[int]()
    shelf.once("a", made(calls))
    (path,) = tmp_path.glob("*.safetensors")
    content = path.read_bytes()
    if damage == "of another":
        FolderShelf(tmp_path / "b").once("b", made([], 7.0))
        (other,) = (tmp_path / "b").glob("*.safetensors")
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(
            {"empty": b"", "cut": content[:-5], "text": b"no tensors here", "header": b"\xff" * 64}[damage]
        )
    assert float(shelf.once("a", made(calls)).tensors["x"][0]) == 1.0
    assert len(calls) == 2
    shelf.once("a", made(calls))
    assert len(calls) == 2


def test_a_folder_that_cannot_be_made_costs_time_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    calls: list[int] = []
    for _ in range(2):
        assert FolderShelf(tmp_path / "file" / "shelf").once("a", made(calls)).note == "a remark"
    assert len(calls) == 2


def slowly(folder: str, log: str) -> None:
    def make_it() -> Kept:
        with Path(log).open("a") as file:
            file.write("x")
        time.sleep(0.5)
        return Kept({"x": torch.ones(1)})

    FolderShelf(Path(folder)).once("a", make_it)


def test_of_several_processes_one_makes_it_and_the_others_wait(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=slowly, args=(str(tmp_path / "s"), str(tmp_path / "log"))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert (tmp_path / "log").read_text() == "x"


def test_elsewhere_is_asked_and_given(tmp_path: Path) -> None:
    class There:
        def __init__(self) -> None:
            self.files: dict[str, bytes] = {}

        def fetch(self, name: str) -> bytes | None:
            return self.files.get(name)

        def keep(self, name: str, content: bytes) -> None:
            self.files[name] = content

    there, calls = There(), list[int]()
    FolderShelf(tmp_path / "one", there).once("a", made(calls))
    FolderShelf(tmp_path / "two", there).once("a", made(calls))
    assert len(calls) == 1
    there.files = dict.fromkeys(there.files, b"damaged")
    FolderShelf(tmp_path / "three", there).once("a", made(calls))
    assert len(calls) == 2


def test_a_digest_tells_values_shapes_and_types_apart() -> None:
    x = torch.arange(6.0)
    others = [x + 1e-7, x.view(2, 3), x.double(), x[:0], (x, x), x.int()]
    assert len({digest_of(value) for value in (x, *others)}) == 1 + len(others)
    assert digest_of(x) == digest_of(x.clone())


CONFIGS = [
    {"criterion": "obs", "decomposition": "least-squares", "allocation": "budget"},
    {"criterion": "taylor", "decomposition": "gram"},
    {"criterion": "activation", "decomposition": "gaussian", "allocation": "budget", "ratio": 0.7},
]


@pytest.fixture
def benches(tmp_path: Path) -> Callable[[Shelf], Workbench]:
    net, _ = make("residual")
    x = images(64)
    with torch.no_grad():
        labels = net(x).argmax(1)

    def build(shelf: Shelf) -> Workbench:
        pool = images(96)
        return Workbench(net, x, labels, pool, train_labels=torch.arange(96) % 3, shelf=shelf).with_original()

    return build


@pytest.mark.parametrize("values", CONFIGS)
def test_a_trial_is_the_same_from_the_shelf(
    tmp_path: Path, benches: Callable[[Shelf], Workbench], values: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrialConfig.parse({**values, "calibration_images": 48})
    plain = compress_trial(config, benches(Shelf()))
    first = compress_trial(config, benches(FolderShelf(tmp_path)))
    for name in ("scored_set", "seen_moments", "eliminate"):
        monkeypatch.setattr(core.prepared, name, None)  # whoever computes anything anew fails
    again = compress_trial(config, benches(FolderShelf(tmp_path)))
    x = images(16)
    for one in (first, again):
        assert [site.kept for site in one.sites] == [site.kept for site in plain.sites]
        assert one.notes == plain.notes
        assert np.allclose(one.model(x).detach(), plain.model(x).detach(), atol=1e-6)


def test_other_images_another_seed_or_another_network_are_computed(
    tmp_path: Path, benches: Callable[[Shelf], Workbench]
) -> None:
    def count() -> int:
        return len(list(tmp_path.glob("*.safetensors")))

    config = TrialConfig.parse({"criterion": "obs", "calibration_images": 48})
    compress_trial(config, benches(FolderShelf(tmp_path)))
    before = count()
    compress_trial(config, benches(FolderShelf(tmp_path)))
    assert count() == before > 0
    compress_trial(config.model_copy(update={"seed": 1}), benches(FolderShelf(tmp_path)))
    assert count() == 2 * before
    bench = benches(FolderShelf(tmp_path))
    with torch.no_grad():
        next(bench.model.parameters()).mul_(1.01)
    compress_trial(config, bench)
    assert count() == 3 * before


def test_what_a_users_criterion_says_is_not_kept(
    tmp_path: Path, benches: Callable[[Shelf], Workbench], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def loud(scored: ScoredSet) -> torch.Tensor:
        calls.append(scored.name)
        return torch.arange(scored.size).double()

    monkeypatch.setitem(CRITERIA._parts, "loud", Criterion(loud, needs_calibration=True))
    monkeypatch.setattr(core.config, "image_readers", core.config.image_readers.__wrapped__)
    for _ in range(2):
        record = run_trial(TrialConfig.parse({"criterion": "loud"}), benches(FolderShelf(tmp_path)))
        assert record.status == "finished", record.reason + record.log
    assert len(calls) == 2 * len(set(calls))
