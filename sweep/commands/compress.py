"""Compress one network with one configuration, evaluate it (on the test split), and optionally save it."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, get_args

from core.errors import UnknownNameError
from core.metrics import METRICS
from core.records import EvalSplit
from sweep.arguments import Parser, pairs

EXAMPLE = (
    "sweep compress --model lenet-300-100 --dataset fashion-mnist --ratio 0.8 --criterion l1"
    " --decomposition most-similar --option threshold=0.45 --out small.safetensors"
)


def add_arguments(parser: Parser) -> None:
    """The network, its data, and one configuration."""
    add = parser.add_argument
    add("--model", required=True, metavar="M", help="e.g. lenet-300-100, torchvision:resnet18, my_nets:make_net")
    add("--checkpoint", type=Path, metavar="FILE", help="its weights (else it is trained once and kept)")
    add("--dataset", required=True, metavar="D", help="e.g. fashion-mnist, cifar10, digits")
    add("--ratio", required=True, type=float, metavar="R", help="share of channels removed per set, 0 to below 1")
    add("--criterion", default="l1", metavar="C", help="which channels stay (l1)")
    add("--decomposition", default="most-similar", metavar="X", help="what makes up for the others (most-similar)")
    add("--option", action="append", default=[], metavar="K=V", help="of the decomposition, e.g. threshold=0.45")
    add("--calibration", metavar="SRC", help="source of unlabelled images, for the methods that need some")
    add("--sites", action="append", metavar="PATTERN", help="only channel sets with such a producer, e.g. 'layer*'")
    add("--split", default="test", metavar="S", help="evaluate on the validation or the test split (test)")
    add("--out", type=Path, metavar="FILE", help="save the compressed network here")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Compress, evaluate, print."""
    config, split = chosen_config(options), chosen_split(options.split)
    from core.config import BaselineConfig
    from core.measure import latency_ms
    from core.trial import compress_trial, relative, require_finite
    from sweep.backend.workbench import load_baseline, make_bench, one_thread
    from sweep.reporting.progress import make_reporter

    given = {"model": options.model, "dataset": options.dataset, "checkpoint": options.checkpoint}
    baseline_config = BaselineConfig.parse({k: v for k, v in given.items() if v is not None})
    with make_reporter(sys.stderr) as reporter:
        baseline = load_baseline(baseline_config, options.results, reporter)
        if baseline.dataset.note:
            reporter.line(baseline.dataset.note)
        bench = make_bench(baseline, split)
    result = compress_trial(config, bench)
    original, measured = bench.measure(bench.model), bench.measure(result.model)
    with one_thread():
        original["latency_ms"] = latency_ms(bench.model, bench.example)
        measured["latency_ms"] = latency_ms(result.model, bench.example)
    metrics = relative(measured, original)
    require_finite(metrics)
    if options.out is not None:
        from core.export import save

        save(result.model, options.out)
    report = {
        "key": config.key,
        "split": split,
        "config": config.as_json(),
        "metrics": rounded(metrics),
        "original": rounded(original),
        "sites": [site.as_dict() for site in result.sites],
        "skipped": result.skipped,
        "out": None if options.out is None else str(options.out),
    }
    print(
        json.dumps({"accuracy": report["metrics"]["accuracy"], **report}, indent=2) if options.json else table(report)
    )
    return 0


def chosen_split(name: str) -> EvalSplit:
    """The split that ``--split`` names.

    Raises:
        UnknownNameError: there is no such split.
    """
    for split in get_args(EvalSplit):
        if name == split:
            return split  # type: ignore[no-any-return]
    raise UnknownNameError("split", name, get_args(EvalSplit), where="--split: ")


def chosen_config(options: Namespace) -> Any:
    """The configuration that the command line describes."""
    from core.config import TrialConfig
    from search_spaces.override import parse_value

    values = {
        "ratio": options.ratio,
        "criterion": options.criterion,
        "decomposition": options.decomposition,
        "options": {k: parse_value(v, f"--option {k}: ") for k, v in pairs(options.option, "--option").items()},
        "calibration": options.calibration,
        "sites": options.sites,
    }
    return TrialConfig.parse(values)


def rounded(metrics: dict[str, float]) -> dict[str, float]:
    """Accuracies to two decimals, the rest to six."""
    return {name: round(value, 2 if name.startswith("accuracy") else 6) for name, value in metrics.items()}


def table(report: dict[str, Any]) -> str:
    """The report for people: metrics before and after, channels per set, what was left alone."""
    before, after = report["original"], report["metrics"]
    rows = [(f"on the {report['split']} split", "original", "compressed")]
    shown = {name: metric for name, metric in METRICS.items() if name in before}
    rows += [(metric.title, metric.show(before[name]), metric.show(after[name])) for name, metric in shown.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    out = ["  ".join((row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]))) for row in rows]
    out.append("")
    out += [f"{site['name']}: {len(site['kept'])} of {site['size']} channels kept" for site in report["sites"]]
    out += [f"{name}: left alone, {reason}" for name, reason in report["skipped"].items()]
    if report["out"]:
        out.append(f"saved  {report['out']}")
    return "\n".join(out)
