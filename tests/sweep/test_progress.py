"""What a person sees while a sweep runs, as data and as text."""

from __future__ import annotations

import io
import math

import pytest

from sweep.reporting.meter import Meter, Progress, progress_of
from sweep.reporting.progress import BarReporter, PlainReporter, describe, make_reporter
from sweep.text import duration


def test_counts_rate_and_best(make_record):
    records = [make_record(number / 20, accuracy=50 + number, started_at=1000.0 + number) for number in range(10)]
    records.append(make_record(0.99, reason="it broke", started_at=1010.0))
    progress = progress_of(records, total=20, now=1011.0)
    assert (progress.finished, progress.failed, progress.done, progress.total) == (10, 1, 11, 20)
    assert progress.rate == pytest.approx(1.0)
    assert progress.eta_seconds == pytest.approx(9.0)
    assert progress.best == records[9]


def test_the_rate_is_that_of_the_last_half_minute(make_record):
    meter = Meter(1000)
    for number in range(100):
        meter.add(make_record(number / 200, started_at=1000.0 + number / 10))
    assert meter.progress(1010.1).rate == pytest.approx(100 / 10.1)
    assert meter.progress(1035.0).rate == pytest.approx(50 / 30, rel=0.05), "the first ones are forgotten"
    assert meter.progress(1100.0).rate == pytest.approx(5 / 90.5, rel=0.01), "the last five tell, ever less of it"


def test_slow_trials_have_a_rate_too(make_record):
    meter = Meter(20)
    for number in range(8):
        meter.add(make_record(number / 20, started_at=1000.0 + 120 * number).model_copy(update={"seconds": 120.0}))
    progress = meter.progress(1960.0)
    assert progress.rate == pytest.approx(1 / 120)
    assert progress.eta_seconds == pytest.approx(12 * 120)
    assert describe(progress).startswith("8/20 trials, one in 2 min 0 s, 24 min 0 s left")


def test_the_first_trials_tell_nothing_of_the_end(make_record):
    """They find out what all others share: "27 minutes left" of a sweep that took one."""
    meter = Meter(414)
    for number in range(4):
        meter.add(make_record(number / 20, started_at=1000.0 + number))
    assert math.isnan(meter.progress(1006.0).eta_seconds)
    assert describe(meter.progress(1006.0)).startswith("4/414 trials, 0.7/s, best")
    assert meter.progress(1030.0).eta_seconds == pytest.approx(410 / (4 / 30)), "slow ones, though"
    meter.add(make_record(0.9, started_at=1005.0))
    assert meter.progress(1006.0).eta_seconds == pytest.approx(409 / (5 / 6))


def test_nothing_yet():
    progress = progress_of([], total=5, now=0.0)
    assert progress == Progress(0, 0, 0, 5, 0.0, pytest.approx(math.nan, nan_ok=True), None)
    assert describe(progress) == "0/5 trials"


def test_in_one_line(make_record):
    best = make_record(0.5, accuracy=88.5)
    line = describe(Progress(3, 1, 0, 100, 2.0, 48.0, best))
    assert line == "4/100 trials, 1 failed, 2.0/s, 48 s left, best 88.50 % at 50 % of the parameters"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_plain_lines_come_now_and_then_and_at_the_end():
    out = io.StringIO()
    with PlainReporter(out, seconds=1000.0) as reporter:
        for done in range(1, 101):
            reporter.trials(Progress(done, 0, 0, 100, 0.0, math.nan, None))
    assert out.getvalue().splitlines() == ["1/100 trials", "100/100 trials"]


def test_a_pipe_gets_plain_lines_and_a_terminal_a_bar():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(make_reporter(io.StringIO()), PlainReporter)
    screen = Terminal()
    with make_reporter(screen) as reporter:
        assert isinstance(reporter, BarReporter)
        reporter.step(1, 2, "epoch 1/2 [x]")
        reporter.trials(Progress(3, 0, 0, 10, 1.0, 7.0, None))
        reporter.line("a line [that] stays")
    assert "a line [that] stays" in screen.getvalue()
    assert "3/10" in screen.getvalue()
