"""Keys on disk: they are those of key version 1, whatever options came later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from core import config as config_module
from core import identity
from core.config import BaselineConfig, TrialConfig
from core.decompositions import DECOMPOSITIONS
from core.decompositions.base import Decomposition

KEYS = json.loads((Path(__file__).parents[1] / "fixtures" / "keys-v1.json").read_text())


@pytest.mark.parametrize("known", KEYS["trials"], ids=lambda known: known["key"])
def test_trials_have_the_keys_of_version_1(known: dict) -> None:
    """With the defaults of then, which a sweep of then goes on with (`sweep.storage.info.resampled`)."""
    config = known["config"]
    then = identity.OPTIONS.get(config.get("decomposition", "most-similar"), {})
    assert TrialConfig.parse({**config, "options": {**then, **config.get("options", {})}}).key == known["key"]


def test_a_default_that_has_changed_makes_another_key() -> None:
    now, then = ({"decomposition": "least-squares", "options": o} for o in ({}, {"damping": 2e-3}))
    assert TrialConfig.parse(now).key != TrialConfig.parse(then).key


@pytest.mark.parametrize("known", KEYS["baselines"], ids=lambda known: known["key"])
def test_original_networks_have_the_keys_of_version_1(known: dict) -> None:
    assert BaselineConfig.parse(known["config"]).key == known["key"]


def test_the_tables_are_large_enough_to_mean_something() -> None:
    assert len(KEYS["trials"]) >= 11
    assert len(KEYS["baselines"]) >= 22
    assert len({known["key"] for part in KEYS.values() for known in part}) == 33


@pytest.fixture
def forget_defaults() -> None:
    config_module._defaults.cache_clear()
    config_module._field_defaults.cache_clear()
    yield
    config_module._defaults.cache_clear()
    config_module._field_defaults.cache_clear()


def test_an_option_that_is_added_or_taken_away_changes_no_key(
    monkeypatch: pytest.MonkeyPatch, forget_defaults: None
) -> None:
    class Extended(DECOMPOSITIONS.get("most-similar")):  # type: ignore[misc]
        sharper: bool = Field(False)

    class Reduced(Decomposition):
        merges: ClassVar[bool] = True
        threshold: float = 0.1

    before = TrialConfig(options={"threshold": 0.3}).key
    config_module._defaults.cache_clear()
    monkeypatch.setitem(DECOMPOSITIONS._parts, "most-similar", Extended)
    assert TrialConfig(options={"threshold": 0.3}).key == before
    assert TrialConfig(options={"threshold": 0.3, "sharper": True}).key != before
    config_module._defaults.cache_clear()
    monkeypatch.setitem(DECOMPOSITIONS._parts, "most-similar", Reduced)
    assert TrialConfig(options={"threshold": 0.3}).key == before


def test_a_field_that_is_added_changes_no_key(monkeypatch: pytest.MonkeyPatch, forget_defaults: None) -> None:
    class Wider(TrialConfig):
        brightness: float = 0.0

    monkeypatch.setattr(config_module, "TrialConfig", Wider)
    assert Wider(ratio=0.3).key == TrialConfig(ratio=0.3).key
    assert Wider(ratio=0.3, brightness=1.0).key != TrialConfig(ratio=0.3).key


def test_a_new_key_version_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    trial, baseline = TrialConfig(), BaselineConfig(model="lenet-300-100", dataset="digits")
    before = (trial.key, baseline.key)
    monkeypatch.setattr(identity, "KEY_VERSION", 2)
    assert trial.key != before[0]
    assert baseline.key != before[1]


def test_todays_default_of_a_first_option_counts_when_it_differs() -> None:
    values, first = {"damping": 1.0, "new": 1}, {"damping": 0.5}
    assert identity.canonical(values, {"damping": 1.0, "new": 1}, first) == {"damping": 1.0}
    assert identity.canonical(values, {"damping": 1.0, "new": 2}, first) == {"damping": 1.0, "new": 1}
