"""Ending a sweep early, cleanly: a signal, a limit or a trouble leaves a reason, which the loop sees between events."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from sweep.storage.info import Status

INTERRUPTED, TERMINATED, FAILED = 130, 143, 1


class Stopped(BaseException):
    """Raised inside Tune's loop to leave it at once; what is not returned by then is given up.

    No `Exception`, since Tune would wait for running trials before it lets one pass.
    """


class StopRequest:
    """Why a sweep should end early; empty while it should not. Each check calls the ``watches``, which may ask."""

    def __init__(self) -> None:
        self.reason, self.exit_code = "", 0
        self._at_once = self._winding_up = False
        self.watches: list[Callable[[], None]] = []

    def ask(self, reason: str, exit_code: int = 0, *, at_once: bool = False) -> None:
        """Ask for the end; the first reason stays, unless the sweep winds up for it and this one leaves no time.

        Args:
            reason: in words.
            exit_code: 0 where a limit or a person asked in good order.
            at_once: somebody waits for the end: nothing more is to be begun.
        """
        at_once = at_once or exit_code != 0
        if not self.reason or (self._winding_up and self.in_good_order and at_once):
            self.reason, self.exit_code = reason, exit_code
        self._at_once = self._at_once or at_once

    @property
    def in_good_order(self) -> bool:
        """Whether a limit has ended the search, and there is time to evaluate its front."""
        return bool(self.reason) and not self._at_once

    def check(self, wind_up: Callable[[], bool] = lambda: False) -> None:
        """Look whether the end was asked for.

        Args:
            wind_up: called where that was in good order; whether it comes to an end by itself now.

        Raises:
            Stopped: it was asked for, and nothing winds up.
        """
        for watch in self.watches:
            watch()
        if self.reason:
            self._winding_up = self.in_good_order and wind_up()
            if not self._winding_up:
                raise Stopped(self.reason)

    @property
    def status(self) -> Status:
        """What a sweep that ends now is."""
        if not self.reason:
            return "finished"
        return {0: "stopped", FAILED: "failed"}.get(self.exit_code, "interrupted")  # type: ignore[return-value]


@contextmanager
def _heard_by(hear: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Signals go to ``hear`` in the block; outside the main thread, which alone can say so, all is as it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _asked(stop: StopRequest, number: int) -> None:
    stop.ask(*(("Ctrl-C", INTERRUPTED) if number == signal.SIGINT else ("it was told to end", TERMINATED)))


@contextmanager
def listening(stop: StopRequest, tell: Callable[[str], None]) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a stop request.

    To be entered after Ray is connected: connecting takes SIGTERM for Ray itself.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed a second time.
    """

    def hear(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and stop.reason and not stop.in_good_order:
            raise KeyboardInterrupt
        _asked(stop, number)
        tell("stopping; what is done is kept")

    with _heard_by(hear, signal.SIGINT, signal.SIGTERM):
        yield


@contextmanager
def breaking_off(stop: StopRequest) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM break off the block at once, wherever it is; ``stop`` says afterwards what did."""

    def hear(number: int, _: FrameType | None) -> None:
        _asked(stop, number)
        raise Stopped(stop.reason)

    with _heard_by(hear, signal.SIGINT, signal.SIGTERM), suppress(Stopped):
        yield


@contextmanager
def insisting() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C interrupt the block as ever, and give a call that interrupts it again where that was lost.

    Python drops what a signal raises while it is in a finaliser or in a callback from C.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    heard = list[int]()

    def hear(number: int, _: FrameType | None) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    def again() -> None:
        if heard:
            raise KeyboardInterrupt

    with _heard_by(hear, signal.SIGINT):
        yield again
    again()
