"""Compress one network with one configuration, evaluate it (on the test split), and optionally save it."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from core.errors import UnknownNameError, UsageError
from core.evaluators import Evaluator, find_evaluator
from core.evaluators.base import CLASSIFICATION
from core.metrics import METRICS, Metric
from core.records import EvalSplit
from sweep.arguments import NETWORK, Parser, chosen_network, evaluation_of, pairs

if TYPE_CHECKING:
    from core.config import TrialConfig
    from core.workbench import Workbench
    from sweep.reporting.progress import Reporter

DESCRIBING = (
    *("model", "checkpoint", "dataset", "ratio", "target", "criterion", "decomposition", "option", "allocation", "of"),
    *("sharpness", "min_channels", "multiple", "calibration", "calibration_images", "calibration_copies", "recovery"),
    *("recovery_steps", "seed", "sites", "split", "evaluate", "metric", *NETWORK),
)
"""Options that say what a trial says."""
FORMS = ("safetensors", "pt2", "onnx")
LOOKED_AT = 8
"""Images that formats are compared on."""
EXAMPLE = (
    "sweep compress --model lenet-300-100 --dataset fashion-mnist --ratio 0.8 --criterion l1"
    " --decomposition most-similar --option threshold=0.45 --out small.safetensors"
)


def add_arguments(parser: Parser) -> None:
    """The network, its data, and one configuration."""
    parser.usage = "sweep compress (--model M --dataset D (--ratio R | --target T) | --trial NAME/KEY) [options]"
    add = parser.add_argument
    add("--trial", metavar="NAME/KEY", help="do what a trial of a sweep did")
    add("--model", metavar="M", help="e.g. lenet-300-100, or your own: my_nets:make_net")
    add("--checkpoint", type=Path, metavar="FILE", help="its weights (else it is trained once and kept)")
    add("--dataset", metavar="D", help="e.g. fashion-mnist, cifar10, digits")
    parser.evaluator()
    parser.network()
    add("--ratio", type=float, metavar="R", help="share of channels removed per set, 0 to below 1")
    add("--target", metavar="T", help="instead of a ratio: 'drop <= 1', 'params <= 0.3'")
    add("--criterion", metavar="C", help="which channels stay (l1)")
    add("--decomposition", metavar="X", help="what makes up for the others (most-similar)")
    add("--option", action="append", default=[], metavar="K=V", help="of the decomposition, e.g. threshold=0.45")
    add("--allocation", metavar="A", help="how the ratio is spread over the sets (uniform)")
    add("--of", metavar="SIZE", help="what a budget is of: params, macs, bytes (params)")
    add("--sharpness", metavar="S", help="of a budget: 0, all alike, to 1, by errors (auto)")
    add("--min-channels", type=int, metavar="N", help="so many stay in every set (1)")
    add("--multiple", type=int, metavar="N", help="widths are multiples of it, e.g. 8 (1)")
    add("--calibration", metavar="SRC", help="source of unlabelled images, if it needs any")
    add("--calibration-images", type=int, metavar="N", help="how many of them (256)")
    add("--calibration-copies", type=int, metavar="N", help="see each so often, mirrored and mixed (1)")
    add("--recovery", metavar="X", help="train afterwards: distill or fine-tune (none)")
    add("--recovery-steps", type=int, metavar="N", help="steps of it (400)")
    add("--seed", type=int, metavar="S", help="of every random draw (0)")
    add("--sites", action="append", metavar="PATTERN", help="only sets with such a producer, e.g. 'layer*'")
    add("--split", metavar="S", help="evaluate on validation or test (test)")
    add("--out", type=Path, metavar="FILE", help="save it here, as .safetensors, .pt2 or .onnx")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Compress, evaluate, print."""
    form = "" if options.out is None else chosen_form(options.out)
    task = given_task(options) if options.trial is None else recorded_task(options)
    from core.measure import latency_ms
    from core.trial import make_trial, relative, require_finite
    from sweep.backend.workbench import one_thread
    from sweep.export.formats import WRITERS, require_packages
    from sweep.reporting.progress import make_reporter

    require_packages(form)
    with make_reporter(sys.stderr) as reporter:
        bench = task.bench(reporter)
    config, made = task.config, make_trial(task.config, bench)
    original, measured = bench.measure(bench.model), bench.measure(made.model)
    with one_thread():
        original["latency_ms"] = latency_ms(bench.model, bench.example)
        measured["latency_ms"] = latency_ms(made.model, bench.example)
    metrics = relative(measured, original, bench.scored.score)
    require_finite(metrics)
    if options.out is not None:
        about = {"key": config.key, "split": bench.split, "configuration": config.as_json(), "metrics": metrics}
        WRITERS[form](made.model.cpu(), bench.some(LOOKED_AT), options.out, about)
    report: dict[str, Any] = {
        "key": config.key,
        "split": bench.split,
        "config": config.as_json(),
        "evaluator": task.evaluator,
        "metrics": rounded(metrics),
        "original": rounded(original),
        "sites": [site.as_dict() for site in made.result.sites],
        "skipped": made.result.skipped,
        "notes": made.notes,
        "recovery": made.recovery,
        "out": None if options.out is None else str(options.out),
    }
    score = bench.scored.score.name
    if options.json:
        print(json.dumps({score: report["metrics"][score], **report}, indent=2))
    else:
        print(table(report, bench.scored))
    return 0


@dataclass(frozen=True)
class Task:
    """What is to be done.

    Attributes:
        config: of the trial.
        bench: makes the workbench that it runs on.
        evaluator: what it is scored by.
    """

    config: TrialConfig
    bench: Callable[[Reporter], Workbench]
    evaluator: str = CLASSIFICATION


def given_task(options: Namespace) -> Task:
    """What the command line describes.

    Raises:
        UsageError: something is missing, or a value is refused.
    """
    if options.model is None or options.dataset is None:
        raise UsageError("give --model and --dataset, or --trial NAME/KEY; see 'sweep compress --help'")
    config, split = chosen_config(options), chosen_split(options.split or "test")
    network, evaluator = chosen_network(options), options.evaluate or CLASSIFICATION
    asked = evaluation_of(options)
    scored = find_evaluator(evaluator, asked.get("metric"), asked.get("direction"), asked.get("unit"))  # type: ignore[arg-type]

    def bench(reporter: Reporter) -> Workbench:
        from core.config import BaselineConfig
        from core.preprocessing import described
        from sweep.backend.workbench import load_baseline, make_bench, remarks

        given = {"model": options.model, "dataset": options.dataset, "checkpoint": options.checkpoint, **network}
        baseline_config = BaselineConfig.parse({k: v for k, v in given.items() if v is not None})
        baseline = load_baseline(baseline_config, options.results, reporter)
        if not baseline.trained_here:
            reached = f"{baseline.accuracy:.2f} % on the test split " if baseline.dataset.labelled else ""
            reporter.line(f"{options.model}: {reached}({described(baseline.dataset)})")
        for line in remarks(baseline):
            reporter.line(line)
        return make_bench(baseline, split, scored=scored)

    return Task(config, bench, evaluator)


def recorded_task(options: Namespace) -> Task:
    """What a trial of a sweep did, also of one that failed or was stopped.

    Raises:
        UsageError: there is no such trial, or the command line describes another one beside it.
    """
    more = [name for name in DESCRIBING if getattr(options, name) not in (None, [])]
    if more:
        raise UsageError(f"--trial brings its own network and configuration: leave out --{more[0].replace('_', '-')}")
    name, slash, key = options.trial.rpartition("/")
    if not slash:
        raise UsageError(f"--trial {options.trial}: write NAME/KEY, a sweep and the key of one of its trials")
    from sweep.export.choose import any_by_key
    from sweep.export.rebuild import Rebuilder, parsed
    from sweep.storage.reader import read_sweep

    sweep = read_sweep(options.results, name)
    config = parsed(any_by_key(sweep, key))
    evaluator = sweep.info.request.evaluator
    return Task(config, lambda reporter: Rebuilder(options.results, sweep, reporter).bench, evaluator)


def chosen_form(path: Path) -> str:
    """The format that a file's suffix names.

    Raises:
        UsageError: none that we write.
    """
    form = path.suffix.removeprefix(".")
    if form not in FORMS:
        raise UsageError(f"--out {path}: name the file .{', .'.join(FORMS)}, which says its format")
    return form


def chosen_split(name: str) -> EvalSplit:
    """The split that ``--split`` names.

    Raises:
        UnknownNameError: there is no such split.
    """
    for split in get_args(EvalSplit):
        if name == split:
            return split  # type: ignore[no-any-return]
    raise UnknownNameError("split", name, get_args(EvalSplit), where="--split: ")


def chosen_config(options: Namespace) -> TrialConfig:
    """The configuration that the command line describes.

    Raises:
        UsageError: it has neither a ratio nor a target, or both, or a value is refused.
    """
    from core.config import TrialConfig
    from search_spaces.override import parse_value

    if (options.ratio is None) == (options.target is None):
        raise UsageError("give either --ratio, such as 0.5, or --target, such as 'drop <= 1'")
    values = {
        "ratio": options.ratio,
        "criterion": options.criterion,
        "decomposition": options.decomposition,
        "options": {k: parse_value(v, f"--option {k}: ") for k, v in pairs(options.option, "--option").items()},
        "calibration": options.calibration,
        "sites": options.sites,
        "allocation": options.allocation,
        "sharpness": None if options.sharpness is None else parse_value(options.sharpness, "--sharpness: "),
    }
    same = (
        "of",
        "min_channels",
        "multiple",
        "calibration_images",
        "calibration_copies",
        "recovery",
        "recovery_steps",
        "seed",
        "target",
    )
    values |= {name: getattr(options, name) for name in same}
    return TrialConfig.parse({name: value for name, value in values.items() if value is not None})


def rounded(metrics: dict[str, float]) -> dict[str, float]:
    """Accuracies to two decimals, the rest to six."""
    return {name: round(value, 2 if name.startswith("accuracy") else 6) for name, value in metrics.items()}


def table(report: dict[str, Any], scored: Evaluator) -> str:
    """The report for people: metrics before and after, channels per set, what was left alone."""
    before, after = report["original"], report["metrics"]
    rows = [(f"on the {report['split']} split", "original", "compressed")]
    shown = [scored.named(METRICS.get(name, Metric(name, name.replace("_", " ")))) for name in before]
    rows += [(metric.title, metric.show(before[metric.name]), metric.show(after[metric.name])) for metric in shown]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    out = ["  ".join((row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]))) for row in rows]
    out.append("")
    out += [f"{site['name']}: {len(site['kept'])} of {site['size']} channels kept" for site in report["sites"]]
    out += [f"{name}: left alone, {reason}" for name, reason in report["skipped"].items()]
    out += report["notes"]
    if report["recovery"]:
        how = report["recovery"]
        out.append(f"trained by {how['method']} for {how['curve'][-1][0]} steps in {how['seconds']:.1f} s")
    if report["out"]:
        out.append(f"saved  {report['out']}")
    return "\n".join(out)
