"""A time limit for one trial, in two stages.

First an alarm raises `TrialTimeoutError` in the trial, which fails with this reason while its worker lives on. Code
that does not come back to Python, or swallows the exception, is ended with its process a while later, by a watchdog in
C that needs no cooperation; the driver then sees a dead worker, as after a crash.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from core.errors import TrialError

GRACE = 1.5
GRACE_SECONDS = 5.0


class TrialTimeoutError(TrialError):
    """A trial took longer than it may."""


def hard_limit(seconds: float) -> float:
    """After how many seconds the worker of a trial that may take ``seconds`` is killed."""
    return seconds * GRACE + GRACE_SECONDS


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Give the block so many ``seconds``; None: all it takes. If the error does not end it, the process is ended.

    Raises:
        TrialTimeoutError: the block takes longer.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_: int, __: FrameType | None) -> None:
        raise TrialTimeoutError(f"it took longer than {seconds:g} s (--trial-timeout)")

    before = signal.signal(signal.SIGALRM, ring)
    faulthandler.dump_traceback_later(hard_limit(seconds), exit=True, file=sys.__stderr__ or sys.stderr)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
