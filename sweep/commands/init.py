"""Look at a network of yours, and write a search space for it: what was found, and a grid that fits."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UsageError
from core.evaluators import EVALUATORS
from core.evaluators.base import AGREEMENT, CLASSIFICATION
from core.files import writing
from sweep.arguments import Parser, chosen_network, require_space_file

if TYPE_CHECKING:
    from core.baselines import Baseline
    from core.records import EvalSplit
    from core.survey import Survey
    from search_spaces.starting import Start

EXAMPLE = "sweep init my_nets:make --checkpoint my_net.pt --dataset my_data:load --mean 0.5 --std 0.25"
QUESTIONS = {
    "model": "network (module:function that makes it, torchvision:NAME, or a name): ",
    "checkpoint": "file with its weights (empty: it is trained here): ",
    "dataset": "data (module:function, image-folder:PATH, or a name such as fashion-mnist): ",
    "mean": "mean that its training subtracted from pixels in [0, 1] (empty: the data's): ",
    "std": "standard deviation that it divided the rest by (empty: the data's): ",
}
NEEDED = {"model": "the network", "dataset": "--dataset"}
OUT = Path("my-space.toml")


def add_arguments(parser: Parser) -> None:
    """The network, its data, and the file."""
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="my_nets:make, torchvision:NAME, timm:NAME, or a name")
    add("--checkpoint", type=Path, metavar="FILE", help="its weights (none: it is trained, later)")
    add("--dataset", metavar="D", help="e.g. my_data:load, image-folder:PATH, fashion-mnist")
    parser.network()
    add("--out", type=Path, default=OUT, metavar="FILE", help=f"the file to write ({OUT})")
    add("--force", action="store_true", help="replace a file that is there")
    parser.results()
    parser.json()


def run(options: Namespace) -> int:
    """Ask what is missing where somebody can answer, look, and write the file.

    Raises:
        UsageError: the network or its data is not named, or the file cannot be written.
    """
    out: Path = options.out
    require_space_file(out, force=options.force, option="--out")
    if sys.stdin.isatty() and any(getattr(options, name) is None for name in NEEDED):
        ask(options)
    for name, what in NEEDED.items():
        if getattr(options, name) is None:
            raise UsageError(f"{what} is missing; such as: {EXAMPLE}")
    from core.config import BaselineConfig
    from core.models import is_pretrained
    from sweep.reporting.progress import make_reporter

    given = {"model": options.model, "dataset": options.dataset, "checkpoint": options.checkpoint}
    table = {name: value for name, value in (given | chosen_network(options)).items() if value is not None}
    config = BaselineConfig.parse(table)
    trained = config.checkpoint is not None or is_pretrained(config.model)
    with make_reporter(sys.stderr) as reporter:
        baseline = _baseline(config, options.results, reporter, trained=trained)
        found = _look(baseline, trained=trained)
    start = _written(table, baseline, found, out, trained=trained)
    print(
        json.dumps(_report(out, baseline, found, start, trained=trained), indent=2)
        if options.json
        else "\n".join(_lines(out, baseline, found, start, trained=trained))
    )
    return 0


def ask(options: Namespace) -> None:
    """Ask on the terminal for what was not given."""
    for name, question in QUESTIONS.items():
        if getattr(options, name) is not None:
            continue
        while True:
            print(question, end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            answer = line.strip()
            if not line or not (wrong := _wrong(name, answer)):
                break
            print(wrong, file=sys.stderr)
        if answer:
            setattr(options, name, Path(answer) if name == "checkpoint" else answer)


def _wrong(name: str, answer: str) -> str:
    """What is wrong with an answer, as far as it can be told at once; "" where nothing is."""
    if not answer:
        return "an answer is needed" if name in NEEDED else ""
    if name == "checkpoint" and not Path(answer).expanduser().is_file():
        return f"there is no file {answer}"
    if name in ("mean", "std"):
        try:
            [float(word) for word in answer.split(",")]
        except ValueError:
            return "a number, or one for each channel: 0.485,0.456,0.406"
    return ""


def _baseline(config: Any, results: Path, reporter: Any, *, trained: bool) -> Baseline:
    from core.baselines import random_baseline
    from core.preprocessing import described
    from sweep.backend.workbench import load_baseline, remarks

    if not trained:
        return random_baseline(config, reporter.step)
    baseline = load_baseline(config, results, reporter)
    baseline.images  # noqa: B018  a task has none, and says so
    reached = f"{baseline.accuracy:.2f} % on the test split" if baseline.dataset.labelled else "the data have no labels"
    reporter.line(f"{config.model}: {reached} ({described(baseline.dataset)})")
    for line in remarks(baseline, split_of(baseline)):
        reporter.line(line)
    return baseline


def _look(baseline: Baseline, *, trained: bool) -> Survey:
    from core.survey import survey, without_accuracy
    from sweep.backend.workbench import make_bench, measured, one_thread

    bench, _ = measured(make_bench(baseline, split_of(baseline), scored=EVALUATORS.get(evaluator_of(baseline))))
    with one_thread():
        found = survey(bench)
    return found if trained else without_accuracy(found)


def evaluator_of(baseline: Baseline) -> str:
    """What its networks can be scored by."""
    return CLASSIFICATION if baseline.dataset.labelled else AGREEMENT


def split_of(baseline: Baseline) -> EvalSplit:
    """What its networks can be scored on."""
    return "validation" if len(baseline.images.validation) else "test"


def _written(table: dict[str, Any], baseline: Baseline, found: Survey, out: Path, *, trained: bool) -> Start:
    """Write the file, after it was read as one."""
    import tomllib

    from search_spaces import parse_space
    from search_spaces.starting import started

    facts: dict[str, str] = {}
    advice = {
        "axes": " ".join(tried(found, baseline)),
        "baseline": " ".join(f"WARNING: {doubt}." for doubt in baseline.doubts),
    }
    keys = {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in table.items()}
    if "checkpoint" in keys:
        keys["checkpoint"] = beside(Path(keys["checkpoint"]), out)
    if trained and not baseline.doubts and baseline.dataset.labelled:
        keys.setdefault("expected_accuracy", round(baseline.accuracy, 2))
        facts["expected_accuracy"] = "top-1 on the test split in percent; a network a point below it is refused"
    if not trained:
        facts["model"] = 'trained by the first sweep; checkpoint = "FILE" takes weights of yours instead'
    if not baseline.dataset.labelled:
        advice["evaluation"] = "The data have no labels: networks are scored by how often they agree with the original."
    elif trained and ":" not in baseline.config.dataset and split_of(baseline) == "validation":
        advice["evaluation"] = (
            "A tenth of the training files. A network that was trained elsewhere has most likely seen them, and is too"
            ' good there: then take split = "test", or data of your own with a validation split that it has not seen.'
        )
    evaluation = {"split": split_of(baseline), "evaluator": evaluator_of(baseline)}
    start = started(keys, found, os.cpu_count() or 1, facts, advice, evaluation)
    parse_space({"name": out.stem, **tomllib.loads(start.text)}, str(out))
    with writing(out) as temporary:
        temporary.write_text(start.text, encoding="utf-8")
    return start


def beside(checkpoint: Path, out: Path) -> str:
    """The checkpoint as the file will find it: beside itself, in the folder of the command, or anywhere."""
    if checkpoint.is_absolute() or str(checkpoint).startswith("~"):
        return str(checkpoint)
    return os.path.relpath(checkpoint, out.parent)


def tried(found: Survey, baseline: Baseline) -> list[str]:
    """What the network came to with half of its channels, or why it could not be had, a sentence each."""
    if found.trial.status != "finished":
        return [f"Half of all channels could not be removed with obs and least-squares: {found.trial.reason}."]
    if not found.trial.metrics:
        return []
    metrics, word = found.trial.metrics, EVALUATORS.get(evaluator_of(baseline)).word
    return [
        f"Tried: with half of all channels removed by obs and least-squares, {100 * metrics['params_fraction']:.1f} %"
        f" of the parameters are left and {metrics['accuracy']:.2f} % {word} on the {split_of(baseline)} split"
        f" (before {metrics['accuracy'] + metrics['accuracy_drop']:.2f} %)."
    ]


def _lines(out: Path, baseline: Baseline, found: Survey, start: Start, *, trained: bool) -> list[str]:
    from search_spaces.starting import pace, structure

    first = [] if trained else [f"{baseline.config.model} has no weights yet: the first sweep trains it"]
    how_long = pace(found, start.trials, start.seconds, os.cpu_count() or 1)
    words = [*first, *structure(found), *tried(found, baseline), how_long]
    return [*words, f"written: {out}", f"next: sweep show {out}", f"      sweep run {out}"]


def _report(out: Path, baseline: Baseline, found: Survey, start: Start, *, trained: bool) -> dict[str, Any]:
    return {
        "file": str(out),
        "accuracy": baseline.accuracy if trained and baseline.dataset.labelled else None,
        "doubts": list(baseline.doubts),
        "sets": [{"name": one.name, "size": one.size} for one in found.sets],
        "skipped": dict(found.skipped),
        "params": found.params,
        "least_params_fraction": found.least,
        "tried": found.trial.metrics or None,
        "trials": start.trials,
        "seconds": start.seconds,
    }
