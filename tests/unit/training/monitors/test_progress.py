import io

import pytest
from rich.console import Console

from mlpf.training.monitors.progress import TerminalProgress, duration, epoch_line, short

RECORD = {
    "epoch": 12,
    "loss": 25.12345,
    "val_loss": 26.01234,
    "learning_rate": 1.7654e-3,
    "seconds": 90.0,
    "events_per_second": 612.3,
    "elements_per_second": 61234.0,
    "padded_fraction": 0.123,
    "wait_share": 0.012,
    "bad_values": 0,
}
PHYSICS = {"val_jet_response_iqr": 0.06123, "val_met_response_iqr": 0.31234}


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def progress(terminal=False, kind="xterm", **options):
    clock = Clock()
    console = Console(file=io.StringIO(), force_terminal=terminal, width=150, _environ={"TERM": kind})
    return TerminalProgress(console, clock=clock, **options), clock, console.file


def test_the_line_has_speed_padding_physics_and_the_time_left():
    line = epoch_line(RECORD | PHYSICS, 150, 100.0, 4521.0)
    assert line == (
        "epoch 12/150  loss 25.123  val 26.012  jet IQR 0.0612  MET IQR 0.3123  lr 0.0018  "
        "612 events/s  61.2k elements/s  padding 12%  waiting 1%  100.0 s  ETA 1:15:21"
    )


def test_what_was_not_measured_is_not_in_the_line():
    line = epoch_line(RECORD | {"bad_values": 7}, 12, 100.0, None)
    assert "IQR" not in line
    assert "ETA" not in line
    assert line.endswith("7 NaN or infinite inputs set to 0")


def test_the_time_left_is_that_of_the_epochs_to_come():
    shown, clock, file = progress()
    shown.start(12, 15, 1000, 100_000)
    clock.now += 100
    shown.finish(RECORD)
    assert "100.0 s  ETA 0:05:00\n" in file.getvalue()
    shown.start(15, 15, 1000, 100_000)
    shown.finish(RECORD)
    assert "ETA" not in file.getvalue().splitlines()[-1]


def test_a_log_file_gets_a_line_every_few_minutes():
    shown, clock, file = progress(line_interval_s=60)
    shown.start(1, 3, 1000, 100_000)
    for second in range(0, 200, 10):
        clock.now = 1000.0 + second
        shown.update(second, 5.0)
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    # One event per second, 100 elements each: 940 are left of this epoch and 2 x 1000 of the next.
    assert lines[0] == ("epoch 1/3  60/1000 events  loss 5  1 events/s  100 elements/s  ETA 0:49:00")


def test_what_follows_the_steps_of_an_epoch_counts_too():
    shown, clock, file = progress(line_interval_s=1)
    shown.start(1, 3, 100, 100)
    clock.now += 100
    shown.finish(RECORD)  # 90 s of steps, 10 s of validation
    shown.start(2, 3, 100, 100)
    clock.now += 10
    shown.update(10, 5.0)
    # 90 s of steps and 10 s of validation are left of this epoch, 110 s of the last one.
    assert file.getvalue().splitlines()[-1].endswith("ETA 0:03:30")


def test_an_epoch_that_is_continued_is_judged_by_what_is_done_now():
    shown, clock, file = progress(line_interval_s=1)
    shown.start(1, 1, 100, 1000, first_event=50)
    clock.now += 10
    shown.update(60, 5.0)
    assert file.getvalue().splitlines()[-1].endswith("1 events/s  10 elements/s  ETA 0:00:40")


def test_a_terminal_gets_a_bar_that_is_removed():
    shown, clock, file = progress(terminal=True, line_interval_s=0)
    shown.start(1, 2, 100, 1000)
    clock.now += 10
    shown.update(50, 5.0)
    shown._bar.refresh()
    shown.finish(RECORD | {"epoch": 1})
    shown.close()
    assert "50/100 events  loss 5  5 events/s  50 elements/s  ETA 0:00:30" in file.getvalue()
    assert shown._bar is None


def test_a_terminal_that_cannot_move_its_cursor_gets_lines():
    shown, clock, file = progress(terminal=True, kind="dumb", line_interval_s=60)
    shown.start(1, 2, 100, 1000)
    clock.now += 100
    shown.update(50, 5.0)
    shown.finish(RECORD | {"epoch": 1})
    first, second = file.getvalue().splitlines()
    assert "50/100 events  loss 5" in first
    assert second.startswith("epoch 1/2  loss 25.123")


def test_nothing_done_yet_has_no_speed():
    shown, _, file = progress(line_interval_s=0)
    shown.start(1, 2, 0, 0)
    shown.update(0, 5.0)
    assert file.getvalue() == "epoch 1/2  0/0 events  loss 5\n"


@pytest.mark.parametrize(
    ("number", "text"), [(0.5, "0.5"), (999, "999"), (999.7, "1k"), (61234, "61.2k"), (1.23e6, "1.23M")]
)
def test_large_numbers_are_short(number, text):
    assert short(number) == text


def test_days_are_shown():
    assert duration(90061.4) == "1 day, 1:01:01"
