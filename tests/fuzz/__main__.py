"""``python -m tests.fuzz --networks 200 --seed 0 [--files]``: random networks, hostile files, and a table of counts."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator

import torch

from tests.fuzz.networks import generate
from tests.fuzz.oracles import Report, check

FILES = {"checkpoints": 1500, "spaces": 800, "stores": 600}


def reports(first: int, count: int) -> Iterator[Report]:
    """What came of the networks of ``count`` seeds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(first, first + count):
            yield check(generate(seed))


def table(found: Iterable[Report]) -> str:
    """Counts per construct and per oracle, and what the oracles could not judge."""
    networks, cut, frozen, caught, refused = (Counter[str]() for _ in range(5))
    checked, failed, unjudged = (Counter[str]() for _ in range(3))
    for report in found:
        names = set(report.case.names)
        networks.update(names)
        refused.update(names if report.refused else ())
        cut, frozen, caught = cut + report.cut, frozen + report.frozen, caught + report.caught
        checked, unjudged = checked + report.checked, unjudged + report.unjudged
        failed.update(failure.oracle for failure in report.failures)
    lines = [f"{'construct':<28} networks  sets cut  layers left  self-check  refused"]
    lines += [
        f"{n:<28} {networks[n]:8} {cut[n]:9} {frozen[n]:12} {caught[n]:11} {refused[n]:8}" for n in sorted(networks)
    ]
    lines += ["", f"{'oracle':<28}  checked    failed"]
    lines += [f"{name:<28} {checked[name]:8} {failed[name]:9}" for name in sorted(checked)]
    lines += ["", f"{'not judged':<70} times"]
    lines += [f"{name:<70} {count:5}" for name, count in unjudged.most_common()]
    return "\n".join(lines)


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--networks", type=int, default=200, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    parser.add_argument("--files", action="store_true", help="hostile files as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, found, failures = time.perf_counter(), list[Report](), 0
    for number, report in enumerate(reports(options.seed, options.networks), 1):
        found.append(report)
        failures += len(report.failures)
        for failure in report.failures:
            print(
                f"FAILED {failure}\n       again: python -m tests.fuzz --networks 1 --seed {failure.seed}", flush=True
            )
        if number % 20 == 0 or number == options.networks:
            seconds = time.perf_counter() - started
            print(f"{number}/{options.networks} networks, {failures} failures, {seconds:.0f} s", flush=True)
    print(f"\n{table(found)}" if found else "no networks")
    for kind, count in FILES.items() if options.files else ():
        print(f"{kind}: {importlib.import_module('tests.fuzz.files').run(kind, count, options.seed)}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
