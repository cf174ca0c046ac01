"""The hooks before a commit are what `make lint types` runs, from `.venv`; nothing is fetched."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
[REPOSITORY] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
HOOKS = {hook["id"]: hook for hook in REPOSITORY["hooks"]}


def test_every_hook_is_local():
    assert REPOSITORY["repo"] == "local"
    assert list(HOOKS) == ["ruff-check", "ruff-format", "mypy"]


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_only_needs_the_environment(name):
    hook = HOOKS[name]
    assert hook["entry"].startswith(".venv/bin/")
    assert hook["language"] == "system", "any other one is installed from somewhere"
    assert "additional_dependencies" not in hook
    assert hook["types_or"] == ["python", "pyi"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_checks_the_same():
    command = ["make", "--dry-run", "lint", "types"]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    checks = [hook["entry"] + (" ." if hook.get("pass_filenames", True) else "") for hook in HOOKS.values()]
    assert [line for line in shown if line.startswith(".venv/bin/")][-3:] == checks
