"""A few hostile files of every kind; all of them where the slow tests run."""

from __future__ import annotations

import pytest

from tests.fuzz import files
from tests.fuzz.files import FULL, Case, Room, run

FEW = {"checkpoints": 136, "spaces": 80, "stores": 50}


def require_both(kind: str, outcomes: dict[str, int]) -> None:
    """Some cases must be accepted and some refused, or the files are not hostile, or only hostile."""
    assert outcomes["accepted"] > 0
    assert sum(count for name, count in outcomes.items() if name != "accepted") > 0, kind


@pytest.mark.parametrize("kind", FULL)
def test_a_few(kind: str) -> None:
    require_both(kind, run(kind, FEW[kind], seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", FULL)
def test_all(kind: str) -> None:
    assert FULL[kind] >= {"checkpoints": 1500, "spaces": 800, "stores": 600}[kind]
    require_both(kind, run(kind, FULL[kind], seed=0))


def bad(use: str, room: Room) -> None:
    match use:
        case "traceback":
            raise KeyError("x")
        case "lines":
            from core.errors import UsageError

            raise UsageError("a\nb")
        case "writes":
            (room.outside / "new").write_text("")
        case "code":
            room.canary.write_text("")
        case "wrong":
            raise AssertionError("it does not work")
        case "memory":
            bytearray(files.MEMORY_BYTES + files.peak())


@pytest.mark.parametrize("use", ["traceback", "lines", "writes", "code", "wrong", "memory"])
def test_the_oracle_can_fail(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MEMORY_BYTES", 2**20)
    maker = {"spaces": lambda rng, number, room: Case("bad", {use: lambda: bad(use, room)})}
    monkeypatch.setattr(files, "makers", lambda: maker)
    with pytest.raises(AssertionError, match=rf"run\('spaces', 1, 7, first=3\): bad: {use}: "):
        run("spaces", 1, seed=7, first=3)


def test_a_case_of_a_seed_is_always_the_same() -> None:
    assert run("spaces", 10, seed=5) == run("spaces", 10, seed=5)
