"""``none``: no training after compression; the default."""

from __future__ import annotations

from core.recovery.base import RECOVERIES, Recovery

RECOVERIES.register("none")(Recovery(None))
