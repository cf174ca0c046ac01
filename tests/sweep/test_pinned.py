"""A folder with a ``core`` of its own: ours is found all the same, and its own is named where it cannot be had."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from command_line import environment

from sweep.pinned import NAMES, hidden, workers_pinned

ROOT = Path(__file__).parents[2]
NETS = "from core.layers import Block\n\ndef make(num_classes=10):\n    return Block()\n"
PLAIN = """
from torch import nn

def make(num_classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, num_classes))
"""
SPACE = """
[baseline]
model = "plain:make"
dataset = "digits"
epochs = 1
[axes]
ratio = { values = [0.5] }
"""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A project with folders by our names, as many a project has."""
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "core" / "layers.py").write_text("from torch import nn\n\nclass Block(nn.Linear):\n    pass\n")
    for name, text in {"nets.py": NETS, "plain.py": PLAIN, "own.toml": SPACE}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(folder: Path, *words: str, as_module: bool = False) -> subprocess.CompletedProcess[str]:
    """The command as it is installed, or with ``python -m``; by the Python below the environment, so that no finder of
    an editable installation helps."""
    library = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    variables = {**environment(), "PYTHONPATH": ":".join(dict.fromkeys([str(ROOT), *library]))}
    script = "import sys; sys.path.remove(''); from sweep.cli import main; sys.exit(main(sys.argv[1:]))"
    how = ["-m", "sweep.cli"] if as_module else ["-c", script]
    command = [getattr(sys, "_base_executable", sys.executable), *how, *words]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("as_module", [True, False])
def test_the_command_starts_there(theirs: Path, as_module: bool) -> None:
    if as_module:
        (theirs / "sweep" / "__init__.py").unlink()
        (theirs / "sweep").rmdir()
    done = run(theirs, "show", "own.toml", as_module=as_module)
    assert (done.returncode, done.stderr) == (0, "")
    assert "plain:make" in done.stdout


@pytest.mark.parametrize(("model", "wanted"), [("nets:make", "core.layers"), ("core.layers:Block", "core.layers")])
def test_what_is_hidden_is_named(theirs: Path, model: str, wanted: str) -> None:
    done = run(theirs, "compress", "--model", model, "--dataset", "digits", "--ratio", "0.5")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"'{wanted}' is looked for in the package 'core' of neuron-merging-sweep, which hides core" in done.stderr


def test_what_is_nowhere_is_not_called_hidden(theirs: Path) -> None:
    done = run(theirs, "compress", "--model", "corse.layers:Block", "--dataset", "digits", "--ratio", "0.5")
    assert "there is no module 'corse'" in done.stderr


@pytest.mark.slow
def test_a_sweep_runs_there(theirs: Path) -> None:
    done = run(theirs, "run", "own.toml", "--workers", "1", "--no-models")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 trials" in done.stdout


def test_a_folder_of_ours_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hidden(ROOT) == []
    assert hidden(tmp_path) == []
    (tmp_path / "dashboards.py").touch()
    assert hidden(tmp_path) == ["dashboards"]
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", "before")
    with workers_pinned(tmp_path):
        assert not (tmp_path / "startup").exists()
    monkeypatch.chdir(tmp_path)
    with workers_pinned(tmp_path):
        assert (tmp_path / "startup" / "sitecustomize.py").is_file()
    import os

    assert os.environ["PYTHONPATH"] == "before"
