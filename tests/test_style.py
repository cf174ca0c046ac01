"""One form for what classes say of their fields.

A dataclass describes them in the ``Attributes`` of its docstring; a class with an ``__init__`` of its own has ``Args``
there. A pydantic model has either ``Attributes`` or ``Field(description=…)``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("core", "search_spaces", "sweep", "dashboards")
SMALL = 2
"""So many fields may be described by the sentence that the docstring begins with."""


@cache
def classes() -> dict[str, ast.ClassDef]:
    """Every class of the packages, by the path of its module and its name."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {
        f"{path.relative_to(ROOT)}:{found.name}": found
        for path in paths
        for found in classes_of(path.read_text(encoding="utf-8"))
    }


def classes_of(source: str) -> list[ast.ClassDef]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]


def last_name(node: ast.expr) -> str:
    """``dataclass`` of ``dataclass``, ``dataclass(frozen=True)`` and ``dataclasses.dataclass``."""
    node = node.func if isinstance(node, ast.Call) else node.value if isinstance(node, ast.Subscript) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_dataclass(found: ast.ClassDef) -> bool:
    return "dataclass" in map(last_name, found.decorator_list)


def models(known: Sequence[ast.ClassDef]) -> list[ast.ClassDef]:
    """The pydantic models among ``known``: what inherits from one, by its name."""
    names = {"BaseModel"}
    while more := {c.name for c in known if names & set(map(last_name, c.bases))} - names:
        names |= more
    return [c for c in known if c.name in names]


def fields(found: ast.ClassDef) -> Iterator[ast.AnnAssign]:
    """The public fields that a class declares."""
    declared = (node for node in found.body if isinstance(node, ast.AnnAssign))
    return (d for d in declared if "ClassVar" not in ast.unparse(d.annotation) and ast.unparse(d.target)[0] != "_")


def section(found: ast.ClassDef, title: str) -> list[str] | None:
    """The lines of a section of the docstring, which ends at a line that is indented less; None: there is none."""
    lines = (ast.get_docstring(found) or "").splitlines()
    if f"{title}:" not in lines:
        return None
    rest = lines[lines.index(f"{title}:") + 1 :]
    end = next((i for i, line in enumerate(rest) if line and not line.startswith(" ")), len(rest))
    return rest[:end]


def lacking(found: ast.ClassDef) -> set[str]:
    """The fields that the section ``Attributes`` does not describe."""
    described = {m[1] for line in section(found, "Attributes") or () if (m := re.match(r" {4}(\w+): \S", line))}
    return {ast.unparse(field.target) for field in fields(found)} - described


def strings(found: ast.ClassDef) -> list[ast.stmt]:
    """The strings that stand in a class by themselves, its docstring left out."""
    is_string = [isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) for s in found.body]
    return [s for s, yes in zip(found.body[1:], is_string[1:], strict=True) if yes]


def faults_of_dataclass(found: ast.ClassDef) -> list[str]:
    faults = [f"line {s.lineno}: a string under a field; say it in Attributes" for s in strings(found)]
    if section(found, "Args") is not None:
        faults.append("Args: a dataclass has Attributes")
    large = len(list(fields(found))) > SMALL and not found.name.startswith("_")
    if missing := lacking(found) if large or section(found, "Attributes") is not None else set():
        faults.append(f"Attributes lacks {', '.join(sorted(missing))}")
    return faults


def faults_of_model(found: ast.ClassDef) -> list[str]:
    written = {ast.unparse(field.target) for field in fields(found) if "description=" in ast.unparse(field)}
    missing = lacking(found) - written
    return [f"neither Attributes nor Field(description=…) tells of {', '.join(sorted(missing))}"] if missing else []


def test_dataclasses_describe_their_fields_in_attributes() -> None:
    looked_at = {name: found for name, found in classes().items() if is_dataclass(found)}
    assert len(looked_at) >= 30
    faulty = {name: faults for name, found in looked_at.items() if (faults := faults_of_dataclass(found))}
    assert faulty == {}


def test_models_describe_their_fields() -> None:
    among = models(list(classes().values()))
    assert len(among) >= 12
    assert {name: f for name, found in classes().items() if found in among and (f := faults_of_model(found))} == {}


GOOD = '''
@dataclass
class Point:
    """A place.

    Attributes:
        x: to the right.
        y: up; this line
            is long.
        z: towards us.
    """

    x: int
    y: int
    z: int
    kind: ClassVar[str] = "place"
    _seen: bool = False
'''


def faults_in(source: str) -> list[str]:
    (found,) = classes_of(source)
    assert is_dataclass(found)
    return faults_of_dataclass(found)


def test_a_good_dataclass_has_no_faults() -> None:
    assert faults_in(GOOD) == []
    assert (
        faults_in('@dataclasses.dataclass(frozen=True)\nclass P:\n    """x and y."""\n\n    x: int\n    y: int\n') == []
    )


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("Attributes:", "Args:", "Args: a dataclass has Attributes"),
        ("    y: int\n", '    y: int\n    """Up."""\n', "line 15: a string under a field; say it in Attributes"),
        ("        x: to the right.\n", "", "Attributes lacks x"),
        ("        x: to", "        x, which is to", "Attributes lacks x"),
        ("    Attributes:\n", "", "Attributes lacks x, y, z"),
        ("    z: int\n", "    z: int\n    t: int\n", "Attributes lacks t"),
        ("    Attributes:\n", "    Attributes:\n        w: of it.\n\n    And so on.\n\n", "Attributes lacks x, y, z"),
    ],
)
def test_a_bad_dataclass_is_found(before: str, after: str, fault: str) -> None:
    assert before in GOOD
    assert fault in faults_in(GOOD.replace(before, after))


def test_a_bad_model_is_found() -> None:
    source = (
        "class _Table(pydantic.BaseModel):\n    pass\n\n"
        'class Row(_Table):\n    """A row."""\n\n    x: int\n    y: int = Field(1, description="up")\n\n'
        "class Other:\n    z: int\n"
    )
    found = models(classes_of(source))
    assert [model.name for model in found] == ["_Table", "Row"]
    assert [fault for model in found for fault in faults_of_model(model)] == [
        "neither Attributes nor Field(description=…) tells of x"
    ]
