"""What a report is made from: a sweep's records, and what is known of it beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.evaluators import USUAL, Evaluator
from core.records import TrialRecord


@dataclass(frozen=True)
class Importance:
    """How much of the variance of the score each parameter explains.

    Attributes:
        shares: (parameter, share of 1), the largest first; empty where it could not be computed.
        note: how it was computed and what is left out, or why it was not computed; a sentence.
    """

    shares: tuple[tuple[str, float], ...] = ()
    note: str = "It was not computed."


@dataclass(frozen=True)
class Source:
    """One sweep, as its report needs it.

    Attributes:
        name: of the sweep.
        records: in the order in which they ended.
        original: metrics of the original network.
        export: the command that exports a trial, up to its key; empty: there is none.
        failures: why trials failed -> how many.
        remarks: what a reader must know first, such as that it still runs; sentences.
        facts: provenance, label and value.
        importance: of the parameters.
        scored: what the trials are scored by.
    """

    name: str
    records: Sequence[TrialRecord]
    original: Mapping[str, float]
    export: str = ""
    failures: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    importance: Importance = Importance()
    scored: Evaluator = USUAL
