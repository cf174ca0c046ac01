"""The same comparison on two more networks."""

from __future__ import annotations

from benchmarks.proof.originals import COMPARED
from benchmarks.proof.peers import of
from benchmarks.proof.setting import Section, Setting


def section(setting: Setting) -> Section:
    """The section of the page."""
    return of(COMPARED[3:], setting)
