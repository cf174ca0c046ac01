"""The command on a card makes the same configuration, as the real parser reads it."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from core.config import TrialConfig
from search_spaces import parse_space
from sweep.arguments import Parser, parse
from sweep.commands import compress
from sweep.export.again import command_of

CONFIGS: list[dict[str, Any]] = [
    {},
    {"ratio": 0.123456789, "criterion": "geometric-median", "decomposition": "none", "seed": 7},
    {"decomposition": "most-similar", "options": {"threshold": 0.45, "bn_recalibrate": True}, "calibration_images": 64},
    {"decomposition": "least-squares", "calibration": "synthetic", "sites": ["ip*", "a b"]},
    {"allocation": "budget", "of": "macs", "sharpness": 0.25, "decomposition": "nmf", "options": {"rows": "free"}},
    {"target": "drop <= 1", "min_channels": 2, "multiple": 8},
    {"recovery": "distill", "recovery_steps": 10, "criterion": "obs"},
]


def space(**baseline: Any) -> Any:
    named = {"model": "lenet-300-100", "dataset": "digits", **baseline}
    return parse_space({"name": "toy", "baseline": named, "axes": {"ratio": {"values": [0.5]}}}, "toy")


@pytest.mark.parametrize("values", CONFIGS, ids=str)
def test_the_command_means_the_configuration(values: dict[str, Any]) -> None:
    config = TrialConfig.parse(values)
    words = shlex.split(command_of(config, space()))
    assert words[:2] == ["sweep", "compress"]
    parser = Parser(prog="sweep compress")
    compress.add_arguments(parser)
    options = parse(parser, words[2:])
    assert options is not None
    assert compress.chosen_config(options) == config
    assert (options.model, options.dataset, options.checkpoint) == ("lenet-300-100", "digits", None)
    assert options.split == "validation"


def test_there_is_none_for_what_it_has_no_words_for() -> None:
    assert command_of(TrialConfig.parse({"allocation": "per-site", "ratios": {"ip1": 0.5}}), space()) == ""
    assert command_of(TrialConfig(), space(epochs=3)) == ""
    assert "--checkpoint 'my net.pt'" in command_of(TrialConfig(), space(checkpoint="my net.pt"))
