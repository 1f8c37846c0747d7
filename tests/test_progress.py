"""What long work says of itself where there is no terminal."""

import io

from uhlm_sim.progress import progress_lines


def test_a_log_gets_a_line_a_minute_with_what_is_left_at_the_speed_so_far():
    now_s, log = 0.0, io.StringIO()
    progress = progress_lines(log, lambda: now_s)
    progress("loading", 0, 1)
    for done in range(1000, 1301, 10):  # a recording that goes on: 1,000 tokens were there
        now_s += 7.0
        progress("recording", done, 2000)
    lines = log.getvalue().splitlines()
    assert lines[0] == "recording: 1,080 of 2,000 after 0:00:56, about 0:10:44 left"
    assert len(lines) == 3, "the 31 steps take 3 min 37 s"


def test_works_of_less_than_a_minute_one_after_the_other_are_told_each_minute():
    now_s, log = 0.0, io.StringIO()
    progress = progress_lines(log, lambda: now_s)
    for load in range(5):  # a search: each load takes 50 s
        for done in (0, 1, 2):
            now_s += 25.0 if done else 0.0
            progress(f"devices = {load}", done, 2)
    assert log.getvalue().splitlines() == [
        "devices = 1: 1 of 2 after 0:00:25, about 0:00:25 left",
        "devices = 3: 0 of 2 after 0:00:00",
        "devices = 4: 1 of 2 after 0:00:25, about 0:00:25 left",
    ]


def test_work_without_a_step_in_a_minute_says_so_and_promises_nothing():
    now_s, log = 0.0, io.StringIO()
    progress = progress_lines(log, lambda: now_s)
    progress("simulating", 0, 8)
    now_s = 90.0
    progress("simulating", 0, 8)
    assert log.getvalue() == "simulating: 0 of 8 after 0:01:30\n"
