"""A list of configurations is made as far as it is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from core.config import TrialConfig
from search_spaces import SearchSpace, load_space
from sweep.search.base import Plan, make_planner


def fine(algorithm: str) -> SearchSpace:
    changes = {"ratio": "{ low = 0.1, high = 0.9, step = 1e-5 }", "search.algorithm": algorithm, "search.samples": "10"}
    return load_space("lenet-fashion-mnist").override(changes)


@pytest.mark.parametrize("algorithm", ["grid", "random", "tpe", "nsga2"])
def test_a_fine_grid_is_not_made_for_ten_samples(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space, made = fine(algorithm), []
    parse = TrialConfig.parse

    def counted(*arguments: Any, **named: Any) -> TrialConfig:
        made.append(1)
        return parse(*arguments, **named)

    monkeypatch.setattr(TrialConfig, "parse", counted)
    planner = make_planner(Plan(space, seed=0))
    asked = [planner.ask() for _ in range(10)]
    assert None not in asked
    assert planner.total == len({config.key for config in asked if config}) == 10
    assert len(made) <= 20


def test_hints_come_first_and_count_once() -> None:
    space = load_space("digits-quick")
    hints = list(space.grid())[-2:]
    planner = make_planner(Plan(space, seed=0, hints=hints))
    order = [planner.ask() for _ in range(planner.total)]
    assert order[:2] == hints
    assert len({config.key for config in order if config}) == planner.total == 32
