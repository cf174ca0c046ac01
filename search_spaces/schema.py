"""`SearchSpace`: what a sweep varies, read from TOML and checked before anything starts.

A file has a ``name`` and ``description``, the tables ``[baseline]`` (the original network, a `BaselineConfig`),
``[search]`` (defaults: algorithm, samples, objectives), ``[evaluation]`` (on which split), ``[fixed]`` (one value
each), ``[axes.NAME]`` and, of a sweep that has begun, ``[defaults.DECOMPOSITION]``. A name is a field of `TrialConfig`
or an option of a decomposition; an option only counts where the chosen decomposition has it. An axis may have a
condition: ``when = { decomposition = ["nmf"], rows = ["fixed"] }``, all of which must hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import islice
from pathlib import Path
from typing import Any

from core.complaints import show
from core.config import BaselineConfig, TrialConfig, make_options
from core.errors import UnknownNameError, UsageError, shortened
from core.evaluators import Evaluator
from core.metrics import Direction
from core.parts import is_pretrained
from search_spaces import sampling
from search_spaces.algorithms import GRID
from search_spaces.axis import Choices, SuggestingTrial, Value, label
from search_spaces.build import resolve, resolve_baseline, resolve_defaults
from search_spaces.conditions import PER_SITE_ALLOCATION
from search_spaces.describe import SpaceInfo, axis_info, baseline_info
from search_spaces.document import DEFAULT_SAMPLES, MOST_TRIALS, EvaluationTable, SearchDefaults, SpaceTable, read_toml
from search_spaces.names import PER_SITE, default, is_option, knowers
from search_spaces.override import overridden
from search_spaces.sampling import Assignment, Axes


@dataclass(frozen=True)
class SearchSpace(Axes):
    """A checked search space. Build one with `load_space` or `parse_space`.

    Attributes:
        description: one line for people.
        baseline: the original network that every trial compresses.
        search: how it is searched by default.
        evaluation: what trials are evaluated on.
        scored: what they are scored by.
        defaults: decomposition -> its options where nothing else says them.
        document: the file's tables, as plain JSON, from which `parse_space` builds the same space.
    """

    description: str
    baseline: BaselineConfig
    search: SearchDefaults
    evaluation: EvaluationTable
    scored: Evaluator
    defaults: dict[str, dict[str, Value]]
    document: dict[str, Any] = field(compare=False, repr=False)

    @property
    def objectives(self) -> dict[str, Direction]:
        """Metric -> whether it is to be large or small."""
        score = self.scored.score
        return self.search.objectives or {score.name: score.better, "params_fraction": "min"}

    def planned(self) -> int:
        """Return how many trials a sweep with the space's own defaults runs."""
        size = self.size()
        wanted = self.search.samples
        if self.search.algorithm != GRID:
            wanted = wanted or DEFAULT_SAMPLES
        given = [number for number in (size, wanted) if number is not None]
        return min(given)

    def config(self, assignment: Mapping[str, Value]) -> TrialConfig:
        """Return the configuration that an assignment of the axes and the fixed values make up."""
        values = {**self.fixed, **assignment}
        chosen = values.get("decomposition", default("decomposition"))
        options = dict(self.defaults.get(str(chosen), {}))
        options |= {n: v for n, v in values.items() if is_option(n) and chosen in knowers(n)}
        ratios = {n.removeprefix(PER_SITE): v for n, v in values.items() if n.startswith(PER_SITE)}
        fields = {n: v for n, v in values.items() if not is_option(n) and not n.startswith(PER_SITE)}
        used = ratios if fields.get("allocation") == PER_SITE_ALLOCATION else {}
        return TrialConfig.parse({**fields, "ratios": used, "options": options}, where=f"{self.name}: ")

    def grid(self) -> Iterator[TrialConfig]:
        """Enumerate every configuration once, the last axis changing fastest.

        Raises:
            UsageError: an axis is continuous.
        """
        return map(self.config, sampling.assignments(self, self.order))

    def random(self, count: int, seed: int) -> Iterator[TrialConfig]:
        """Draw ``count`` different configurations (all, if there are fewer); a seed's sequence is always the same."""
        return map(self.config, islice(sampling.distinct_draws(self, seed), count))

    def suggest(self, trial: SuggestingTrial) -> TrialConfig:
        """Let an Optuna-like trial pick a configuration, define-by-run; its parameters are the axes' names."""
        return self.config(sampling.suggest(self, trial))

    def assignment(self, config: TrialConfig) -> Assignment | None:
        """Return the values of the axes that make up ``config``, or None where this space does not hold it."""
        found = sampling.place_of(self, config)
        return found if found is not None and self.config(found).key == config.key else None

    def sources(self) -> list[str]:
        """Return the calibration sources that its configurations name, sorted."""
        axis = self.axes.get("calibration")
        named = axis.values if isinstance(axis, Choices) else (self.fixed.get("calibration"),)
        return sorted(name for name in named if isinstance(name, str))

    def sites(self) -> list[tuple[str, ...]]:
        """Return the lists of patterns by which its configurations choose channel sets."""
        axis = self.axes.get("sites")
        named = axis.values if isinstance(axis, Choices) else (self.fixed.get("sites"),)
        return [patterns for patterns in named if isinstance(patterns, tuple)]

    def settled(self) -> dict[str, Any]:
        """Return the document with all defaults written down, so that it means the same under any later release."""
        axis = self.axes.get("decomposition")
        fixed = self.fixed.get("decomposition", default("decomposition"))
        used = axis.values if isinstance(axis, Choices) else (fixed,)
        options = {
            str(name): make_options(str(name), dict(self.defaults.get(str(name), {}))).model_dump(mode="json")
            for name in used
        }
        evaluation = self.evaluation.model_dump(exclude_defaults=True) | {"split": self.evaluation.split}
        document = {**self.document, "evaluation": evaluation, "defaults": options}
        if is_pretrained(self.baseline.model):
            document["baseline"] = {"preprocessing": "weights", **document["baseline"]}
        return document

    def labels(self, assignment: Assignment) -> dict[str, bool | int | float | str]:
        """Return ``assignment`` as an Optuna trial stores it (see `suggest`)."""
        return {name: label(value) for name, value in assignment.items()}

    def override(self, changes: Mapping[str, str]) -> SearchSpace:
        """Return the space with ``--set KEY=VALUE`` changes.

        A key is a name (``ratio``), ``baseline.KEY`` or ``search.KEY``. A value is TOML (a bare word is text): a
        list or a table with ``values`` or ``low``/``high`` makes an axis, anything else fixes the name. Other
        axes, and values of conditions, that can no longer occur are dropped.

        Raises:
            UsageError: an unknown key, or a value that is refused.
        """
        return parse_changed(self.document, changes, self.name)

    def describe(self) -> SpaceInfo:
        """Return what `sweep show` prints."""
        return SpaceInfo(
            name=self.name,
            description=self.description,
            baseline=baseline_info(self.baseline),
            algorithm=self.search.algorithm,
            split=self.evaluation.split,
            objectives={str(metric): str(way) for metric, way in self.objectives.items()},
            size=self.size(),
            trials=self.planned(),
            fixed={name: show(value) for name, value in self.fixed.items()},
            axes=tuple(axis_info(name, axis, self.conditions[name]) for name, axis in self.axes.items()),
        )


def parse_space(document: dict[str, Any], source: str) -> SearchSpace:
    """Build a space from a file's tables.

    Raises:
        UsageError: the first problem of the tables; the message names ``source`` and the key.
        UnknownNameError: there is no such evaluator.
    """
    table = SpaceTable.parse(document, source)
    baseline = resolve_baseline(table.baseline, source)
    fixed, axes, conditions = resolve(table, source)
    endless = [name for name, axis in axes.items() if axis.count is None]
    if endless and table.search.algorithm == GRID:
        hint = "give it a step or values, or set search.algorithm to random, tpe or nsga2"
        raise UsageError(f"{source}: axes.{endless[0]}: is continuous, so it has no grid; {hint}")
    if table.search.start and not all(name.startswith(PER_SITE) for name in axes):
        other = next(name for name in axes if not name.startswith(PER_SITE))
        raise UsageError(
            f"{source}: search.start: a budget says ratios of layers, and axes.{other} is something else; fix it,"
            " or leave start out"
        )
    space = SearchSpace(
        name=table.name,
        fixed=fixed,
        axes=axes,
        conditions=conditions,
        description=table.description,
        baseline=baseline,
        search=table.search,
        evaluation=table.evaluation,
        scored=table.evaluation.scored(),
        defaults=resolve_defaults(table.defaults, source),
        document=document,
    )
    if table.search.algorithm == GRID and table.search.samples is None and space.planned() > MOST_TRIALS:
        hint = "take larger steps, set search.samples, or search.algorithm to random, tpe or nsga2"
        raise UsageError(f"{source}: axes: the grid has {space.size():,} configurations, over {MOST_TRIALS:,}: {hint}")
    return space


def parse_changed(document: dict[str, Any], changes: Mapping[str, str], name: str) -> SearchSpace:
    """Build a space from a file's tables with ``--set`` changes; see `SearchSpace.override`.

    Raises:
        UsageError: the tables have not the shape of a space, or what they come to is refused.
    """
    said = ", ".join(f"--set {shortened(key)}={shortened(value)}" for key, value in changes.items())
    source = f"{name} with {said}"
    SpaceTable.parse(document, name)
    return parse_space(overridden({"fixed": {}, "axes": {}, **document}, changes, source), source)


def load_space(name_or_path: str, changes: Mapping[str, str] | None = None) -> SearchSpace:
    """Load a bundled space by its name, or a user's by the path of its TOML file.

    Args:
        name_or_path: of the space.
        changes: ``--set`` changes, made before the space is checked: so another algorithm can be chosen for one that
            has no grid, or too large a one.

    Raises:
        UnknownNameError: no bundled space of that name; the nearest are named.
        UsageError: the file cannot be read, or something in it is refused.
    """
    known = bundled()
    if name_or_path in known:
        return _load(known[name_or_path], f"{name_or_path}.toml", changes)
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml" or "/" in name_or_path or os.sep in name_or_path:
        return _load(path, name_or_path, changes)
    raise UnknownNameError("search space", name_or_path, known)


def list_spaces() -> list[SearchSpace]:
    """Return the bundled spaces, sorted by name."""
    return [load_space(name) for name in sorted(bundled())]


def bundled() -> dict[str, Traversable]:
    """Return the files of the search spaces that come with the package, by name."""
    files = resources.files("search_spaces").iterdir()
    return {file.name.removesuffix(".toml"): file for file in files if file.name.endswith(".toml")}


def _load(file: Traversable, source: str, changes: Mapping[str, str] | None = None) -> SearchSpace:
    document = {"name": Path(file.name).stem, **read_toml(file, source)}
    if isinstance(file, Path):
        document = beside(file, document)
    return parse_changed(document, changes, Path(file.name).stem) if changes else parse_space(document, source)


def beside(file: Path, document: dict[str, Any]) -> dict[str, Any]:
    """The tables with a checkpoint that lies beside ``file``; one that does not is looked for where we are."""
    table = document.get("baseline")
    baseline: dict[str, Any] = table if isinstance(table, dict) else {}
    checkpoint = baseline.get("checkpoint")
    if not isinstance(checkpoint, str) or not checkpoint or checkpoint.startswith("~"):
        return document
    found = file.parent / checkpoint
    return {**document, "baseline": {**baseline, "checkpoint": str(found)}} if _is_file(found) else document


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no name of a file
        return False
