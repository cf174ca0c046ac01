"""Who may import whom: between the packages, between the rooms of ``sweep``, and never in a circle.

Core never prints. Ray, Optuna and MLflow are each known in one room only.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
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


PLACES = {
    "ray": ("sweep/backend/", "sweep/reporting/telemetry.py"),
    "optuna": ("sweep/search/",),
    "mlflow": ("sweep/tracking/",),
}
"""Where a library may be imported, anywhere in a module."""
ROOMS = {
    "errors": 0,
    "text": 0,
    "pinned": 0,
    "storage": 1,
    "search": 2,
    "tracking": 3,
    "reporting": 3,
    "backend": 4,
    "export": 5,
    "commands": 6,
}
ROOT_LEVEL = 5
"""Modules at the root of ``sweep``; a room imports from its own level and from those below it."""


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


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules_imported(source: str, known: Collection[str]) -> set[str]:
    """The modules among ``known`` that a source imports anywhere: at the top, in functions, for types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return found & set(known)


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Sets of modules that import each other, directly or through others."""
    reach = {name: set(direct) for name, direct in graph.items()}
    changed = True
    while changed:
        changed = False
        for direct in reach.values():
            further = direct.union(*(reach[name] for name in direct))
            changed |= further != direct
            direct |= further
    inside = {name for name, found in reach.items() if name in found}
    return [set(group) for group in {frozenset(n for n in inside & reach[m] if m in reach[n]) for m in inside}]


def level(name: str) -> int:
    """How high a module of ``sweep`` stands."""
    room = name.split(".")[1] if "." in name else ""
    return ROOMS.get(room, ROOT_LEVEL)


def graph_of_modules() -> dict[str, set[str]]:
    paths = {module_name(path): path for package in ALLOWED for path in sources(package)}
    return {name: modules_imported(path.read_text(), paths) - {name} for name, path in paths.items()}


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    graph = graph_of_modules()
    assert len(graph) > 170, "the table sees too few modules"
    assert sum(map(len, graph.values())) > 500
    assert circles(graph) == []


def test_rooms_of_the_sweep_import_from_below() -> None:
    graph = {name: found for name, found in graph_of_modules().items() if name.startswith("sweep.")}
    upward = {
        (name, other)
        for name, found in graph.items()
        for other in found
        if other.startswith("sweep.") and level(other) > level(name)
    }
    assert upward == set()
    assert {name.split(".")[1] for name in graph} >= ROOMS.keys()
    root = {name.split(".")[1] for name in graph if level(name) == ROOT_LEVEL} - ROOMS.keys()
    assert root == {"api", "arguments", "cli", "completing", "filing", "limits", "quiet", "runner", "session"}


@pytest.mark.parametrize("library", PLACES)
def test_a_library_is_known_in_its_own_room_only(library: str) -> None:
    paths = [path for package in ALLOWED for path in sources(package)]
    using = {str(p.relative_to(ROOT)) for p in paths if library in imported(ast.parse(p.read_text()), "")}
    assert using
    assert {name for name in using if not name.startswith(PLACES[library])} == set()


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
    assert modules_imported("def f():\n    from a import b\n    import c.d", {"a.b", "c.d", "a"}) == {"a.b", "c.d"}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert circles({"a": {"b"}, "b": set()}) == []
    assert level("sweep.storage.info") < level("sweep.search.base") < level("sweep.session")
