"""The page docs/proof.md: what it says first, and its sections, each between two marks, as the last run left it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from benchmarks.proof import authors
from benchmarks.proof.setting import Section, Setting, machine, versions

INTRO = """# Proof

What this package is worth against its peers, its paper and its reviewers' questions, with what speaks against it as
well. Everything between the marks of a section was written by the command that the section names: `make proof` (about
20 minutes on two idle cores; longer beside other work) or `make proof-full`. A run writes its sections anew and leaves
the others; `make proof PARTS="paper cost"` runs some. The first leaves out the long parts (more_peers, photographs,
recovered, cifar, decoupling), which are on the page by having been named. Networks are trained here, once; checksums
say which weights a table is of. The last section is written by hand."""

TITLES = {
    "peers": "Peers: the same network, the same data, the same number of parameters",
    "more_peers": "The same on two more networks",
    "photographs": "The same on a real network: EfficientNet-Lite0 and photographs",
    "recovered": "The same after training",
    "paper": "The paper: every criterion and ratio on its own checkpoint",
    "cifar": "The paper's networks on CIFAR-10, end to end",
    "factors": "Reviewer 3: why not a non-negative factorisation?",
    "cost": "Cost: merging next to one Gram matrix",
    "sweeps": "Cost: a sweep, its workers, its length and its races",
    "search": "Search: how soon which planner finds the front",
    "training": "Reviewer 1: pruning, merging and training from scratch, over epochs",
    "decoupling": "Reviewer 2: depthwise and pointwise convolutions (Network Decoupling)",
    "activations": "Reviewer 1: other activations",
}
"""Sections in the order of the page."""


def marks(name: str) -> tuple[str, str]:
    """What a section stands between."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def written(section: Section, setting: Setting, name: str, seconds: float) -> str:
    """A section's text, with how it came about."""
    took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    how = f"*`{setting.command} PARTS={name}`, {took}: {section.measured}. {machine()}; {versions(section.versions)}.*"
    return "\n\n".join([how, *map(str, section.parts)])


def not_run(setting: Setting, name: str, reason: str) -> str:
    """The text of a section that could not be measured."""
    return f"*`{setting.command} PARTS={name}`: not run: {reason}.*"


def assemble(before: str, sections: Mapping[str, str]) -> str:
    """The page with ``sections`` anew; the others are those of the page ``before``."""
    parts = [INTRO]
    for name, title in TITLES.items():
        begin, end = marks(name)
        kept = re.search(f"{re.escape(begin)}\n(.*?)\n{re.escape(end)}", before, re.DOTALL)
        text = sections.get(name, kept[1].strip() if kept else f"*Not run yet: `make proof PARTS={name}`.*")
        parts.append(f"## {title}\n\n{begin}\n\n{text}\n\n{end}")
    return "\n\n".join([*parts, f"## {authors.TITLE}\n\n{authors.TEXT}"]) + "\n"
