"""What compress() makes of every network of the conformance table, at its native image size.

Run: ``python -m benchmarks.architectures [--write docs/architectures.md]``. One process and one thread a network,
random weights: this is about structure, not accuracy.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from core.compress import compress, prepare
from tests.conformance.networks import BY_NAME

HEAD = """# Architectures

What `compress(model, images, ratio=0.5, decomposition="most-similar")` does to each network of the
conformance table, with random weights at its native image size: this page is about structure. Written by
`python -m benchmarks.architectures --write docs/architectures.md` on one thread of a busy 2-core machine,
so the seconds are upper bounds; the peak includes torch itself and both networks.

**Sets** are groups of channels removed together, **coupled** those with several producers (residual sums,
gates). **Left** is the share of parameters after removing half of the channels of every set. Merging is
**exact** where removed channels are proportional to kept ones, unless an activation or norm on the way is
not positively homogeneous: those are named. Below, why layers are left alone.

| network | parameters | sets | coupled | layers skipped | left | approximate through | seconds | peak |
|---|---|---|---|---|---|---|---|---|
"""


def describe(name: str) -> dict[str, Any]:
    """Compress one network and tell what happened."""
    torch.set_num_threads(1)
    network = BY_NAME[name]
    model = network.build(native=True)
    images = network.images(1, native=True)
    start = time.perf_counter()
    result = compress(prepare(model, images), images, ratio=0.5)
    seconds = time.perf_counter() - start
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, result.model))
    return {
        "parameters": before,
        "sets": len(result.sites),
        "coupled": sum(len(site.producers) > 1 for site in result.sites),
        "skipped": result.skipped,
        "left": after / before,
        "approximate": sorted({op for site in result.sites for op in site.approximate}),
        "seconds": seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def row(name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    cells = (
        name,
        f"{found['parameters'] / 1e6:.2f} M",
        found["sets"],
        found["coupled"],
        len(found["skipped"]),
        f"{found['left']:.0%}",
        ", ".join(found["approximate"]) or "exact",
        f"{found['seconds']:.1f}",
        f"{found['peak']:.1f} GB",
    )
    return f"| {' | '.join(map(str, cells))} |"


def reasons(name: str, skipped: dict[str, str]) -> str:
    """The reasons for the layers left alone, the network's output aside."""
    counts = Counter(reason for reason in skipped.values() if reason != "it is the network's output")
    lines = [f"- {count} × {reason}" for reason, count in counts.most_common()]
    return f"\n**{name}**\n\n" + "\n".join(lines) + "\n" if lines else ""


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table, why = [], []
    for name in BY_NAME:
        with multiprocessing.get_context("fork").Pool(1) as pool:  # a process each, so that the peak is its own
            found = pool.apply(describe, (name,))
        table.append(row(name, found))
        why.append(reasons(name, found["skipped"]))
        print(table[-1], flush=True)
    if arguments.write:
        left = "\n\n## Layers left alone\n\nThe last layer of each network is its output. Besides:\n"
        arguments.write.write_text(HEAD + "\n".join(table) + left + "".join(why))


if __name__ == "__main__":
    main()
