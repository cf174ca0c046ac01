"""What MLflow says of a whole sweep: names of runs, the description, the saved view, figures as people read them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_records import record_of

from core.config import TrialConfig
from sweep.storage.info import SweepInfo, SweepRequest, SweepState
from sweep.tracking.summary import ON_FRONT, Front, description, saved_views
from sweep.tracking.view import NAME_LIMIT, Names, rounded

AXES = {
    "ratio": {"values": [0.3, 0.5]},
    "decomposition": {"values": ["none", "most-similar"]},
    "threshold": {"values": [0.1, 0.45], "when": {"decomposition": ["most-similar"]}},
}


def info(**more: Any) -> SweepInfo:
    request = SweepRequest(name="a", space="toy", resolved={"axes": AXES}, search="grid")
    return SweepInfo(request, replace(SweepState(total=3, status="finished"), **more))


def test_a_run_is_named_by_what_varies() -> None:
    names = Names(tuple(AXES))
    merged = record_of(TrialConfig(ratio=0.3, decomposition="most-similar", options={"threshold": 0.45}))
    assert names.of(merged) == "most-similar · 0.3 · threshold 0.45"
    assert names.of(record_of(TrialConfig(ratio=0.5, decomposition="none"))) == "none · 0.5"


@given(st.lists(st.floats(0.0, 0.99), min_size=2, max_size=30, unique=True))
def test_names_differ_and_stay(ratios: list[float]) -> None:
    """Also where numbers look alike once they are rounded."""
    records = [record_of(TrialConfig(ratio=ratio)) for ratio in ratios]
    names = Names(("ratio",))
    found = [names.of(record) for record in records]
    assert len(set(found)) == len(records)
    assert [names.of(record) for record in records] == found


def test_a_name_of_many_layers_is_cut() -> None:
    ratios = {f"layer{number}.*": number / 100 for number in range(60)}
    record = record_of(TrialConfig(allocation="per-site", ratios=ratios))
    name = Names(tuple(f"ratios.{pattern}" for pattern in ratios)).of(record)
    assert NAME_LIMIT < len(name) < 150
    assert name.endswith(record.key[:8])


def test_the_description_links_the_front_and_says_how_to_go_on() -> None:
    best = record_of(TrialConfig(ratio=0.3, decomposition="none"), accuracy=91.234)
    front = Front((best,), ("sweep export a --max-drop 1",))
    text = description(info(), front, Names(tuple(AXES)), "7", "parent", {best.key: "child"})
    assert "[none · 0.3](#/experiments/7/runs/child?workflowType=machine_learning)" in text
    assert "| 1 | " in text
    assert "91.23" in text
    assert "get-artifact?path=pareto.png&run_uuid=parent" in text
    assert "sweep export a --max-drop 1" in text
    assert "tags.`sweep.front` = 'true'" in text


def test_nothing_that_failed_is_markup() -> None:
    text = description(info(message="<img src=x> | [x](y) `z`"), Front(), Names(()), "7", "parent", {})
    assert r"\<img src=x\> \| \[x\](y) \`z\`" in text


def test_the_saved_view_compares_what_every_trial_has() -> None:
    view, front = map(json.loads, saved_views(info()).values())
    assert front == {**view, "searchFilter": ON_FRONT}
    assert view["orderByKey"] == "metrics.`accuracy`"
    scatter, parallel = view["compareRunCharts"]
    assert (scatter["xaxis"]["key"], scatter["yaxis"]["key"]) == ("params_fraction", "accuracy")
    assert parallel["selectedParams"] == ["ratio", "decomposition"]  # not all trials have a threshold
    assert "params.`threshold`" in view["selectedColumns"]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("accuracy", 83.88888, 83.89),
        ("test_accuracy", 83.88888, 83.89),
        ("params_fraction", 0.30004, 0.3),
        ("params_fraction", 0.276328, 0.2763),
        ("params", 123456.0, 123456.0),
        ("anything", 1.23456, 1.2346),
    ],
)
def test_figures_are_rounded_as_people_read_them(name: str, value: float, shown: float) -> None:
    assert rounded(name, value) == shown
