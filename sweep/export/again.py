"""The command that makes a trial's network without its sweep's folder."""

from __future__ import annotations

import shlex
from typing import Any

from core.config import BaselineConfig, TrialConfig, counting, make_options
from core.evaluators.base import CLASSIFICATION
from search_spaces import SearchSpace
from sweep.arguments import NETWORK

LISTED = {"options", "ratios", "sites"}


def command_of(config: TrialConfig, space: SearchSpace) -> str:
    """``sweep compress …`` for a configuration on the original network of ``space``; "" where it has no words for it.

    It has none for a ratio per layer, nor for an original network that was trained otherwise than its recipe says.
    """
    baseline = space.baseline
    given = {name: getattr(baseline, name) for name in ("model", "dataset", "checkpoint", *NETWORK)}
    named = {name: value for name, value in given.items() if value is not None}
    own = {} if baseline.preprocessing != "weights" else {"preprocessing": "weights"}
    if config.ratios or BaselineConfig.parse({**named, **own}) != baseline:
        return ""
    values, usual = counting(config.as_json()), TrialConfig().as_json()
    for name, value in values.items():
        if name not in LISTED and value is not None and (name == "ratio" or value != usual[name]):
            named[name] = value
    words = [word for name, value in named.items() for word in _option(name, value)]
    defaults = make_options(config.decomposition, {}).model_dump(mode="json")
    changed = {name: value for name, value in config.options.items() if value != defaults[name]}
    words += [word for name, value in changed.items() for word in ("--option", f"{name}={_written(value)}")]
    words += [word for pattern in config.sites or () for word in ("--sites", pattern)]
    evaluation = space.evaluation
    words += ["--evaluate", evaluation.evaluator] if evaluation.evaluator != CLASSIFICATION else []
    if evaluation.metric is not None:
        parts = (evaluation.metric, evaluation.direction or "max", evaluation.unit or "")
        words += ["--metric", ":".join(parts).rstrip(":")]
    words += ["--split", space.evaluation.split] if space.evaluation.split != "test" else []
    return shlex.join(["sweep", "compress", *words])


def _option(name: str, value: Any) -> list[str]:
    """An option and its value, as one word where the value would be taken for an option."""
    option, written = f"--{name.replace('_', '-')}", _written(value)
    return [f"{option}={written}"] if written.startswith("-") else [option, written]


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
