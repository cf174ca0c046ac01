"""What ends a sweep early in good order."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from sweep.backend.stopping import FAILED, INTERRUPTED, Stopped, StopRequest, insisting
from sweep.limits import GROWTH, Front, Plateau, watch_limits
from sweep.storage.info import Limits


def test_the_clock_ends_it(monkeypatch, tmp_path):
    now = 1000.0
    monkeypatch.setattr("sweep.limits.time.monotonic", lambda: now)
    stop = StopRequest()
    watch_limits(stop, Limits(seconds=90), tmp_path / "stop")
    stop.check()
    now = 1089.0
    stop.check()
    now = 1090.0
    with pytest.raises(Stopped, match="its time limit of 1 min 30 s is over"):
        stop.check()
    assert (stop.exit_code, stop.status) == (0, "stopped")


def test_a_file_ends_it(monkeypatch, tmp_path):
    now = 1000.0
    monkeypatch.setattr("sweep.limits.time.monotonic", lambda: now)
    stop = StopRequest()
    watch_limits(stop, Limits(), tmp_path / "stop")
    stop.check()
    (tmp_path / "stop").touch()
    stop.check()  # looked a moment ago
    now += 1
    with pytest.raises(Stopped, match="'sweep stop'"):
        stop.check()
    assert stop.status == "stopped"


@pytest.mark.parametrize(("code", "status"), [(0, "stopped"), (FAILED, "failed"), (INTERRUPTED, "interrupted")])
def test_the_first_reason_decides_the_status(code, status):
    stop = StopRequest()
    assert stop.status == "finished"
    stop.ask("this", code)
    stop.ask("that", 1 - code)
    assert (stop.reason, stop.status) == ("this", status)


def test_a_front_that_stands_still_is_a_plateau():
    plateau = Plateau(3)
    volumes = [10.0, 10.0, 11.0, 11.0, 11.0 * (1 + GROWTH / 2), 11.0]
    assert [plateau.reached(volume) for volume in volumes] == [False, False, False, False, False, True]


def test_a_resumed_sweep_counts_anew():
    plateau = Plateau(2, volume=10.0)
    assert [plateau.reached(10.0) for _ in range(2)] == [False, True]


def test_many_small_steps_are_growth():
    plateau, volume = Plateau(4), 10.0
    for _ in range(100):
        volume *= 1 + GROWTH / 2
        assert not plateau.reached(volume)


def test_the_front_is_that_of_all_records(make_record):
    from core.pareto import hypervolume

    records = [
        make_record(ratio, accuracy=accuracy) for ratio, accuracy in ((0.5, 80), (0.2, 85), (0.6, 70), (0.7, 79))
    ]
    records.append(make_record(0.9, reason="it broke"))
    front = Front(records[:2])
    for number, record in enumerate(records[2:], start=3):
        front.add(record)
        assert front.volume == pytest.approx(hypervolume(records[:number]))


def test_a_ctrl_c_that_python_drops_interrupts_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: dropped.append(lost.exc_type))

    class Finalised:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            sum(range(1000))

    before, looks = signal.getsignal(signal.SIGINT), list[int]()

    def work(times: int) -> None:
        with insisting() as again:
            for number in range(times):
                again()
                looks.append(number)
                Finalised()

    with pytest.raises(KeyboardInterrupt):
        work(3)
    assert (dropped, looks) == ([KeyboardInterrupt], [0])
    with pytest.raises(KeyboardInterrupt):
        work(1)
    assert signal.getsignal(signal.SIGINT) is before
    with insisting() as again:
        again()
