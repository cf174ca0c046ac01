"""Everything that a report's page shows, as one plain document; what draws it is `page.js` and its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from core.metrics import METRICS, TEST, Metric, drop_of
from core.pareto import pareto_front
from core.records import TrialRecord
from dashboards.palette import ON_DARK, ON_LIGHT, assign, known_decompositions
from dashboards.report.answers import NOUNS, headline, make_answers
from dashboards.report.curves import by_ratio, by_threshold, history, make_fronts
from dashboards.report.source import Source
from dashboards.report.trials import make_trials, metric_cards, rounded
from dashboards.report.troubles import MOST, skipped_layers

MOST_TRIALS = 8_000
"""With more, a part of those that are on no front is left out of the page."""


def make_document(sources: Sequence[Source]) -> dict[str, Any]:
    """The report of one sweep, or of several side by side."""
    scored = sources[0].scored
    score = scored.score
    least = score.corner(sources[0].original.get(score.name))
    finished = [thinned(usable(source.records, score.name), score) for source in sources]
    records = list(chain.from_iterable(finished))
    owner = [number for number, of in enumerate(finished) for _ in of]
    compared = len(sources) > 1
    names = [source.name for source in sources] if compared else _decompositions(records)
    group = owner if compared else [names.index(record.decomposition) for record in records]
    fronts = make_fronts(records, group, score.name, least)
    first = [place for of in fronts.values() for front in of for place in front.places]
    sweeps = [sources[number].name for number in owner] if compared else []
    trials = make_trials(records, group, first, sweeps)
    axes = list(fronts)
    nothing = ((), "")  # of several sweeps only fronts are compared
    ratio, threshold = (nothing, nothing) if compared else (by_ratio(records, score), by_threshold(records, score))
    shown = (score.name, TEST + score.name, drop_of(score.name), "loss")
    place = {(number, record.key): i for i, (number, record) in enumerate(zip(owner, records, strict=True))}
    return {
        "compared": compared,
        "title": " · ".join(source.name for source in sources),
        "subtitle": _counted(sources, records, score.name),
        "remarks": [remark for source in sources for remark in (*source.remarks, *_remarks(source))],
        "score": {
            "name": score.name,
            "word": scored.word,
            "title": score.title,
            "head": f"{scored.word} {score.unit}".rstrip(),
            "sign": 1 if score.better == "max" else -1,
            "points": score.unit == "%",
            "worst": least,
        },
        "metrics": metric_cards(sorted({*trials.metrics, *shown, *axes})),
        "axes": axes,
        "nouns": NOUNS,
        "groups": _groups(names, group, compared),
        "sweeps": [_sweep(source) for source in sources],
        "trials": _columns(asdict(trials), trials),
        "fronts": {x: [asdict(front) for front in of] for x, of in fronts.items()},
        "answers": {x: [_answers(n, finished[n], s, x, place) for n, s in enumerate(sources)] for x in axes},
        "headlines": {x: [headline(finished[n], s.original, x, scored) for n, s in enumerate(sources)] for x in axes},
        "by_ratio": {"curves": [asdict(curve) for curve in ratio[0]], "note": ratio[1]},
        "by_threshold": {"curves": [asdict(curve) for curve in threshold[0]], "note": threshold[1]},
    }


def usable(records: Sequence[TrialRecord], score: str = "accuracy") -> list[TrialRecord]:
    """The finished ones with what every plot needs, by key, so that of equal trials always the same is on the front."""
    found = [r for r in records if r.status == "finished" and {score, "params_fraction"} <= r.metrics.keys()]
    return sorted(found, key=lambda record: record.key)


def thinned(
    records: list[TrialRecord], score: Metric = METRICS["accuracy"], most: int = MOST_TRIALS
) -> list[TrialRecord]:
    """``records``, or of too many all that a front or a curve shows, and of the others every so-and-so-manieth."""
    if len(records) <= most:
        return records
    kept = {
        place for of in make_fronts(records, [0] * len(records), score.name).values() for f in of for place in f.places
    }
    for name in _decompositions(records):
        own = [i for i, record in enumerate(records) if record.decomposition == name]
        for x in NOUNS:
            front = {id(record) for record in pareto_front([records[i] for i in own], x, score.name)}
            kept |= {i for i in own if id(records[i]) in front}
    for curves, _ in (by_ratio(records, score), by_threshold(records, score)):
        kept |= {place for curve in curves for _, _, place in curve.points}
    kept |= set(range(0, len(records), -(-len(records) // most)))
    return [record for i, record in enumerate(records) if i in kept]


def _decompositions(records: Sequence[TrialRecord]) -> list[str]:
    present = {record.decomposition for record in records}
    return list(assign(known_decompositions(), present, ON_LIGHT))


def _groups(names: Sequence[str], group: Sequence[int], compared: bool) -> list[dict[str, Any]]:
    """Name, colours and number of trials of each group; of a sweep the first colour is no grey."""
    known = ["", *names] if compared else known_decompositions()
    light, dark = (assign(known, names, palette) for palette in (ON_LIGHT, ON_DARK))
    return [
        {"name": name, "light": light[name], "dark": dark[name], "trials": group.count(i)}
        for i, name in enumerate(names)
    ]


def _counted(sources: Sequence[Source], records: Sequence[TrialRecord], score: str) -> str:
    every = [record for source in sources for record in source.records]
    failed, stopped = (sum(record.status == status for record in every) for status in ("failed", "stopped"))
    parts = [f"{len(every):,} trial{'s' * (len(every) != 1)}"]
    parts += [f"{failed:,} failed"] * bool(failed)
    parts += [f"{stopped:,} stopped early by the race"] * bool(stopped)
    fronts = len(pareto_front(records, y=score))
    return ", ".join([*parts, f"{fronts} on the front" if records else "no front"])


def _remarks(source: Source) -> list[str]:
    records = usable(source.records, source.scored.score.name)
    found = len(records)
    left_out = found - len(thinned(records, source.scored.score))
    return [f"{left_out:,} of {found:,} finished trials that are on no front are not shown."] if left_out else []


def _sweep(source: Source) -> dict[str, Any]:
    failures, score = list(source.failures.items()), source.scored.score
    least = score.corner(source.original.get(score.name))
    return {
        "name": source.name,
        "original": {name: rounded(value) for name, value in source.original.items()},
        "export": source.export,
        "trials": len(source.records),
        "stopped": sum(record.status == "stopped" for record in source.records),
        "failed": sum(record.status == "failed" for record in source.records),
        "failures": failures[:MOST],
        "more_failures": len(failures[MOST:]),
        "skipped": [asdict(skipped) for skipped in skipped_layers(source.records)],
        "history": history(source.records, score=score, least=least),
        "facts": source.facts,
        "importance": asdict(source.importance),
    }


def _columns(values: dict[str, Any], trials: Any) -> dict[str, Any]:
    """Columns whose trials are all alike are one value."""
    for field, found in zip(values["fields"], trials.fields, strict=True):
        field["numeric"] = found.numeric
        if len(set(found.index)) == 1:
            field["index"] = found.index[0]
    values["details"] = [
        None if d is None else [[list(pair) for pair in d["widths"]], list(d["notes"])] for d in values["details"]
    ]
    return values


def _answers(
    number: int,
    records: Sequence[TrialRecord],
    source: Source,
    x: str,
    place: Mapping[tuple[int, str], int],
) -> list[dict[str, Any]]:
    answers = make_answers(records, source.original, x, source.scored)
    return [{"drop": a.drop, "place": place[number, a.key] if a.key else None} for a in answers]
