"""Verbs that only read answer at once: they import neither the science nor any of the large libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "fixtures" / "results-v1"
HEAVY = (
    "torch",
    "torchvision",
    "ray",
    "mlflow",
    "scipy",
    "numpy",
    "optuna",
    "matplotlib",
    "plotly",
    "pandas",
    "sklearn",
)
VERBS = [
    ["--help"],
    ["run", "--help"],
    ["compress", "--help"],
    ["spaces"],
    ["spaces", "--json"],
    ["show", "lenet-fashion-mnist", "--set", "ratio=0.5"],
    ["show", "vgg16-cifar10", "--json"],
    ["list"],
    ["list", "--json"],
    ["status"],
    ["status", "tpe"],
    ["status", "tpe", "--json"],
    ["logs", "tpe"],
    ["stop", "tpe"],
]
PROGRAM = """
import sys
from sweep.cli import main
code = main(sys.argv[1:])
print(code, *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


def loaded(words: list[str]) -> str:
    where = ["--results", str(RESULTS)] if words[0] in ("list", "status", "logs", "stop") else []
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *words, *where],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout, "it said nothing"
    if "--json" in words:
        json.loads(done.stdout)
    return done.stderr.strip()


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_verb_that_reads_imports_nothing_large(words: list[str]) -> None:
    assert loaded(words) == "0"


def test_the_check_can_fail(tmp_path: Path) -> None:
    words = ["pareto", "tpe", "--format", "png", "--out", str(tmp_path), "--results", str(RESULTS)]
    assert "matplotlib" in loaded(words)
