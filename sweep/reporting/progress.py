"""How a sweep tells a person where it is: a bar on a terminal, a plain line every few seconds anywhere else."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import IO, Any, Protocol, Self

from sweep.reporting.meter import Progress
from sweep.text import duration

PLAIN_SECONDS = 5.0
SURE_SECONDS = 2.0
"""A pace is told once it has been watched for so long."""
SLOW = 0.1
"""Trials per second below which it is said how long one takes."""


class Reporter(Protocol):
    """Shows progress; a context manager, so that a bar is taken down on every way out."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def line(self, text: str) -> None:
        """Show a line of text that stays."""

    def step(self, done: int, total: int, text: str) -> None:
        """Show how far a single long piece of work is, such as training the original network."""

    def trials(self, progress: Progress) -> None:
        """Show how far the trials are."""


def describe(progress: Progress) -> str:
    """The trials' progress in one line."""
    parts = [f"{progress.done}/{progress.total} trials"]
    if progress.stopped:
        parts.append(f"{progress.stopped} stopped early")
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.rate > 0:
        parts.append(f"{progress.rate:.1f}/s" if progress.rate >= SLOW else f"one in {duration(1 / progress.rate)}")
    if progress.done < progress.total and math.isfinite(progress.eta_seconds):
        parts.append(f"{duration(progress.eta_seconds)} left")
    if progress.best is not None:
        metrics = progress.best.metrics
        best = progress.scored.show(metrics)
        parts.append(f"best {best} at {100 * metrics['params_fraction']:.0f} % of the parameters")
    return ", ".join(parts)


class Pace:
    """How long a piece of work will still take, from how long it has taken."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None
        self._last = (0, 0)

    def left(self, done: int, total: int) -> str:
        """In words, as an ending of a line; nothing while that is not known."""
        now = time.monotonic()
        if self._began is None or total != self._last[1] or done < self._last[0]:
            self._began = now, done  # another piece of work
        self._last = done, total
        elapsed, more = now - self._began[0], done - self._began[1]
        if elapsed < SURE_SECONDS or more <= 0 or done >= total:
            return ""
        return f", {duration(elapsed / more * (total - done))} left"


class PlainReporter:
    """A line now and then, for log files and pipes."""

    def __init__(self, stream: IO[str], seconds: float = PLAIN_SECONDS) -> None:
        self._stream, self._seconds = stream, seconds
        self._shown_at, self._pace = -math.inf, Pace()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to take down."""

    def line(self, text: str) -> None:
        """Write the line."""
        print(text, file=self._stream, flush=True)

    def step(self, done: int, total: int, text: str) -> None:
        """Write a line if the last one is some seconds old, or the work is done."""
        share = f"{100 * done // total} %  " if total > 1 else ""  # of one step there is no telling
        self._now_and_then(f"{share}{text}{self._pace.left(done, total)}", last=done >= total)

    def trials(self, progress: Progress) -> None:
        """Write a line if the last one is some seconds old, or it is the end."""
        self._now_and_then(describe(progress), last=progress.done >= progress.total)

    def _now_and_then(self, text: str, last: bool) -> None:
        now = time.monotonic()
        if last or now - self._shown_at >= self._seconds:
            self._shown_at = now
            self.line(text)


class BarReporter:
    """A bar that stays at the bottom of the terminal."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (SpinnerColumn(), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=Console(file=stream), transient=True, refresh_per_second=4)
        self._task: Any = None
        self._kind, self._pace = "", Pace()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        """Write the line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, done: int, total: int, text: str) -> None:
        """Move the bar; it goes away when the work is done."""
        self._move("step", done, total, text + self._pace.left(done, total))

    def trials(self, progress: Progress) -> None:
        """Move the bar."""
        _, _, rest = describe(progress).partition(" trials")
        self._move("trials", progress.done, progress.total, rest.removeprefix(", ") or "trials")

    def _move(self, kind: str, done: int, total: int, text: str) -> None:
        if kind != self._kind:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task, self._kind = self._bar.add_task(text, total=total), kind
        self._bar.update(self._task, completed=done, total=total, description=text)


def make_reporter(stream: IO[str] = sys.stderr) -> Reporter:
    """A bar where ``stream`` is a terminal, plain lines otherwise."""
    return BarReporter(stream) if stream.isatty() else PlainReporter(stream)
