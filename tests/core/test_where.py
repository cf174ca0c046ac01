"""The language of conditions: what it says, what it refuses, and that nothing in it is run."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import TrialConfig
from core.errors import UsageError
from core.records import TrialRecord
from core.where import parse_where


def record(accuracy: float = 80.0, left: float = 0.3, **values: object) -> TrialRecord:
    config = TrialConfig.parse({"criterion": "obs", **values})
    metrics = {"accuracy": accuracy, "params_fraction": left, "params": 1000 * left}
    metrics["accuracy_drop"] = 15.00000000000001
    return TrialRecord(key=config.key, config=config.as_json(), status="finished", metrics=metrics)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("params <= 0.3", True),
        ("params<0.3", False),
        ("params_fraction == 0.3", True),
        ("accuracy >= 80 and params <= 0.3", True),
        ("accuracy > 80 or params < 0.3", False),
        ("accuracy > 80 or params < 0.3 or criterion == obs", True),
        ("not criterion == l1", True),
        ("not (accuracy >= 80 and params <= 0.3)", False),
        ('criterion == "obs"', True),
        ("decomposition != 'least-squares'", True),
        ("decomposition == most-similar and threshold == 0.45", True),
        ("threshold >= 0.5", False),
        ("bn_recalibrate == false", True),
        ("seed == 0", True),
        ("macs <= 1", False),  # this record has none
        ("criterion >= obs", False),  # words have no order
        ("drop <= 15 and accuracy_drop >= 15", True),  # 15.00000000000001, as differences are
        ("drop < 15 or drop > 15 or drop != 15", False),
        ("calibration == train-subset and target == none", True),
        ("of == params", False),  # nothing reads it where no budget is spread
        ("not of == params", True),
        ("accuracy >= 7.9e1", True),
        ("accuracy >= -3", True),
    ],
)
def test_what_conditions_say(text: str, holds: bool) -> None:
    assert parse_where(text)(record(options={"threshold": 0.45})) is holds


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "a comparison such as params <= 0.3 is missing"),
        ("parms <= 0.3", "unknown name 'parms'; did you mean 'params'"),
        ("params", "params has to be compared"),
        ("params <=", "params <= what\\? give a number or a word"),
        ("params <= 0.3 accuracy > 2", "'accuracy' is not expected; join conditions with and, or"),
        ("(params <= 0.3", "a bracket is not closed"),
        ("params <= 0.3 and", "a comparison such as params <= 0.3 is missing"),
        ("params = 0.3", "cannot be read"),
        ("params <= small", "params is a number; compare it with one, not with 'small'"),
        ("accuracy == 'obs'", "accuracy is a number"),
        ("test_accuracy >= nan", "test_accuracy is a number"),
        ("params <= 30", "params is the fraction left of the original's, such as params <= 0.3"),
        ("bytes_fraction < 4000", "bytes_fraction is the fraction left"),
        ("__import__('os').system('true')", "unknown name '__import__'"),
        ("(" * 60 + "params <= 0.3" + ")" * 60, "more than 50 conditions lie in one another"),
        ("not " * 200 + "params <= 0.3", "more than 50 conditions lie in one another"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"--where .*{what}"):
        parse_where(text)


KNOWN = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
NAMES = {"params": "params_fraction", "params_fraction": "params_fraction", "accuracy": "accuracy"}
Scan = Callable[[TrialRecord], bool]


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, Scan]:
    """A comparison with numbers of a coarse grid, on which Python compares exactly."""
    name, sign = draw(st.sampled_from(sorted(NAMES))), draw(st.sampled_from(sorted(KNOWN)))
    number = draw(st.integers(0, 8)) / 8 * (1 if "params" in name else 100)
    return f"{name} {sign} {number}", lambda r: KNOWN[sign](r.metrics[NAMES[name]], number)


def joined(inner: st.SearchStrategy[tuple[str, Scan]]) -> st.SearchStrategy[tuple[str, Scan]]:
    """``not``, ``and``, ``or`` of conditions, each in brackets."""

    def both(pair: tuple[tuple[str, Scan], tuple[str, Scan]]) -> list[tuple[str, Scan]]:
        (one, first), (two, second) = pair
        return [
            (f"({one}) and ({two})", lambda r: first(r) and second(r)),
            (f"({one}) or ({two})", lambda r: first(r) or second(r)),
            (f"not ({one})", lambda r: not first(r)),
        ]

    return st.tuples(inner, inner).flatmap(lambda pair: st.sampled_from(both(pair)))


CONDITIONS = st.recursive(comparisons(), joined, max_leaves=6)


@given(CONDITIONS, st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=12))
def test_conditions_hold_for_what_a_scan_finds(condition: tuple[str, Scan], found: list[tuple[int, int]]) -> None:
    text, scan = condition
    parsed, records = parse_where(text), [record(100 * a / 8, left / 8) for a, left in found]
    assert [parsed(one) for one in records] == [scan(one) for one in records]
    assert [parsed.miss(one) == 0 for one in records] == [scan(one) for one in records]


def test_and_binds_closer_than_or() -> None:
    assert parse_where("seed == 0 or accuracy > 80 and seed == 1")(record())
    assert not parse_where("(seed == 0 or accuracy > 80) and seed == 1")(record())


def test_a_miss_is_larger_the_further_off() -> None:
    condition = parse_where("params <= 0.2 and accuracy >= 90")
    near, far = condition.miss(record(85.0, 0.2)), condition.miss(record(85.0, 0.9))
    assert near == pytest.approx(0.05)
    assert far == pytest.approx(0.75)
    assert parse_where("criterion == l1").miss(record()) == 1
    assert parse_where("not params >= 0.2").miss(record()) == pytest.approx(0.1)
    assert parse_where("seed >= 4").miss(record()) == pytest.approx(1)


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_where(text)(record()) in (True, False)
