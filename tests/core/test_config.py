"""Trial configurations: canonical, hashable, and refused in one sentence."""

from __future__ import annotations

import pytest

from core.config import TrialConfig
from core.errors import UsageError
from core.records import TrialRecord


def test_equal_work_has_one_key() -> None:
    plain = TrialConfig.parse({"ratio": 0.5})
    spelled = TrialConfig.parse({"ratio": 0.5, "criterion": "l1", "options": {"threshold": 0.1, "lam": 0.85}})
    unused = TrialConfig.parse({"ratio": 0.5, "calibration": "noise", "calibration_images": 64})
    assert plain.key == spelled.key == unused.key
    assert plain == unused
    assert TrialConfig.parse({"ratio": 0.6}).key != plain.key


def test_the_key_is_stable_across_versions() -> None:
    """Stores on disk are resumed by key: if this changes, old sweeps run again."""
    assert TrialConfig.parse({"ratio": 0.5, "decomposition": "none"}).key == "650eb2bf30a88428"


def test_methods_that_need_images_get_a_source() -> None:
    config = TrialConfig.parse({"decomposition": "least-squares"})
    assert config.calibration == "train-subset"
    assert TrialConfig.parse({"decomposition": "none", "options": {"bn_recalibrate": True}}).calibration is not None


def test_round_trip_through_json() -> None:
    config = TrialConfig.parse({"ratio": 0.3, "decomposition": "nmf", "sites": ["conv*"], "options": {"hard": True}})
    record = TrialRecord(key=config.key, config=config.as_json(), status="finished", metrics={"accuracy": 90.0})
    again = TrialRecord.model_validate_json(record.model_dump_json())
    assert again == record
    assert TrialConfig.parse(again.config).key == config.key


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ratio": 1.5}, r"here: ratio = 1.5: input should be less than 1"),
        ({"ratio": "much"}, "ratio = 'much': input should be a valid number"),
        ({"rato": 0.5}, "unknown key 'rato'; did you mean 'ratio'"),
        ({"criterion": "l11"}, "here: unknown criterion 'l11'; did you mean"),
        ({"options": {"lam": 3}}, "lam = 3: input should be less than or equal to 1"),
        ({"calibration": "train-sbset"}, "unknown calibration"),
        ({"decomposition": "nmf", "options": {"rows": "loose"}}, "rows = 'loose': input should be 'fixed' or 'free'"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_refusals(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrialConfig.parse(values, where="here: ")


@pytest.mark.parametrize(
    "values",
    [
        {"criterion": ["l1"]},
        {"allocation": {}},
        {"decomposition": ["none"]},
        {"decomposition": "least-squares", "calibration": ["noise"]},
        {"options": [1]},
        {"seed": 2**64},
        {"calibration_images": 10**9, "decomposition": "least-squares"},
    ],
)
def test_values_of_other_types_are_one_sentence(values: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"^here: ") as caught:
        TrialConfig.parse(values, "here: ")
    assert "\n" not in str(caught.value)
