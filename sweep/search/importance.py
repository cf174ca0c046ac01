"""Which parameters the accuracy depends on, as Optuna's fANOVA tells from a sweep's records.

fANOVA (Hutter et al., 2014) fits a random forest to the trials and splits the variance of what it predicts among the
parameters, each for itself, averaged over all values of the others. It says what mattered within the ranges that were
searched, and nothing about what did not vary there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from core.evaluators import USUAL, Evaluator
from core.records import TrialRecord
from dashboards.report import Importance
from dashboards.report.fields import Field, make_fields
from sweep.errors import first_line

FEWEST = 10
"""Trials that a forest needs to say anything."""
MOST = 800
"""More trials than this are drawn from, since the forests get slow."""


def importance_of(records: Sequence[TrialRecord], seed: int = 0, scored: Evaluator = USUAL) -> Importance:
    """Each varied parameter's share of the variance of the score (accuracy), or why there is none; never raises."""
    finished = [record for record in records if record.status == "finished"]
    used = random.Random(seed).sample(finished, MOST) if len(finished) > MOST else finished  # noqa: S311  no secret
    varied = [field for field in make_fields(used) if field.varied]
    common = [field for field in varied if field.everywhere]
    partly = [field.name for field in varied if not field.everywhere]
    scores, word = [record.metrics[scored.score.name] for record in used], scored.word
    if len(used) < FEWEST:
        return Importance(note=f"Not computed: {len(used)} finished trials are too few, {FEWEST} are needed.")
    if not common:
        return Importance(note="Not computed: no parameter was varied that every trial has.")
    if max(scores) == min(scores):
        return Importance(note=f"Not computed: every trial has the same {word}.")
    try:
        found = _fanova(common, scores, seed)
    except Exception as error:  # a page without it is better than no page
        return Importance(note=f"Not computed: Optuna's fANOVA failed ({first_line(error)}).")
    note = f"Share of the {word}'s variance that a parameter explains by itself: Optuna's fANOVA on {len(used)} trials"
    note += f" drawn from {len(finished)}." if len(finished) > len(used) else "."
    note += f" Left out, since only some trials have them: {', '.join(partly)}." if partly else ""
    return Importance(tuple(sorted(found.items(), key=lambda pair: -pair[1])), note)


def _fanova(fields: Sequence[Field], scores: Sequence[float], seed: int) -> Mapping[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    distributions = {field.name: _distribution(field) for field in fields}
    study.add_trials(
        [
            create_trial(
                params={field.name: field.values[field.index[i]] for field in fields},
                distributions=distributions,
                value=score,
            )
            for i, score in enumerate(scores)
        ]
    )
    evaluator = FanovaImportanceEvaluator(n_trees=32, max_depth=32, seed=seed)
    return {name: float(value) for name, value in get_param_importances(study, evaluator=evaluator).items()}


def _distribution(field: Field) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if field.numeric:
        low, high = (float(value) for value in (field.values[0], field.values[-1]))
        return FloatDistribution(low, high)
    return CategoricalDistribution(field.values)
