"""What is said about the time of a training, with a clock that the test sets."""
import types

import pytest

from runtime import pace, process


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until `clock.now` is changed."""
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def said(monkeypatch):
    """The lines that are printed; none of them may be kept in the log, which is equal for every run of a command."""
    lines = []

    def say(text, aside="", keep=True):
        assert not keep
        lines.append(text)
    monkeypatch.setattr(process.log(), "say", say)
    return lines


def steps(progress, clock, count, seconds):
    for number in range(count):
        clock.now += seconds
        progress.step(f"step {number}", 0.5)


def test_cost_is_said_once_and_later_stages_count_by_their_size(clock, said):
    with pace.Pace("x", [(20, 100), (10, 400)], 0, True, 2) as progress:
        steps(progress, clock, 10, 4)
        assert progress.left() == pytest.approx(10 * 4 + 10 * 16)
        assert len(said) == 1
        assert said[0].startswith("at 0.25 steps/s the 21 steps that are left take about")
        assert "--epochs" not in said[0]
        steps(progress, clock, 10, 4)
    assert len(said) == 2                 # the second one because a minute has passed
    assert said[1].startswith("[step 5] loss 0.5, 0.25 steps/s, ")


def test_resumed_training_counts_what_is_left(clock, said):
    with pace.Pace("x", [(20, 100), (10, 400)], 25, True, 2) as progress:
        steps(progress, clock, 4, 1)
        assert progress.left() == pytest.approx(1)


@pytest.mark.parametrize("done, quicker, words", [
    (0, (), "; --epochs 28 would take about a day"),
    (0, ("--channels 16", "--precision bf16"), "; --epochs 28 would take about a day; --channels 16 or --precision bf16 shortens a step"),
    (30_000, ("--channels 16",), "; --channels 16 shortens a step"),
])
def test_above_a_day_it_says_what_fits(clock, said, done, quicker, words):
    """The number of epochs is for a new training only."""
    with pace.Pace("x", [(300_000 + done, 1)], done, True, 300, quicker) as progress:
        steps(progress, clock, 12, 3)
    assert "10 d 10 h" in said[0]
    assert said[0].partition(";")[1] + said[0].partition(";")[2] == words


def test_cost_of_fast_steps(clock, said):
    """It is also said where 20 seconds have many more steps than the speed is computed from."""
    with pace.Pace("x", [(100_000, 1)], 0, True, 2) as progress:
        steps(progress, clock, 500, 0.05)
    assert len(said) == 1 and said[0].startswith("at 20 steps/s the ")


def test_lines_become_rare(clock, said):
    with pace.Pace("x", [(10_000, 1)], 0, True, 1) as progress:
        steps(progress, clock, 400, 10)
    assert 11 < len(said) < 18            # the cost, a line a minute for ten minutes, then one every ten minutes


def test_a_line_of_the_log_replaces_one_by_time(clock, said):
    with pace.Pace("x", [(10_000, 1)], 0, True, 1) as progress:
        for _ in range(50):
            steps(progress, clock, 1, 10)
            progress.spoke()
    assert len(said) == 1


def test_training_without_a_log_says_nothing(clock, said):
    with pace.Pace("x", [(100, 1)], 0, False, 1) as progress:
        steps(progress, clock, 50, 10)
    assert said == []


def test_cost_of_many_images(clock, said):
    cost = pace.Cost(100)
    cost.images = 10
    for epoch in range(20):
        cost.before_epoch(epoch)
        clock.now += 3
    assert said == ["the training for an image takes about 5 min, all 10 about 50 min"]
