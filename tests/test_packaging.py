"""What is shipped: declared dependencies are those that are imported, and a wheel has everything that is not Python."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("core", "search_spaces", "sweep", "dashboards")
TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(TEXT)["project"]

LOCAL = {"tests", "benchmarks", *PACKAGES}
"""What tests and benchmarks import from this folder, besides the modules beside them."""
NOT_DECLARED = {
    "psutil": "Ray brings its own, and puts it on the path",
    "test_parts_package": "made by a test",
    "transformers": "brought by the extra huggingface; tests are skipped without it",
    "segmentation_models_pytorch": "one more source of networks; tests are skipped without it",
    "ultralytics": "a detector, of a licence that nothing here may depend on; tests are skipped without it",
}
NOT_IMPORTED: dict[str, str] = {}
"""Runtime dependencies that no module imports, and why they are needed all the same."""
TOOLS = {"mypy", "onnxscript", "pytest-xdist", "ruff", "setuptools"}
"""Of the dev extra: called as commands or as plugins, or by torch."""
BY_NAME = ("pytest.importorskip", "importlib.import_module")
"""Calls that import what their first argument names."""

INTERNAL = ("ray.tune.experiment", "ray.tune.execution", "mlflow.store")
"""Modules that are documented nowhere; so are all whose names begin with an underscore."""


def canonical(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> dict[str, str]:
    """Name and version range of each requirement."""
    pairs = (re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?(.*)", text) for text in requirements)
    return {canonical(found[1]): found[2] for found in pairs if found}


RUNTIME = declared(PROJECT["dependencies"])
DEV = declared(PROJECT["optional-dependencies"]["dev"])
ONNX = declared(PROJECT["optional-dependencies"]["onnx"])
"""What an optional format needs; without it a sentence says so."""


@cache
def distributions() -> dict[str, set[str]]:
    """The installed distributions that each top-level module is from."""
    return {module: {*map(canonical, names)} for module, names in metadata.packages_distributions().items()}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules(tree: ast.AST) -> Iterator[str]:
    """The full names of what is imported anywhere, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "pytest.importorskip",
            "importlib.import_module",
        ):
            yield from (str(word.value) for word in node.args[:1] if isinstance(word, ast.Constant))


def third_party(*folders: str) -> dict[str, set[str]]:
    """Top-level modules from outside, and the files that import them."""
    files = sources(*folders)
    own = LOCAL | set(sys.stdlib_module_names) | {path.stem for path in sources("tests", "benchmarks")}
    found: dict[str, set[str]] = {}
    for path in files:
        for name in {name.split(".")[0] for name in modules(tree_of(path))} - own - set(NOT_DECLARED):
            found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def undeclared(found: dict[str, set[str]], known: dict[str, str]) -> dict[str, set[str]]:
    return {name: files for name, files in found.items() if not distributions().get(name, set()) & set(known)}


def private(tree: ast.AST, library: str) -> set[str]:
    """The private parts of a library that a module touches: modules, keywords of its calls, attributes."""
    names = {name for name in modules(tree) if name.split(".")[0] == library}
    found = {name for name in names if name.startswith(INTERNAL) or re.search(r"\._", name)}
    for node in ast.walk(tree) if names else ():
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(f"{library}."):
            found |= {word.arg for word in node.keywords if word.arg and word.arg.startswith("_")}
        if library == "mlflow" and isinstance(node, ast.Attribute) and node.attr == "_tracking_client":
            found.add(node.attr)
    return found


def test_what_the_product_imports_is_declared():
    found = third_party(*PACKAGES)
    assert len(found) >= 15, "the table sees too few modules"
    assert undeclared(found, RUNTIME | ONNX) == {}


def test_what_tests_and_benchmarks_import_is_declared():
    found = third_party("tests", "benchmarks")
    assert {"pytest", "hypothesis", "torch"} <= set(found)
    assert undeclared(found, RUNTIME | DEV) == {}


def test_what_is_declared_is_imported():
    product, others = (
        set().union(*(distributions().get(module, set()) for module in third_party(*folders)))
        for folders in (PACKAGES, ("tests", "benchmarks"))
    )
    assert set(RUNTIME) - product == set(NOT_IMPORTED)
    assert set(DEV) - others == TOOLS


def test_every_range_has_a_lower_end():
    for name, versions in (RUNTIME | DEV).items():
        assert re.fullmatch(r">=[\d.]+(,<\d+)?", versions), f"{name}{versions}"


def test_libraries_whose_private_parts_are_touched_end_before_their_next_major_version():
    trees = {str(path.relative_to(ROOT)): tree_of(path) for path in sources(*PACKAGES)}
    touched = {name: found for name, tree in trees.items() if (found := private(tree, "ray") | private(tree, "mlflow"))}
    [listed] = re.findall(r"(?m)^# Ray and MLflow end .*\n# ((?:[\w/]+\.py,? )+)", TEXT)
    assert set(re.findall(r"[\w/]+\.py", listed)) == set(touched), touched
    assert (RUNTIME["ray"], RUNTIME["mlflow"]) == (">=2.50,<3", ">=3.4,<4")
    assert declared(PROJECT["optional-dependencies"]["cluster"])["ray"] == RUNTIME["ray"]


@pytest.mark.parametrize(
    ("source", "library", "found"),
    [
        ("def f():\n    from ray._private import worker", "ray", {"ray._private", "ray._private.worker"}),
        ("import ray\nray.init(_temp_dir='x', num_cpus=1)", "ray", {"_temp_dir"}),
        ("from ray.tune.experiment import Trial", "ray", {"ray.tune.experiment", "ray.tune.experiment.Trial"}),
        ("from mlflow import MlflowClient\nMlflowClient()._tracking_client", "mlflow", {"_tracking_client"}),
        ("from ray import tune\nfrom mlflow import MlflowClient", "ray", set()),
    ],
)
def test_private_parts_are_seen(source, library, found):
    assert private(ast.parse(source), library) == found


def test_the_checks_can_fail():
    assert undeclared({"yaml": {"x.py"}, "nobody": {"x.py"}}, {"pyyaml": ""}) == {"nobody": {"x.py"}}
    assert declared(["ray[tune]>=2.50,<3", "PyYAML>=6"]) == {"ray": ">=2.50,<3", "pyyaml": ">=6"}


def pinned() -> dict[str, str]:
    """What constraints.txt says: distributions and their versions."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pairs = [re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9][0-9A-Za-z.]*)", line) for line in lines]
    assert [line for line, pair in zip(lines, pairs, strict=True) if pair is None] == [], "not NAME==VERSION"
    found = {canonical(pair[1]): pair[2] for pair in pairs if pair}
    assert len(found) == len(lines) > 100
    return found


def within(version: str, versions: str) -> bool:
    """True for a version in a range as `declared` gives it."""
    number, ends = tuple(map(int, re.findall(r"\d+", version))), re.findall(r"(>=|<)([\d.]+)", versions)
    return all((number < tuple(map(int, end.split(".")))) == (sign == "<") for sign, end in ends)


def test_the_constraints_name_every_dependency_and_no_place():
    """Exact versions, no addresses: whatever index pip asks can serve them."""
    known = pinned()
    wanted = RUNTIME | DEV
    assert {name: versions for name, versions in wanted.items() if not within(known[name], versions)} == {}
    assert not {"pip", canonical(PROJECT["name"])} & set(known)
    assert within("3.17.2", ">=3.4,<4")
    assert not within("4.0", ">=3.4,<4")
    assert not within("3.3.9", ">=3.4,<4")


def make(*words: str) -> str:
    """What make would do."""
    command = ["make", "--dry-run", "--always-make", *words]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_ci_installs_from_the_constraints():
    assert "\nmake env CONSTRAINTS=constraints.txt\n" in (ROOT / ".ci" / "run").read_text()
    assert " -c constraints.txt " in make("env", "CONSTRAINTS=constraints.txt")
    assert " -c " not in make("env").split("pip install")[1]


def test_modules_that_mypy_passes_over_exist():
    overrides = tomllib.loads(TEXT)["tool"]["mypy"]["overrides"]
    [ignored] = [override["module"] for override in overrides if override.get("ignore_errors")]
    assert [name for name in ignored if not (ROOT / f"{name.replace('.', '/')}.py").is_file()] == []


def test_the_licence_is_there_in_full():
    lines = (ROOT / "LICENSE").read_text().splitlines()
    assert len(lines) > 200
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert "urls" not in PROJECT


def test_the_packages_say_that_they_are_typed():
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert [name for name in PACKAGES if not (ROOT / name / "py.typed").is_file()] == []


def test_a_wheel_has_everything(tmp_path):
    """Whatever lies in the packages, and the licence, is in the wheel."""
    plain = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=plain)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    lying = {str(path.relative_to(tmp_path)) for name in PACKAGES for path in (tmp_path / name).rglob("*.*")}
    words = ["pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path / "out", tmp_path]
    subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True)
    [wheel] = (tmp_path / "out").glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert shipped == lying
    assert any(name.endswith("/LICENSE") for name in zipfile.ZipFile(wheel).namelist())
