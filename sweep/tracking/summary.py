"""What MLflow says of a whole sweep: the parent run's description, the front's tags, a saved view. Plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.metrics import TEST, fraction_of, metric_named
from core.records import TrialRecord
from sweep.storage.info import SweepInfo
from sweep.tracking.view import Names

FRONT, RANK = "sweep.front", "sweep.rank"
ON_FRONT = f"tags.`{FRONT}` = 'true'"
"""Finds the front's runs in MLflow's search box."""
VIEW, FRONT_VIEW = "sweep", "front"
"""The saved views of an experiment, of all runs and of those on fronts, as their addresses name them."""
VIEW_TAG = "mlflow.sharedViewState.{view}"
TRAINING = "workflowType=machine_learning"
"""Part of every address: without it MLflow 3 opens its mode for language models, which shows no runs."""
PICTURE = "pareto.png"
MOST_ROWS = 60


@dataclass(frozen=True)
class Front:
    """The networks that no other trial beats in accuracy and size.

    Attributes:
        records: the most accurate first.
        commands: what exports one and what goes on with the sweep, a line each.
    """

    records: tuple[TrialRecord, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def ranks(self) -> dict[str, int]:
        """Key -> place, from 1."""
        return {record.key: place for place, record in enumerate(self.records, 1)}


@dataclass(frozen=True)
class Ending:
    """What the parent run gets at the end.

    Attributes:
        status: in MLflow's words: FINISHED, FAILED or KILLED.
        metrics: of the whole sweep.
        artifacts: files to be kept with it.
        front: what came of it.
        info: of the sweep as it has ended; None: as it was when it began.
    """

    status: str
    metrics: Mapping[str, float]
    artifacts: Sequence[Path]
    front: Front = Front()
    info: SweepInfo | None = None


@dataclass(frozen=True)
class Network:
    """A network of the front that is on disk.

    Attributes:
        record: of its trial.
        files: its weights and its card.
    """

    record: TrialRecord
    files: tuple[Path, Path]


def shown(info: SweepInfo) -> dict[str, str]:
    """Metrics in the front's table, under these heads, and in the columns of the saved view."""
    scored = info.request.scored
    head = f"{scored.word} {scored.score.unit}".rstrip()
    return {
        scored.score.name: head,
        f"{TEST}{scored.score.name}": f"test {head}",
        fraction_of("params"): "parameters left %",
        fraction_of("macs"): "MACs left %",
    }


def varying(info: SweepInfo) -> tuple[str, ...]:
    """The fields and options that differ between a sweep's trials."""
    axes = info.request.resolved.get("axes")
    return tuple(axes) if isinstance(axes, Mapping) else ()


def always_varying(info: SweepInfo) -> tuple[str, ...]:
    """Those of them that every trial has."""
    axes = info.request.resolved.get("axes")
    return tuple(name for name, axis in axes.items() if not axis.get("when")) if isinstance(axes, Mapping) else ()


def run_address(experiment: str, run: str) -> str:
    """Where a run is, within the server."""
    return f"#/experiments/{experiment}/runs/{run}?{TRAINING}"


def view_address(experiment: str, view: str = VIEW) -> str:
    """Where a saved view of an experiment is within the server; without ``view`` the plain list of its runs."""
    runs = f"#/experiments/{experiment}/runs?{TRAINING}"
    return f"{runs}&viewStateShareKey={view}" if view else runs


def description(info: SweepInfo, front: Front, names: Names, experiment: str, run: str, ids: Mapping[str, str]) -> str:
    """The parent run's description in Markdown: the plot, the front with links to its runs, and how to go on.

    Args:
        info: of the sweep.
        front: may be empty.
        names: of child runs.
        experiment: its id.
        run: the parent's id.
        ids: key -> id of the child run.
    """
    state = info.state
    ended = f" ({_plain(state.message)})" if state.message else ""
    lines = [f"**{_plain(info.request.space)}** · {state.status}{ended}"]
    lines += ["", f"Evaluated with {info.precision}."] if info.precision else []
    if front.records:
        heads = shown(info)
        found = [name for name in heads if any(name in record.metrics for record in front.records)]
        lines += ["", f"| rank | trial | {' | '.join(heads[name] for name in found)} |"]
        lines += ["|" + "---|" * (2 + len(found))]
        for rank, record in enumerate(front.records[:MOST_ROWS], 1):
            numbers = [metric_named(n).show(record.metrics[n]) if n in record.metrics else "" for n in found]
            title = _plain(names.of(record))
            link = f"[{title}]({run_address(experiment, ids[record.key])})" if record.key in ids else title
            lines.append(f"| {rank} | {link} | {' | '.join(numbers)} |")
        if len(front.records) > MOST_ROWS:
            lines.append(f"\nand {len(front.records) - MOST_ROWS} more")
        alone = f"{view_address(experiment, FRONT_VIEW)}&compareRunsMode=CHART"
        lines += ["", f"[The fronts' runs alone, as charts]({alone}); in the search box: `{ON_FRONT}`."]
        lines += ["", f"![the front](get-artifact?path={PICTURE}&run_uuid={run})"]
    if front.commands:
        lines += ["", "```bash", *front.commands, "```"]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that Markdown takes for nothing else."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#|!" else char for char in " ".join(text.split()))


def saved_views(info: SweepInfo) -> dict[str, str]:
    """An experiment's pages, tag -> MLflow's form of a shared view: sorted by accuracy, accuracy by size as a chart.

    MLflow's charts show the first hundred runs, which the second view chooses well.
    """
    return {
        VIEW_TAG.format(view=VIEW): json.dumps(_view(info, "")),
        VIEW_TAG.format(view=FRONT_VIEW): json.dumps(_view(info, ON_FRONT)),
    }


def _view(info: SweepInfo, search: str) -> dict[str, Any]:
    scored, size = info.request.scored, fraction_of("params")
    score = scored.score.name
    axes, everywhere = varying(info), always_varying(info)
    columns = ["attributes.`Models`", *(f"metrics.`{n}`" for n in shown(info)), *(f"params.`{n}`" for n in axes[:8])]
    section = {"uuid": "sweep", "name": "Sweep", "display": True, "isReordered": False, "deleted": False}
    scatter = _chart(
        "scatter", "SCATTER", xaxis=_metric(size), yaxis=_metric(score), displayName=f"{scored.word} by size"
    )
    parallel = _chart("parallel", "PARALLEL", selectedParams=list(everywhere[:8]), selectedMetrics=[size, score])
    return {
        "searchFilter": search,
        "orderByKey": f"metrics.`{score}`",
        "orderByAsc": scored.score.better == "min",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [scatter, {**parallel, "showAllRuns": True}],
        "compareRunSections": [{**section, "isGenerated": False}],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
    }


def _metric(name: str) -> dict[str, str]:
    return {"key": name, "type": "METRIC"}


def _chart(name: str, kind: str, **more: Any) -> dict[str, Any]:
    own = {"uuid": name, "type": kind, "runsCountToCompare": 1000, "metricSectionId": "sweep"}
    return {**own, "deleted": False, "isGenerated": False, **more}
