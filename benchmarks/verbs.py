"""What the fast verbs of ``sweep`` cost, against a Python that does nothing.

Run: ``python -m benchmarks.verbs``. Each verb runs in a process of its own on a results folder with three ended sweeps
of 300 trials; these are made up, no network is trained. CPU seconds (user and system) are the median of `RUNS`
processes after one that counts for nothing but tells the peak of memory and which large libraries were imported. Both
are given as they are and as multiples of ``python -c pass`` in the same run.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
RUNS = 5
NAMES, TRIALS = ("first", "second", "third"), 300
LARGE = ("torch", "ray", "mlflow", "scipy", "numpy", "matplotlib", "plotly", "sklearn", "optuna", "pandas", "pydantic")
VERBS: dict[str, tuple[str, ...]] = {
    "--help": ("--help",),
    "spaces": ("spaces",),
    "show": ("show", "digits-quick"),
    "list": ("list",),
    "status": ("status",),
    "status NAME": ("status", NAMES[0]),
    "logs NAME": ("logs", NAMES[0]),
    "stop NAME": ("stop", NAMES[0]),
}
PROBE = """
import json, re, runpy, sys
report, module, *sys.argv[1:] = sys.argv[1:]
try:
    if module:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())
    json.dump({"megabytes": int(peak[1]) / 1e3, "modules": list(sys.modules)}, open(report, "w"))
"""


@dataclass(frozen=True)
class Cost:
    """Of one command.

    Args:
        seconds: of CPU, user and system.
        megabytes: the most memory that it had.
        large: which of the large libraries it imported.
    """

    seconds: float
    megabytes: float
    large: tuple[str, ...]


def make_results(folder: Path) -> None:
    """Three ended sweeps, as the files that a sweep leaves (see ``docs/reliability.md``)."""
    for number, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        (folder / name / "sweep.json").write_text(json.dumps(info_of(name, number)))
        (folder / name / "trials.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records(number)))


def info_of(name: str, number: int) -> dict[str, Any]:
    """What a sweep is, as in ``sweep.json``."""
    started = 1_795_630_000.0 + 1_000 * number
    return {
        "name": name,
        "space": "digits-quick",
        "resolved": {
            "name": "digits-quick",
            "baseline": {"model": "lenet-300-100", "dataset": "digits"},
            "search": {"algorithm": "grid", "samples": TRIALS},
            "axes": {"ratio": {"low": 0.1, "high": 0.9}},
        },
        "search": "grid",
        "total": TRIALS,
        "status": "finished",
        "workers": 2,
        "started_at": started,
        "ended_at": started + 60.0,
        "baseline_key": "170ef6191dafea82",
        "original": {"accuracy": 99.0, "loss": 0.03, **dict.fromkeys(("params", "macs", "bytes", "latency_ms"), 1e5)},
        "dataset": {"name": "digits", "digest": "f012fbed2b9fac46", "images": 540, "shape": [1, 28, 28]},
    }


def records(sweep: int) -> Iterator[dict[str, Any]]:
    """The trials of a sweep: every thirtieth has failed, and every tenth has printed something."""
    for number in range(TRIALS):
        ratio = round(0.1 + 0.8 * number / TRIALS, 6)
        failed = number % 30 == 7
        yield {
            "key": hashlib.sha256(f"{sweep} {number}".encode()).hexdigest()[:16],
            "config": {"ratio": ratio, "criterion": "l1", "decomposition": ("none", "most-similar")[number % 2]},
            "status": "failed" if failed else "finished",
            "reason": f"RuntimeError: no luck with {number // 100}" if failed else "",
            "metrics": {} if failed else metrics(ratio, number),
            "sites": [] if failed else [site("ip1", 300, ratio), site("ip2", 100, ratio)],
            "log": f"trial {number} says something\n" * 5 if number % 10 == 7 else "",
            "started_at": 1_795_630_000.0 + 1_000 * sweep + number / 5,
            "seconds": 0.1,
            "evaluate_seconds": 0.08,
            "images": 540,
        }


def metrics(ratio: float, number: int) -> dict[str, float]:
    """Accuracy falls with the ratio, with some noise so that the front is not everything."""
    accuracy = 99.0 - 60.0 * ratio**3 - (number * 7919 % 100) / 10
    left = dict.fromkeys(("params_fraction", "macs_fraction", "bytes_fraction", "latency_fraction"), 1 - ratio)
    sizes = dict.fromkeys(("params", "macs", "bytes", "latency_ms"), 1e5 * (1 - ratio))
    return {"accuracy": accuracy, "accuracy_drop": 99.0 - accuracy, "loss": ratio, **sizes, **left}


def site(name: str, size: int, ratio: float) -> dict[str, Any]:
    """What happened to one layer; most of a record is the list of what was kept."""
    kept = list(range(round(size * (1 - ratio))))
    after = {"consumers": ["ip2" if name == "ip1" else "ip3"], "channel_wise": [], "merged": size - len(kept)}
    return {"name": name, "producers": [name], **after, "size": size, "kept": kept, "cosine": 0.5, "reconstruction": {}}


def cpu_seconds(command: Sequence[str], folder: Path) -> float:
    """User and system time of one process."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[1:])} ended with {process.returncode}: {said.strip()[-500:]}")
    return usage.ru_utime + usage.ru_stime


def environment() -> dict[str, str]:
    """This one, with the sources on Python's path."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def cost(module: str, words: Sequence[str], folder: Path) -> Cost:
    """Of one verb; without a module, of a Python that does nothing."""
    plain = [sys.executable, "-m", module, *words] if module else [sys.executable, "-c", "pass"]
    report = folder / "report.json"
    cpu_seconds([sys.executable, "-c", PROBE, str(report), module, *words], folder)
    seen = json.loads(report.read_text())
    seconds = median(cpu_seconds(plain, folder) for _ in range(RUNS))
    return Cost(seconds, seen["megabytes"], tuple(name for name in LARGE if name in seen["modules"]))


def row(name: str, found: Cost, idle: Cost) -> str:
    """One line of the table."""
    times, more = found.seconds / idle.seconds, found.megabytes / idle.megabytes
    return (
        f"{name:18s} {found.seconds:8.2f} {times:7.1f}x {found.megabytes:9.0f} {more:7.1f}x  {' '.join(found.large)}"
    ).rstrip()


def main() -> None:
    """Print the table."""
    print(f"{'command':18s} {'CPU s':>8s} {'':8s} {'peak MB':>9s} {'':8s}  imported", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-verbs-") as name:
        folder = Path(name)
        make_results(folder / "results")
        idle = cost("", (), folder)
        print(row("python -c pass", idle, idle), flush=True)
        for verb, words in VERBS.items():
            print(row(f"sweep {verb}", cost("sweep.cli", words, folder), idle), flush=True)


if __name__ == "__main__":
    main()
