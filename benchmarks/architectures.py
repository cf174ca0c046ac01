"""What compress() makes of every network of the conformance tables, at its native image size.

Run: ``python -m benchmarks.architectures [--write docs/architectures.md] [--only NAME …]``. One process and one thread
a network, random weights: this is about structure, not accuracy. With ``--only`` the page keeps its other rows.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import re
import resource
import time
from pathlib import Path
from typing import Any

import torch

from core.compress import compress, prepare
from core.graph.rules import OUTPUT
from tests.conformance.networks import BY_NAME, Network
from tests.conformance.others import OTHERS, Other

NETWORKS: dict[str, Network | Other] = {**BY_NAME, **{other.name: other for other in OTHERS}}

HEAD = """# Architectures

What `compress(model, images, ratio=0.5, decomposition="most-similar")` does to {count} networks: torchvision's
classifiers and the registered ones, and {others} of timm, transformers, segmentation-models-pytorch and ultralytics, or
for segmentation and films. The weights are random, because this page is about structure, not accuracy.

- **parameters**: of the original with 10 classes.
- **sets**: groups of channels that are removed together; **coupled** are those with several producers (residual sums,
  gates, halves of one tensor, queries and keys).
- **skipped**: layers whose out-channels stay, the output layer included; [below](#layers-left-alone) is why.
- **left**: the share of the parameters when half of the channels of every set are gone. A quarter is what to expect
  where every layer loses half of its inputs and half of its outputs.
- **approximate through**: the operations on the way from producer to consumer that are not positively homogeneous.
  Through these, merging is exact only between channels of equal scale. Everywhere else it is exact between
  proportional ones, and the table says so.
- **seconds**, **peak**: to find the sets, merge and cut, on one thread, and the most memory that the process had, torch
  itself (0.8 GB) and both networks included.

Attention is cut head by head in torch's `nn.MultiheadAttention`, in timm's `Attention`, in torchvision's Swin
transformers and MaxViT, and in transformers' ViT, DeiT, DINOv2 and ViT-MSN, as many channels of each head: the values
with the columns that read them, each query with its key ([methods](methods.md#attention)). Where something of it was
cut, the module is one with four linear layers, `q_proj`, `k_proj`, `v_proj` and the out layer. The stream of tokens
stays where learnt positions are added to it. A detector of ultralytics returns feature maps beside its boxes, which
therefore stay whole; with `model.model[-1].export = True` it returns boxes alone.

Images have the size that the network was designed for (224 pixels, Inception 299, the registered ones 28 or 32, films
16 frames of 112, those of transformers 64, detectors 640).
Written by `python -m benchmarks.architectures --write docs/architectures.md` on a busy machine with two cores: the
seconds are upper bounds.

| network | parameters | sets | coupled | skipped | left | approximate through | seconds | peak |
|---|--:|--:|--:|--:|--:|---|--:|--:|
"""
LEFT_ALONE = """
## Layers left alone

The output layer of each network is, always. Besides:
"""


def describe(name: str) -> dict[str, Any]:
    """Compress one network and tell what happened."""
    torch.set_num_threads(1)
    network = NETWORKS[name]
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
    """The reasons for the layers left alone, the network's output aside, each with the layers' names."""
    layers: dict[str, list[str]] = {}
    for layer, reason in skipped.items():
        if reason != OUTPUT:
            layers.setdefault(re.sub(r"(channel count) \d+", r"\1", reason), []).append(layer)
    lines = [
        f"- {len(names)}, because {reason}: {pattern(names)}"
        for reason, names in sorted(layers.items(), key=lambda item: -len(item[1]))
    ]
    return f"\n**{name}**\n\n" + "\n".join(lines) + "\n" if lines else ""


def pattern(names: list[str], most: int = 4) -> str:
    """Names with their numbers as stars, each once."""
    patterns = list(dict.fromkeys(f"`{re.sub(r'[0-9]+', '*', name)}`" for name in names))
    return ", ".join(patterns[:most]) + (" …" if len(patterns) > most else "")


def in_a_process_of_its_own(name: str) -> dict[str, Any]:
    """`describe`, so that the peak is this network's alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(describe, (name,))
        pool.close()
        pool.join()  # its end, instead of being killed, or it leaves semaphores behind
    return found


def rows_of(page: str) -> tuple[dict[str, str], dict[str, str]]:
    """The lines of the table, and the reasons, of a page by the network's name."""
    head, _, below = page.partition(LEFT_ALONE)
    table = {line.split("|")[1].strip(): line for line in head.split("--:|\n")[-1].splitlines() if line.startswith("|")}
    parts = re.split(r"\n\*\*(.+?)\*\*\n", below)[1:]
    return table, {name: f"\n**{name}**\n{text}" for name, text in zip(parts[::2], parts[1::2], strict=True)}


def page_of(table: dict[str, str], why: dict[str, str]) -> str:
    """The page with the rows of `rows_of`, in the order of the networks."""
    names = [name for name in NETWORKS if name in table]
    head = HEAD.format(count=len(names), others=sum(other.name in table for other in OTHERS))
    return head + "\n".join(table[name] for name in names) + "\n" + LEFT_ALONE + "".join(why.get(n, "") for n in names)


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, metavar="NAME")
    arguments = parser.parse_args()
    chosen = arguments.only or list(NETWORKS)
    needed = {other.package for other in OTHERS if other.name in chosen}
    if missing := sorted(package for package in needed if importlib.util.find_spec(package) is None):
        parser.error(f"not installed: {', '.join(missing)}")
    kept = arguments.write and arguments.only
    table, why = rows_of(arguments.write.read_text()) if kept else ({}, {})
    for name in chosen:
        found = in_a_process_of_its_own(name)
        table[name], why[name] = row(name, found), reasons(name, found["skipped"])
        print(table[name], flush=True)
    if arguments.write:
        arguments.write.write_text(page_of(table, why))


if __name__ == "__main__":
    main()
