"""What the result page and the log state beside the numbers: best epoch, baselines, time, device, versions, differing flags."""
import json
from pathlib import Path

import pytest
import torch

import report
import tester
from report import curves, facts, plots
from runtime import VERSION, files
from tests.conftest import TINY, make_pairs, photo, save, veiled
from tests.test_report import Reader
from tests.test_run import numbers, records
from tool import compare, guarded


@pytest.fixture
def falling(run, pairs) -> Path:
    """An experiment of three epochs, of which the last one is not the best, because the learning rate is far too large."""
    status, text = run("--data_train", "set", "--loss", "1*L1", "--save", "x", *TINY, "--epochs", "3", "--optimizer", "SGD", "--lr", "0.5",
                       "--momentum", "0")
    assert status == 0, text
    return Path("experiment/x")


def test_the_best_epoch_and_its_number(falling):
    """The log names them after every test and at the end, the page at the top and in the table; they are those of the model file."""
    tests = {each["epoch"]: each["psnr"] for each in records(falling) if each["event"] == "test" and each["epoch"]}
    best = max(tests, key=tests.get)
    assert best < 3
    lines = (falling / "log.txt").read_text().splitlines()
    so_far = [line for line in lines if line.startswith("best so far: ")]
    tops = [max(range(1, number + 1), key=tests.get) for number in tests]
    assert so_far == [f"best so far: epoch {top}, psnr {tests[top]:.4f} on set" for top in tops]
    chosen = f"epoch {best}, psnr {tests[best]:.4f} on set"
    assert f"the best checkpoint is that of {chosen}; it is tested now" in lines
    note = files.read_tensors(falling / "model/model_best.pt")["note"]
    assert (note["epoch"], note["chosen_by"]) == (best, f"psnr {tests[best]:.4f} on set")
    page = Reader(falling / "report.html").text
    assert f"Best epoch{chosen.removeprefix('epoch ')}" in page and f"fp32, whole images, best: {chosen}" in page


def test_the_best_epoch_of_a_resumed_training(run, pairs):
    """A training that resumes knows the best epoch of the part before; a state of an older version does not."""
    flags = ("--data_train", "set", "--loss", "1*L1", "--save", "x", *TINY, "--lr", "0")
    assert run(*flags)[0] == 0
    assert "best so far: epoch 1, psnr " in run("--load", "x", "--epochs", "2", "--cpu")[1]
    path = Path("experiment/x/model/state.pt")
    state = files.read_tensors(path)
    del state["progress"]["chosen"]
    files.write_tensors(path, state)
    status, text = run("--load", "x", "--epochs", "3", "--cpu")
    assert status == 0 and "best so far" not in text


@pytest.mark.parametrize("results, best, blind, score, words", [
    ({"a": {"psnr": 30.0, "others": []}}, "psnr", 0, 30.0, "psnr 30.0000 on a"),
    ({"a": {"others": []}, "b": {"mae": 2.0, "others": []}}, "mae", 0, -2.0, "mae 2.0000 on b"),
    ({"a": {"others": []}}, "psnr", 0, -0.25, "training loss 0.25"),
    ({"a": {"psnr": 30.0, "others": []}}, "psnr", 7, 7, "the last tested one")])
def test_the_number_that_chooses_in_words(results, best, blind, score, words):
    assert tester.judge(results, best, 0.25, blind) == (score, words)


def test_a_state_with_another_text_is_refused(fails, trained):
    path = trained / "model/state.pt"
    state = files.read_tensors(path)
    state["progress"]["chosen"] = "line\nline"
    files.write_tensors(path, state)
    assert "'chosen' is 'line\\nline', not the best epoch in words" in fails("--load", "x", "--epochs", "2", "--cpu")


def log_of(folder: Path, *changes: dict) -> None:
    """Write log.jsonl with two epochs of tests of the set a and a final test, changed by `changes`, which belong to these three."""
    protocol = {"name": "default", "version": 1}
    lines = [{"event": "test", "epoch": epoch, "data_set": "a", "subset": "all", "psnr": psnr, "channel": "rgb", "protocol": protocol}
             for epoch, psnr in ((1, 24.0), (2, 26.0), (None, 26.0))]
    lines[2] |= {"input_psnr": 21.5}
    folder.mkdir(exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line | change) + "\n" for line, change in zip(lines, (*changes, *[{}] * 3))))


def test_the_curve_has_a_baseline_and_the_name_of_its_table(place):
    log_of(place / "x")
    shown, = curves.scores(curves.records(place / "x"))
    assert shown == ("default v1, RGB", {"a": [(1, 24.0), (2, 26.0)]}, {"a": 21.5})
    page = report.write(place / "x").read_text()
    assert "Test PSNR <span>dB, default v1, RGB</span>" in page and ">a 26.00</text>" in page and ">input 21.50</text>" in page
    assert page.count('<polyline class="base"') == 1


@pytest.mark.parametrize("change", [{"subset": "1 of 4"}, {"protocol": {"name": "smgarn", "version": 1}}, {"data_set": "b"},
                                    {"channel": "y"}])
def test_the_baseline_of_another_test_is_not_drawn(place, change):
    log_of(place / "x", {}, {}, change)
    assert [each.inputs for each in curves.scores(curves.records(place / "x"))] == [{}]


def test_sets_that_are_measured_differently_have_charts_of_their_own(place):
    log_of(place / "x", {}, {"channel": "y", "data_set": "b"})
    page = report.write(place / "x").read_text()
    assert "dB, default v1, RGB" in page and "dB, default v1, Y" in page


def test_identical_curves_are_drawn_once(falling, monkeypatch):
    """`loss` and its only term are one curve, on the page and in curves.png."""
    page = (falling / "report.html").read_text()
    assert "loss = L1 " in page and "class=\"line1\"" not in page
    same = {"a": [(1, 2.0), (2, 3.0)], "b": [(1, 2.0), (2, 4.0)], "c": [(1, 2.0), (2, 3.0)]}
    assert curves.distinct(same) == {"a = c": same["a"], "b": same["b"]}
    from matplotlib.axes import Axes
    drawn = []
    monkeypatch.setattr(Axes, "plot", lambda self, *_, label, **__: drawn.append(label))
    plots.curves(falling)
    assert drawn == ["loss = L1", "set"]


def test_time_device_and_versions(falling):
    page = Reader(falling / "report.html").text
    session, = (json.loads(line) for line in (falling / "times.jsonl").read_text().splitlines() if '"session"' in line)
    assert session["trains"] is True and session["device"] == "CPU"
    for words in (f"Started{session['time']}", "UTC", "Durationtraining ", "DeviceCPU", f"Processor{session['processor']}",
                  f"Versionsunweather {VERSION}, torch {torch.__version__}, Python 3."):
        assert words in page, words
    assert "session" not in (falling / "log.jsonl").read_text()            # an interruption must not change the log


def test_durations_and_devices_of_several_sessions(place):
    session = {"event": "session", "time": "t", "device": "CPU", "processor": "p", "versions": "v", "trains": False}
    lines = [session | {"trains": True, "device": "GPU x 2"}, {"event": "epoch", "seconds": 3500}, {"event": "epoch", "seconds": 4000},
             {"event": "test", "epoch": 1, "data_set": "a", "seconds": 7}, {"event": "test", "epoch": None, "data_set": "a", "seconds": 99},
             session, {"event": "test", "epoch": None, "data_set": "a", "seconds": 0.42}, {"event": "epoch", "seconds": "many"}]
    Path("times.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "session"}\n[]\n{"ev')
    assert facts.circumstances(Path(), {"a": {}}) == {
        "Started": "t", "Duration": "training 2 h 5 min, test 0.4 s", "Device": "CPU", "Trained also on": "GPU x 2", "Processor": "p",
        "Versions": "v"}
    assert facts.circumstances(Path("nowhere"), {}) == {}


@pytest.fixture
def different(run, place, capsys) -> str:
    """What tool.compare prints for two experiments on portraits and landscapes, with different flags."""
    make_pairs(place / "dataset" / "set", 4)
    for number in range(4):
        for folder, change in (("target", lambda x: x), ("input", veiled)):
            save(place / f"dataset/set/{folder}/p{number}.png", change(photo(60, 40, number)))
    for name, more in (("a", []), ("b", ["--seed", "2", "--lr", "1e-5", "--n_threads", "1"])):
        assert run("--data_train", "set", "--data_range", "1-2", "--loss", "1*L1", "--save", name, *TINY, *more)[0] == 0
    assert guarded("tool.compare", lambda: compare.run(["a", "b"])) == 0
    return capsys.readouterr().out


def test_compare_lists_flags_and_ssim(different):
    """Flags that change no result are not listed; the mean SSIM stands beside the PSNR, in the text and on the page."""
    assert "flags that differ:\n  --lr: a 0.0001, b 1e-05\n  --seed: a 1, b 2\nscatter plot" in different
    for name in ("a", "b"):
        line = next(line.split() for line in different.splitlines() if line.startswith(f"{name} "))
        assert line[1:4] == ["6", f"{numbers(Path('experiment', name))['psnr']:.4f}", f"{numbers(Path('experiment', name))['ssim']:.4f}"]
    page = Reader(Path("experiment/compare/report.html")).text
    for words in ("Mean SSIM", "Flags that differ", "--lr0.00011e-05", "--seed12"):
        assert words in page, words
    assert "--n_threads" not in page


def test_compare_with_a_table_alone(different, capsys):
    """A CSV file states no flags; another measure than a PSNR has no second mean."""
    Path("b.csv").write_bytes(Path("experiment/b/metrics-set.csv").read_bytes())
    assert guarded("tool.compare", lambda: compare.run(["a", "b.csv", "--measure", "ssim"])) == 0
    text = capsys.readouterr().out
    assert "no flags of the runs are known to differ" in text and "Mean SSIM" in Path("experiment/compare/report.html").read_text()
    assert len(text.splitlines()[2].split()) == 3
