"""Stand-ins for the workbench and `run_trial`, sent to Ray's workers by value."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import time
import warnings
from pathlib import Path

from core.config import TrialConfig
from core.records import TrialRecord


class Bench:
    """Shared with the workers; ``folder`` is where they leave their marks."""

    def __init__(self, folder: str, fails_in_setup: bool = False) -> None:
        self.folder, self.fails_in_setup = folder, fails_in_setup

    def build(self, device: str) -> Path:
        if self.fails_in_setup:
            raise ImportError("no module named 'user_code'")
        Path(self.folder, f"worker-{os.getpid()}").touch()
        return Path(self.folder)


def trial(config: TrialConfig, folder: Path) -> TrialRecord:
    with Path(folder, "runs").open("a") as log:
        log.write(f"{config.key}\n")
    sizes = dict.fromkeys(("params_fraction", "macs_fraction", "bytes_fraction"), 1 - config.ratio)
    metrics = {"accuracy": 90.0 - 10 * config.ratio, **sizes}
    return TrialRecord(key=config.key, config=config.as_json(), status="finished", metrics=metrics, seconds=0.01)


def trial_that_dies_once(config: TrialConfig, folder: Path) -> TrialRecord:
    """The worker is killed at three configurations, each the first time only."""
    mark = Path(folder, f"died-{config.key}")
    if config.seed == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return trial(config, folder)


def trial_that_kills(config: TrialConfig, folder: Path) -> TrialRecord:
    """One configuration always kills its worker."""
    if config.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return trial(config, folder)


def trial_that_hangs(config: TrialConfig, folder: Path) -> TrialRecord:
    """Seed 1 sleeps for ever; seed 2 hangs in C, where no Python code can interrupt it."""
    if config.seed == 1:
        time.sleep(1e6)
    if config.seed == 2:
        sum(itertools.repeat(0, 10**15))
    return trial(config, folder)


def trial_that_talks(config: TrialConfig, folder: Path) -> TrialRecord:
    """Prints, warns and logs."""
    print(f"ratio {config.ratio}")
    if config.seed == 1:
        warnings.warn("odd", stacklevel=1)
        logging.getLogger("toy").warning("strange")
    return trial(config, folder)
