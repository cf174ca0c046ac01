"""The sections of docs/proof.md on photographs and on CIFAR: their figures, their verdicts, and what is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.proof import __main__ as proof
from benchmarks.proof import cifar, photographs, torch_pruning_rows
from benchmarks.proof.methods import HEADLINE, OURS, Kind, Method, Task
from benchmarks.proof.originals import Original
from benchmarks.proof.peers_row import Row
from benchmarks.proof.setting import NotRunError, Setting
from core.datasets.cifar import MEAN
from core.errors import DataError
from core.records import TrialRecord


def test_a_network_agrees_with_itself() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.Threshold(1e9, 0.0))  # always the first class

    def method(name: str, kind: Kind, network: nn.Module) -> Method:
        return Method(name, kind, lambda task, share: 0.5, lambda task, ratio: network)

    methods = [method(HEADLINE, "ours", net), method("first class", "torch-pruning", other)]
    images = torch.randn(24, 3, 8, 8)
    found = photographs.compare(Original("tiny", net, photographs.checksum(net)), images[:8], images[8:], methods)
    _, said, table = map(str, photographs.text(found.found, found))
    assert f"`{HEADLINE}` (100.0 %) is ahead of the best other one, `first class`" in said
    share = 100 * float((net(images[8:]).argmax(1) == 0).float().mean())
    assert f"| `{HEADLINE}` | ours | 100.0 |" in table
    assert f"| `first class` | torch-pruning | {share:.1f} |" in table
    assert not any("Taylor" in m.name for m in photographs.METHODS)


def test_crops_are_of_all_photographs_and_only_sites_are_cut() -> None:
    assert photographs.spread(torch.arange(512), 4).tolist() == [0, 170, 340, 511]
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 1), nn.Conv2d(12, 12, 1, groups=12), nn.Flatten())
    net.append(nn.Linear(12 * 16, 10))
    task = Task(Original("tiny", net.eval(), "0"), torch.randn(8, 3, 4, 4), torch.zeros(8).long(), sites=("1",))
    methods = [OURS[2]]
    if importlib.util.find_spec("torch_pruning"):
        methods.append(torch_pruning_rows.ROWS[0])
    for method in methods:
        small = method.make(task, 0.5)
        assert small.get_parameter("0.weight").shape[0] == 8, method.name
        assert small.get_parameter("1.weight").shape[0] == 6, method.name


def test_verdicts_on_photographs() -> None:
    ours = Row(HEADLINE, "ours", (80.0, 40.0), (0.95, 0.9), 60.0, 10.0)
    plain = Row("least-squares, l1", "ours", (70.0, 45.0), (0.95, 0.9), 20.0, 10.0)
    peer = Row("l1, alike", "torch-pruning", (5.0, 50.0), (0.95, 0.9), 1.0, 10.0)
    gone = Row("group norm", "torch-pruning", reason="not here")
    said = "\n".join(photographs.verdicts([ours, plain, peer, gone]))
    assert "95 % of the parameters: `least-squares, obs, budget` (80.0 %) is ahead of the best other one" in said
    assert "is **not ahead** of the best other one, `l1, alike` (torch-pruning, 50.0 %), by -10.0 points" in said
    assert "Against us: `least-squares, l1` has 45.0 % there" in said
    found = [photographs.Agreement(ours, (99.0, 90.0)), photographs.Agreement(gone, ())]
    page = "\n".join(map(str, photographs.text(found, photographs.Half(found, 10, "abc", 40))))
    assert "in brackets of the 40 crops that it was sure of" in page
    assert "| 80.0 (99.0) | 40.0 (90.0) | 60 | 10 |" in page
    few = "\n".join(map(str, photographs.text(found, photographs.Half(found, 10, "abc", 3))))
    assert "brackets" not in few
    assert "| 80.0 | 40.0 | 60 | 10 |" in few
    assert "not run: not here" in page


def test_without_its_package_or_photographs_the_section_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    assert proof.main(["photographs", "--page", str(page), "--cache", str(tmp_path)]) == 0
    assert "PARTS=photographs`: not run: " in page.read_text()
    assert "zoo" in page.read_text()

    def none(name: str) -> None:
        raise DataError("no folder has 8 photographs")

    monkeypatch.setattr(photographs, "load_model", lambda name: nn.Linear(1, 1))
    monkeypatch.setattr(photographs, "load_dataset", none)
    with pytest.raises(DataError, match="photographs"):
        photographs.half(0, Setting(False, tmp_path, tmp_path))


def test_made_images_have_the_shape_of_cifar() -> None:
    data = cifar.made()
    assert data.mean == MEAN
    assert data.train.images.shape[1:] == (3, 32, 32)
    assert data.train.images.dtype == torch.uint8
    assert data.test.labels.unique().tolist() == list(range(10))
    assert torch.equal(data.test.images, cifar.made().test.images)


def trial(criterion: str, decomposition: str, accuracy: float, **options: str) -> TrialRecord:
    config = {"criterion": criterion, "decomposition": decomposition, "options": options}
    metrics = {"accuracy": accuracy, "params_fraction": 0.4}
    return TrialRecord(key="k", config=config, status="finished", metrics=metrics)


RECORDS = [
    trial("l1", "none", 10.0),
    trial("l1", "most-similar", 20.0, bn_scale="published"),
    trial("l1", "most-similar", 30.0, bn_scale="exact"),
    trial("l1", "least-squares", 40.0).model_copy(update={"status": "failed"}),
]


def test_each_trial_has_its_column() -> None:
    [line] = cifar.rows({"vgg16-cifar10": RECORDS})
    assert line == ["`vgg16-cifar10`", "`l1`", "40.0 %", "10.00", "20.00", "30.00", "–", "3 of 4 finished"]


def test_figures_on_made_images_never_stand_beside_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paper_tables.json").write_text(
        '{"vgg16/cifar10": {"rows": [{"criterion": "l1", "prune": 88.7, "merge": 93.16}]}}'
    )
    monkeypatch.setattr(cifar, "reference", lambda: tmp_path)
    assert "| `l1` | 88.70 | no CIFAR | 93.16 | no CIFAR |" in str(cifar._beside(RECORDS, real=False))
    assert "| `l1` | 88.70 | 10.00 | 93.16 | 20.00 |" in str(cifar._beside(RECORDS, real=True))


def test_with_the_data_the_weights_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paper_tables.json").write_text('{"vgg16/cifar10": {"rows": []}}')
    monkeypatch.setattr(cifar, "load_dataset", lambda name: None)
    monkeypatch.setattr(cifar, "reference", lambda: tmp_path)
    with pytest.raises(NotRunError, match="make proof-full"):
        cifar.section(Setting(False, tmp_path, tmp_path))
    ran = list[tuple[str, ...]]()

    def run(results: Path, *words: str) -> tuple[list[TrialRecord], None]:
        ran.append(words)
        return RECORDS, None

    monkeypatch.setattr(cifar, "run_sweep", run)
    for space in cifar.SPACES:
        (tmp_path / f"{space.replace('-', '_')}.safetensors").touch()
    section = cifar.section(Setting(False, tmp_path, tmp_path))
    assert "made" not in section.measured
    assert all("baseline.dataset=cifar10" in words and "baseline.epochs=2" not in words for words in ran)
    assert f"baseline.checkpoint={tmp_path / 'vgg16_cifar10.safetensors'}" in ran[0]


def test_a_benchmark_that_gives_up_leaves_its_section_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(setting: Setting) -> None:
        raise SystemExit("the sweep ended with 2")

    monkeypatch.setattr(cifar, "section", gives_up)
    page = tmp_path / "page.md"
    assert proof.main(["cifar", "--page", str(page), "--cache", str(tmp_path)]) == 0
    assert "not run: the sweep ended with 2" in page.read_text()
