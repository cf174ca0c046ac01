"""Registries find their parts by scanning a package, and refuse two of one name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from core.criteria import CRITERIA
from core.errors import UnknownNameError
from core.registry import Registry

PART = """
from test_parts_package.base import REGISTRY
@REGISTRY.register("{name}")
def part(): return "{name}"
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[object]:
    package = tmp_path / "test_parts_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text(
        "from core.registry import Registry\nREGISTRY = Registry('part', 'test_parts_package')\n"
    )
    for name in ("second", "first"):
        (package / f"{name}.py").write_text(PART.format(name=f"the-{name}"))
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.startswith("test_parts_package")]:
        monkeypatch.delitem(sys.modules, module)
    import test_parts_package.base

    found: Registry[object] = test_parts_package.base.REGISTRY
    return found


def test_parts_are_found_by_scanning(registry: Registry[object]) -> None:
    assert registry.names() == ["the-first", "the-second"]
    assert [name for name, _ in registry.items()] == registry.names()
    assert "the-first" in registry
    assert "the-third" not in registry
    assert registry.get("the-first")() == "the-first"  # type: ignore[operator]


def test_unknown_names_are_answered_with_the_nearest(registry: Registry[object]) -> None:
    with pytest.raises(UnknownNameError, match="unknown part 'the-frist'; did you mean 'the-first'"):
        registry.get("the-frist")


def test_a_name_is_given_once(registry: Registry[object]) -> None:
    registry.names()
    with pytest.raises(ValueError, match="two parts register as part 'the-first'"):
        registry.register("the-first")(print)


def test_only_text_is_a_name() -> None:
    assert ["l1"] not in CRITERIA
    assert None not in CRITERIA
