"""The tables of keys in docs/own-network.md are those of today's schema, and complete."""

from __future__ import annotations

from pathlib import Path

from core.config import BaselineConfig, TrialConfig
from core.decompositions import DECOMPOSITIONS
from search_spaces.document import AxisTable, EvaluationTable, SearchDefaults, SpaceTable
from search_spaces.names import known_names
from search_spaces.table import DOCUMENT, tables, written

PAGE = (Path(__file__).parents[2] / DOCUMENT).read_text(encoding="utf-8")


def test_the_page_is_up_to_date() -> None:
    assert written(PAGE) == PAGE, "make keys-table writes it"


def test_every_key_is_told_of_with_its_meaning() -> None:
    lines = list(tables())
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert all(row[-1] for row in rows)
    told = {row[0].strip("`") for row in rows}
    for model in (SpaceTable, BaselineConfig, SearchDefaults, EvaluationTable, AxisTable):
        assert set(model.model_fields) <= told
    assert known_names() - {"ratios"} <= told
    assert {"ratios.PATTERN"} <= told
    assert len(rows) >= 60
    assert len(TrialConfig.model_fields) + len(DECOMPOSITIONS.names()) > 20
