"""``--set KEY=VALUE`` and what `sweep show` says about the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UsageError
from search_spaces import load_space, parse_space
from search_spaces.override import parse_value


@pytest.fixture(scope="module")
def lenet() -> Any:
    return load_space("lenet-fashion-mnist")


def test_a_scalar_fixes_an_axis(lenet: Any) -> None:
    space = lenet.override({"ratio": "0.5", "criterion": "l2"})
    assert {(c.ratio, c.criterion) for c in space.grid()} == {(0.5, "l2")}
    assert space.size() == 1 + 4 + 4 + 2
    assert "ratio" in lenet.axes, "the space itself is left alone"


def test_a_list_or_range_makes_an_axis_and_keeps_its_condition(lenet: Any) -> None:
    space = lenet.override(
        {"threshold": "[0.1, 0.9]", "ratio": "{ low = 0.2, high = 0.4, step = 0.1 }", "seed": "[1, 2]"}
    )
    assert space.size() == 3 * (3 * (1 + 2 + 4 + 2) + (1 + 2 + 4 + 2 * 2)) * 2
    assert {c.ratio for c in space.grid()} == {0.2, 0.3, 0.4}
    assert space.conditions["threshold"] == {"decomposition": ("most-similar",)}


def test_fixed_options_go_where_the_decomposition_has_them(lenet: Any) -> None:
    space = lenet.override({"threshold": "0.3"})
    assert {c.options.get("threshold") for c in space.grid()} == {None, 0.3}


def test_what_can_no_longer_occur_is_dropped(lenet: Any) -> None:
    assert list(lenet.override({"decomposition": "none"}).axes) == ["ratio", "criterion"]
    two = lenet.override({"decomposition": '["none", "nmf"]'})
    assert list(two.axes) == ["ratio", "criterion", "decomposition", "rows", "hard"]
    assert two.size() == 9 * 4 * 5


def test_conditions_lose_the_values_that_are_gone() -> None:
    axes = {
        "rows": {"values": ["fixed", "free"]},
        "hard": {"values": [False, True], "when": {"rows": ["fixed", "free"]}},
        "iterations": {"values": [10, 20], "when": {"hard": [True]}},
    }
    baseline = {"model": "lenet-300-100", "dataset": "digits"}
    document = {"name": "s", "baseline": baseline, "fixed": {"decomposition": "nmf"}, "axes": axes}
    space = parse_space(document, "s.toml")
    assert space.size() == 2 * (1 + 2)
    assert space.override({"rows": "free"}).size() == 3
    assert list(space.override({"hard": "false"}).axes) == ["rows"]
    assert space.override({"hard": "true"}).size() == 4


def test_baseline_and_search_keys(lenet: Any) -> None:
    space = lenet.override(
        {
            "baseline.seed": "3",
            "search.samples": "20",
            "search.algorithm": "random",
            "search.objectives": "{ loss = 'min' }",
        }
    )
    assert space.baseline.seed == 3
    assert (space.search.algorithm, space.search.samples, space.planned()) == ("random", 20, 20)
    assert space.search.objectives == {"loss": "min"}
    assert lenet.baseline.seed == 0


def test_sites_take_a_list_and_a_list_of_lists_makes_an_axis(lenet: Any) -> None:
    assert lenet.override({"sites": '["ip1"]'}).fixed["sites"] == ("ip1",)
    assert lenet.override({"sites": '[["ip1"], ["ip2"]]'}).size() == 2 * lenet.size()


def test_ratios_per_site() -> None:
    vgg = load_space("vgg16-cifar10")
    space = vgg.override({"ratios.feature.0": "[0.1, 0.2]"})
    assert {c.ratios.get("feature.0") for c in space.grid()} == {None, 0.1, 0.2}
    uniform = vgg.override({"allocation": "uniform"})
    assert all(c.ratios == {} for c in uniform.grid())
    assert not any(name.startswith("ratios.") for name in uniform.fixed)
    replaced = vgg.override({"allocation": "per-site", "ratios": "{ 'feature.7' = 0.25 }"})
    assert {tuple(c.ratios.items()) for c in replaced.grid()} == {(("feature.7", 0.25),)}
    assert "ratio" not in replaced.axes


def test_a_chain_of_overrides_equals_one(lenet: Any) -> None:
    together = lenet.override({"ratio": "[0.5, 0.6]", "decomposition": "nmf"})
    assert lenet.override({"ratio": "[0.5, 0.6]"}).override({"decomposition": "nmf"}) == together


@given(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True).map(lambda xs: [x / 100 for x in xs]))
def test_override_round_trip(ratios: list[float]) -> None:
    space = load_space("digits-quick").override({"ratio": str(ratios)})
    assert space.axes["ratio"].as_dict() == {"values": ratios}
    assert space.override({"ratio": str(space.axes["ratio"].as_dict()["values"])}) == space
    assert parse_space(space.document, "again") == space


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("3", 3),
        ("true", True),
        ("l1", "l1"),
        ('"l1"', "l1"),
        ("./nets/a-b_1.safetensors", "./nets/a-b_1.safetensors"),
        ("my_nets:make", "my_nets:make"),
        ("[1, 2]", [1, 2]),
        ("{ a = 1 }", {"a": 1}),
        ("0.5 # half", 0.5),
    ],
)
def test_values_are_toml_or_bare_words(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_a_users_file_takes_its_name_from_the_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[baseline]\nmodel = "my_nets:make"\ndataset = "digits"\n[axes]\nratio = { values = [0.1] }\n')
    space = load_space(str(path))
    assert (space.name, space.size(), space.baseline.model) == ("mine", 1, "my_nets:make")


def test_description(lenet: Any) -> None:
    info = lenet.describe()
    assert (info.name, info.size, info.trials, info.algorithm) == ("lenet-fashion-mnist", 414, 414, "grid")
    assert info.baseline["model"] == "lenet-300-100"
    assert info.objectives == {"accuracy": "max", "params_fraction": "min"}
    axes = {axis.name: axis for axis in info.axes}
    assert axes["ratio"].values == "0.1 to 0.9 in steps of 0.1"
    assert axes["ratio"].count == 9
    assert axes["threshold"].when == "decomposition = most-similar"
    assert axes["hard"].values == "false, true"
    free = load_space("vgg-fashion-mnist").describe()
    assert free.size is None
    assert free.trials == 100
    assert {a.name: a for a in free.axes}["damping"].values.endswith("(log)")


ENDLESS = """
[baseline]
model = "lenet-300-100"
dataset = "digits"
[axes]
ratio = { low = 0.1, high = 0.9 }
criterion = { values = ["l1", "l2"] }
"""


def test_another_algorithm_is_chosen_before_the_grid_is_looked_at(tmp_path: Path) -> None:
    """For an axis without a grid, and for a grid of millions."""
    path = tmp_path / "mine.toml"
    path.write_text(ENDLESS)
    with pytest.raises(UsageError, match="so it has no grid"):
        load_space(str(path))
    assert load_space(str(path), {"search.algorithm": "tpe"}).search.algorithm == "tpe"
    assert load_space(str(path), {"ratio": "[0.3, 0.5]"}).size() == 4
    path.write_text(ENDLESS.replace("high = 0.9", "high = 0.9, step = 1e-7"))
    with pytest.raises(UsageError, match="the grid has 16,000,002 configurations"):
        load_space(str(path))
    assert load_space(str(path), {"search.samples": "20"}).planned() == 20
    assert load_space(str(path), {"search.algorithm": "random", "search.samples": "20"}).planned() == 20


@pytest.mark.parametrize("text", ["axes = 3", "[axes]\nratio = 4", "fixed = []", "[baseline]"])
def test_a_file_of_another_shape_is_a_sentence_with_changes_too(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError):
        load_space(str(path), {"ratio": "0.5"})
