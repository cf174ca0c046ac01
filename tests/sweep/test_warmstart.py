"""What a sweep learns from earlier ones, and which of their configurations its space holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_records import record_of

from core.config import TrialConfig
from core.errors import UnknownNameError
from search_spaces import list_spaces, parse_space
from sweep.search.base import TAKEN_FROM
from sweep.search.warmstart import WarmStart
from sweep.storage.writer import create_store

SPACES = {space.name: space for space in list_spaces()}
TOY = parse_space(
    {
        "name": "toy",
        "baseline": {"model": "lenet-300-100", "dataset": "digits"},
        "search": {"algorithm": "random", "samples": 5},
        "axes": {
            "ratio": {"low": 0.1, "high": 0.9},
            "sites": {"values": [["ip1"], ["ip*"]]},
            "decomposition": {"values": ["none", "most-similar"]},
            "threshold": {"values": [0.2, 0.45], "when": {"decomposition": ["most-similar"]}},
        },
    },
    "toy.toml",
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*SPACES.values(), TOY]), st.integers(0, 10_000))
def test_a_space_finds_its_own_configurations_again(space, seed):
    (config,) = space.random(1, seed)
    assignment = space.assignment(config)
    assert assignment is not None
    assert space.config(assignment) == config


def test_a_space_does_not_hold_others():
    inside = TrialConfig(ratio=0.5, decomposition="none", sites=("ip1",))
    assert TOY.assignment(inside) is not None
    for change in ({"ratio": 0.95}, {"sites": ("ip2",)}, {"criterion": "l2"}, {"decomposition": "nmf"}):
        assert TOY.assignment(TrialConfig.parse({**inside.model_dump(), "options": {}, **change})) is None


def test_an_optimiser_is_told_lists_by_their_label():
    assignment = TOY.assignment(TrialConfig(ratio=0.5, decomposition="none", sites=("ip1",)))
    assert TOY.labels(assignment) == {"ratio": 0.5, "sites": '["ip1"]', "decomposition": "none"}


@pytest.fixture
def earlier(results, make_info):
    """Sweeps: ``same`` on network b0 with a result inside, one outside, a failed one; ``other`` on network b1."""
    inside = [TrialConfig(ratio=ratio, decomposition="none", sites=("ip1",)) for ratio in (0.2, 0.4, 0.6)]
    records = [
        record_of(inside[0], accuracy=90.0),
        record_of(TrialConfig(ratio=0.5)),
        record_of(inside[1], reason="it broke"),
    ]
    for name, key in (("same", "b0"), ("other", "b1")):
        with create_store(results, name, lambda n, key=key: make_info(n, baseline_key=key)) as store:
            for record in records:
                store.append(record)
            store.append(record_of(inside[2], accuracy=5.0 if name == "other" else 70.0))
    return inside


def test_results_on_the_same_network_are_taken_over(results, earlier):
    taken = WarmStart.read(TOY, results, ["same", "other"]).records_for("b0", "test")
    assert [record.key for record in taken] == [earlier[0].key, earlier[2].key]
    assert {record.provenance[TAKEN_FROM] for record in taken} == {"same"}


def test_fronts_of_other_networks_are_tried_first(results, earlier):
    hints = WarmStart.read(TOY, results, ["same", "other"]).hints_for("b0", "test")
    assert [hint.key for hint in hints] == [earlier[2].key, earlier[0].key]
    assert WarmStart.read(TOY, results, ["same"]).hints_for("b0", "test") == []


def test_an_unknown_sweep_is_named(results, earlier):
    with pytest.raises(UnknownNameError, match="unknown sweep 'sam'; did you mean 'same'"):
        WarmStart.read(TOY, results, ["sam"])
