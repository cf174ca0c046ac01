"""Fixtures of the dashboards' tests."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from plot_records import CASES

from core.records import TrialRecord


@pytest.fixture(params=list(CASES), ids=lambda name: name.replace(" ", "-"))
def case(request: pytest.FixtureRequest) -> Sequence[TrialRecord]:
    """One of the shapes that a sweep's records can have."""
    return CASES[request.param]()
