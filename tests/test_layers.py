"""Imports point one way: core <- search_spaces <- sweep -> dashboards -> core; and core never prints."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "core": {"core"},
    "search_spaces": {"core", "search_spaces"},
    "dashboards": {"core", "dashboards"},
    "sweep": {"core", "search_spaces", "dashboards", "sweep"},
}
ORCHESTRATION = {"ray", "mlflow", "optuna"}
PICTURES = {"matplotlib", "plotly", "rich"}
FORBIDDEN = {
    "core": ORCHESTRATION | PICTURES,
    "search_spaces": ORCHESTRATION | PICTURES,
    "dashboards": ORCHESTRATION,
    "sweep": {"tests", "benchmarks"},
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The top-level packages that a module imports anywhere, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield package if node.level or node.module is None else node.module.split(".")[0]


def violations(source: str, package: str) -> set[str]:
    own = set(ALLOWED) - ALLOWED[package]
    return (own | FORBIDDEN[package]) & set(imported(ast.parse(source), package))


def prints(source: str) -> list[int]:
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("print", "input")]


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package: str) -> None:
    files = sources(package)
    assert len(files) >= 8, "the table sees too few files"
    found = {str(path.relative_to(ROOT)): bad for path in files if (bad := violations(path.read_text(), package))}
    assert found == {}


def test_core_never_prints() -> None:
    found = {str(path.relative_to(ROOT)): lines for path in sources("core") if (lines := prints(path.read_text()))}
    assert found == {}


def test_the_checks_can_fail() -> None:
    assert violations("def f():\n    from ray import tune", "core") == {"ray"}
    assert violations("import sweep.cli", "dashboards") == {"sweep"}
    assert violations("from . import base\nfrom core.errors import DataError", "core") == set()
    assert prints("x = 1\nprint(x)") == [2]
