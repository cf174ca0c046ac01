"""What ends a sweep early in good order: its time is up, its front has stopped growing, or somebody asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from core.pareto import hypervolume, pareto_front
from core.records import TrialRecord
from sweep.backend.stopping import StopRequest
from sweep.reporting.outcome import in_fixed_order
from sweep.storage.info import Limits
from sweep.text import duration

GROWTH = 1e-3
LOOK_SECONDS = 0.5


def watch_limits(stop: StopRequest, limits: Limits, stop_file: Path) -> None:
    """Let ``stop`` look at the clock, and for a file that another process leaves (see `leave_stop`)."""
    if limits.seconds is not None:
        stop.watches.append(time_is_up(stop, limits.seconds))
    stop.watches.append(somebody_asked(stop, stop_file))


def time_is_up(stop: StopRequest, seconds: float) -> Callable[[], None]:
    """A watch that asks for the end ``seconds`` from now."""
    deadline = time.monotonic() + seconds

    def watch() -> None:
        if time.monotonic() >= deadline:
            stop.ask(f"its time limit of {duration(seconds)} is over")

    return watch


def somebody_asked(stop: StopRequest, file: Path) -> Callable[[], None]:
    """A watch that asks for the end when ``file`` is there, at most so often that a slow disk does not matter."""
    looked_at = 0.0

    def watch() -> None:
        nonlocal looked_at
        now = time.monotonic()
        if now - looked_at >= LOOK_SECONDS:
            looked_at = now
            if file.exists():
                stop.ask("'sweep stop'", at_once=True)

    return watch


class Front:
    """The front so far, kept up record by record; one that does not join it costs next to nothing.

    Args:
        known: records so far.
        x: the size that is compared.
        y: the score.
        corner: where the hypervolume begins.
    """

    def __init__(
        self,
        known: Sequence[TrialRecord] = (),
        x: str = "params_fraction",
        y: str = "accuracy",
        corner: tuple[float, float] = (1.0, 0.0),
    ) -> None:
        self._x, self._y, self._corner = x, y, corner
        self.members = pareto_front(in_fixed_order(known), x, y)
        self.volume = hypervolume(self.members, x, y, corner)

    def add(self, record: TrialRecord) -> None:
        """Take one record into account."""
        members = pareto_front(in_fixed_order([*self.members, record]), self._x, self._y)
        if members != self.members:
            self.members = members
            self.volume = hypervolume(members, self._x, self._y, self._corner)


class Plateau:
    """Counts the trials since the front last grew.

    The front has grown when its hypervolume (`core.pareto.hypervolume`) exceeds the value at the last growth by
    `GROWTH` of it.

    Args:
        patience: how many trials without growth are enough.
        volume: before the first trial that counts.
    """

    def __init__(self, patience: int, volume: float = 0.0) -> None:
        self.patience, self._volume, self._since = patience, volume, 0

    def reached(self, volume: float) -> bool:
        """Count one trial, after which the front has this hypervolume; true when enough of them brought nothing."""
        self._since += 1
        if volume > self._volume * (1 + GROWTH):
            self._volume, self._since = volume, 0
        return self._since >= self.patience
