"""Recovery: a short training after compression, off by default; what it does is no longer "without training"."""

from core.recovery.base import RECOVERIES, Recovery, register
from core.recovery.recover import Recovered, recover, recovered

__all__ = ["RECOVERIES", "Recovered", "Recovery", "recover", "recovered", "register"]
