"""docs/own-network.md, followed to the letter: from a network trained elsewhere to exported files."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from command_line import COMMAND, call, environment

from core.datasets import cifar, digits, fashion_mnist, image_folder, load_dataset
from core.models import load_model
from core.preprocessing import numbers
from sweep.cli import main
from tests.pages import ROOT, blocks, commands

PAGE = "docs/own-network.md"
LANGUAGES = {"python": "my_digits.py", "py": "my_training.py", "toml": "my-space.toml"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, and its network trained."""
    folder = tmp_path_factory.mktemp("own")
    for block in blocks(PAGE):
        if block.language in LANGUAGES:
            (folder / LANGUAGES[block.language]).write_text(block.text)
    subprocess.run([sys.executable, "my_training.py"], cwd=folder, env=environment(), check=True, timeout=300)
    return folder


@pytest.mark.slow
def test_the_page_leads_to_files(place: Path) -> None:
    (place / "my-space.toml").rename(place / "documented.toml")
    (shell,) = [block.text for block in blocks(PAGE) if block.language == "bash"]
    told = [call(place, *words[1:]) for words in commands(shell)]
    assert len(told) == 5
    assert "written: my-space.toml" in told[0]
    written, documented = (tomllib.loads((place / name).read_text()) for name in ("my-space.toml", "documented.toml"))
    expected = written["baseline"].pop("expected_accuracy")
    assert expected == pytest.approx(documented["baseline"].pop("expected_accuracy"), abs=2)
    assert written == documented
    assert "72 of 72 trials" in told[1]
    assert "mean 0.3, std 0.35" in (place / "results/my-space/report.html").read_text()
    card = (place / "small/README.md").read_text()
    assert "with mean (0.3) and std (0.35)" in card
    assert f"--mean 0.3 --std 0.35 --expected-accuracy {expected}" in card
    config = json.loads((place / "small/config.json").read_text())
    assert (config["images"]["mean"], config["baseline"]["std"]) == ([0.3], [0.35])
    assert config["metrics"]["accuracy_drop"] <= 1
    assert config["metrics"]["params_fraction"] < 0.8
    program = (
        "import torch, my_digits; from core.export import load\n"
        "t = my_digits.data().test; x = (t.images - 0.3) / 0.35\n"
        "for net in (load('small/model.safetensors', factory=my_digits.make),"
        " torch.export.load('small/model.pt2').module()):\n"
        "    print(100 * (net(x).argmax(1) == t.labels).float().mean().item())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=place, env=environment(), capture_output=True, text=True)
    accuracies = [float(line) for line in done.stdout.split()]
    assert len(accuracies) == 2, done.stderr
    assert min(accuracies) > 94


@pytest.mark.slow
def test_a_sweep_stops_before_any_trial_where_the_preprocessing_is_wrong(place: Path) -> None:
    words = ("run", "my-space.toml", "--mean", "0", "--std", "0.00392157", "--name", "wrong")
    done = subprocess.run([*COMMAND, *words], cwd=place, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "% on the test split of my digits (360 images) with images 8x8, mean 0, std 0.003921" in done.stderr
    assert "and expected_accuracy is 99" in done.stderr
    assert "did you mean mean = " in done.stderr
    assert not (place / "results/wrong").exists()


def test_a_doubt_is_told_by_compress_and_a_missed_accuracy_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(load_model("lenet-300-100").state_dict(), "net.pt")
    words = ["compress", "--model", "lenet-300-100", "--dataset", "digits", "--ratio", "0.5", "--checkpoint", "net.pt"]
    assert main(words) == 0
    assert "warning: " in capsys.readouterr().err
    assert main([*words, "--expected-accuracy", "97", "--mean", "0"]) == 1
    err = capsys.readouterr().err
    assert "with images 28x28, mean 0, std 0.5, and expected_accuracy is 97" in err
    assert err.count("\n") == 1
    assert main([*words, "--std", "wide"]) == 2
    assert "--std wide: give a number, or one per channel" in capsys.readouterr().err


def test_the_page_knows_the_datasets_numbers() -> None:
    text = (ROOT / PAGE).read_text()
    data = load_dataset("digits")
    assert (data.mean, data.std) == ((0.5,), (0.5,))
    assert digits.DEFAULT_SIZE == 28
    for module in (cifar, image_folder):
        assert f"| {numbers(module.MEAN).strip('[]')} | {numbers(module.STD).strip('[]')} |" in text
    assert fashion_mnist.CLASSES
