"""What identifies a configuration on disk: a hash that options which are added later do not change.

Hashed is what differs from the defaults of key version 1, which are written down here as they were, and of every field
or option that came later what differs from its own default. So a new option leaves every key alone as long as nobody
uses it, and one that is taken away too.

A default that changes makes other keys where nothing else is said, as it should: something else is computed. So a
sweep writes down the defaults it begins with, and one that did not has those of key version 1. `KEY_VERSION` is raised
when what a configuration means changes: keys begin anew then, and a sweep of an older version is shown but not resumed
(after exca's ``exclude_defaults`` and ``version``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY_VERSION = 1

TRIAL: Mapping[str, Any] = {
    "ratio": 0.5,
    "criterion": "l1",
    "decomposition": "most-similar",
    "allocation": "uniform",
    "ratios": {},
    "calibration": None,
    "calibration_images": 256,
    "sites": None,
    "seed": 0,
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "none": {"bn_recalibrate": False},
    "most-similar": {"bn_recalibrate": False, "threshold": 0.1, "lam": 0.85, "bn_scale": "exact"},
    "nmf": {"bn_recalibrate": False, "rows": "fixed", "hard": False, "iterations": 50},
    "least-squares": {"bn_recalibrate": False, "damping": 2e-3, "prior_threshold": 0.45, "mixed_to": 1024},
}
"""Decomposition -> its options; one that came later has none that are always hashed."""
BASELINE: Mapping[str, Any] = {
    "checkpoint": None,
    "size": None,
    "epochs": 15,
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "momentum": 0.9,
    "augment": True,
    "seed": 0,
}
UNCOUNTED = ("expected_accuracy", "preprocessing")
"""Fields of a baseline that make no other network: what it is held against, and whose way images are read in, which
the fingerprint of the data tells."""


def canonical(values: Mapping[str, Any], defaults: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration counts for its identity.

    Args:
        values: all of it, plain JSON.
        defaults: of today; a name without one always counts.
        first: the defaults of key version 1.
    """
    used = {n: v for n, v in values.items() if n in first or n not in defaults or v != defaults[n]}
    return {**first, **used}


def digest(identity: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 of the canonical JSON of ``identity`` and the key version."""
    versioned = {"key_version": KEY_VERSION, **identity} if KEY_VERSION > 1 else identity
    return hashlib.sha256(json.dumps(versioned, sort_keys=True).encode()).hexdigest()[:16]
