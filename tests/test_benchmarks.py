"""Benchmarks by name: their data sets, protocol, missing members, means, and the published rows beside ours."""
import json
from pathlib import Path

import pytest

import metric
import option
from data import DATASETS, benchmarks
from data.benchmarks import BENCHMARKS
from data.choose import choose, sets_to_test
from runtime import process
from runtime.errors import UserError
from tests.conftest import TINY, make_pairs, photo, save, veiled
from tests.test_report import Reader

SETS = ["SOTS_outdoor", "Rain100L", "CBSD68@15", "CBSD68@25", "CBSD68@50"]


def make_aio3(*left_out: str) -> None:
    """Write the data sets of AIO3 with one image each, in their usual layouts, except those named."""
    files = {"SOTS_outdoor": ("hazy/0001_0.8_0.2.jpg", "gt/0001.png"), "Rain100L": ("input/1.png", "target/1.png"),
             "CBSD68": (None, "1.png")}
    for name, (degraded, clean) in files.items():
        if name not in left_out:
            save(Path("dataset") / name / clean, photo(40, 40, 1))
            if degraded:
                save(Path("dataset") / name / degraded, veiled(photo(40, 40, 1)))


def entry(psnr: float, name: str, weights: str = "w.pt", protocol: str = "promptir", subset: str = "all") -> dict:
    """Return an entry of metrics.json of a set of AIO3."""
    return {"data_set": name, "psnr": psnr, "ssim": psnr / 100, "subset": subset, "weights": weights, "model": "some",
            "protocol": metric.PROTOCOLS[protocol].settings(), "others": [], "benchmarks": {"AIO3": name}}


def test_the_table_of_benchmarks():
    """Every member is a known data set, every protocol and every published row exists; the published rows are stated once."""
    for benchmark in BENCHMARKS.values():
        assert {name.partition("@")[0] for name in benchmark.members} <= set(DATASETS) and benchmark.protocol in metric.PROTOCOLS
        assert set(benchmark.averaged) <= set(benchmark.members)
    for line in benchmarks.published():
        assert line["protocol"] in metric.PROTOCOLS and line["notes"] and float(line["psnr"]) > 20
        assert line["set"] in (*BENCHMARKS[line["benchmark"]].members, "mean")
    keys = [tuple(line[name] for name in ("benchmark", "method", "protocol", "set")) for line in benchmarks.published()]
    assert len(set(keys)) == len(keys) > 10
    assert BENCHMARKS["AIO3"].members == tuple(SETS)


def test_a_benchmark_in_one_command(run, pairs):
    """The sets, the papers' protocol, the mean and the published rows are in the log, the records and on the page."""
    make_aio3()
    status, text = run("--data_train", "set", "--data_test", "set+AIO3", "--save", "x", *TINY)
    assert status == 0, text
    results = json.loads(Path("experiment/x/metrics.json").read_text())
    assert list(results) == ["set", *SETS] and {each["protocol"]["name"] for each in results.values()} == {"promptir"}
    assert [name for name in results if "benchmarks" in results[name]] == SETS
    mean = sum(results[name]["psnr"] for name in SETS) / 5
    lines = Path("experiment/x/log.txt").read_text().splitlines()
    start = lines.index("benchmark AIO3, protocol promptir")
    assert lines[start + 1].split() == ["PSNR", "in", "dB", "/", "SSIM", *SETS, "mean"]
    assert lines[start + 2].startswith("smgarn, measured here") and f"{results['Rain100L']['psnr']:.2f} / " in lines[start + 2]
    assert f"  {mean:.2f} / " in lines[start + 2] and not lines[start + 2].endswith("of 5")
    assert any(line.startswith("PromptIR (published)") and line.endswith("32.06") for line in lines)
    assert not any("DSRIR" in line for line in lines)                              # measured by another protocol
    assert any(line.startswith("Rain100L: 1 images where 100 are published, so its number") for line in lines)
    record, = (record for record in map(json.loads, Path("experiment/x/log.jsonl").read_text().splitlines())
               if record["event"] == "benchmark")
    assert record["psnr"] == pytest.approx(mean) and record["over"] == "all"
    page = Reader(Path("experiment/x/report.html")).text
    for words in ("Benchmark AIO3, protocol promptir", "smgarn, measured here", "PromptIR published", "32.06", f"{mean:.2f}", "results.md"):
        assert words in page, words


def test_a_missing_member_is_named(run, trained):
    make_aio3("SOTS_outdoor")
    status, text = run("--test_only", "--pre_train", trained / "model/model_best.pt", "--data_test", "AIO3", "--save", "y", "--cpu")
    assert status == 0, text
    assert "warning: AIO3 is tested without SOTS_outdoor, which is missing in dataset" in text
    row = next(line for line in text.splitlines() if line.startswith("smgarn, measured here"))
    assert row.split()[3] == "–" and row.endswith(" over 4 of 5")
    missing = "SOTS_outdoor is missing, so the mean is over 4 of 5 sets and cannot be compared with published means."
    assert missing in text and missing in Reader(Path("experiment/y/report.html")).text


def test_no_member(place):
    args = option.parse(["--data_train", "Demo", "--data_test", "AllWeather"])
    with pytest.raises(UserError) as error:
        sets_to_test(args)
    assert str(error.value) == ("--data_test AllWeather: none of its data sets is in dataset: Snow100K-S, Snow100K-L, Outdoor-Rain, "
                                "Raindrop")


@pytest.mark.parametrize("flags, protocol, source", [
    (["--data_test", "AIO3"], "promptir", "typed, follows from --data_test"),
    (["--data_test", "AIO3+AllWeather"], "promptir+snow100k_y", "typed, follows from --data_test"),
    (["--data_test", "AIO3", "--protocol", "dsrir"], "dsrir", "typed"),
    (["--data_test", "Rain100L"], "default", "default")])
def test_the_protocol_follows(place, flags, protocol, source):
    args = option.parse(["--data_train", "Demo", *flags])
    assert (args.flags["protocol"], args.origin["protocol"]) == (protocol, source)


def test_a_folder_with_the_name_of_a_benchmark_is_a_data_set(place):
    make_pairs(Path("dataset/AllWeather"), 4)
    args = option.parse(["--data_train", "AllWeather"])
    assert sets_to_test(args) == ["AllWeather"] and args.flags["protocol"] == "default"
    assert len(choose(args, "AllWeather", "test").items) == 1


def test_members_are_held_out_from_a_training_on_them(place):
    """A benchmark holds out images of a set that the training uses, as the set's own name does."""
    make_pairs(Path("dataset/Rain100L"), 4)
    args = option.parse(["--data_train", "Rain100L", "--data_test", "AIO3"])
    process._log = process.Log()
    sizes = [len(choose(args, "Rain100L", role).items) for role in ("train", "test")]
    assert sizes == [3, 1]


@pytest.mark.parametrize("flags, words", [
    (["--data_train", "set", "--data_test", "AIO4"], "unknown data set 'AIO4'; known: DIV2K, "),
    (["--data_train", "set", "--data_test", "AIO4"], "benchmarks: AIO3, AllWeather"),
    (["--data_train", "AIO3", "--data_test", "set"], "AIO3 is a benchmark, which only --data_test can name, without an @; for training")])
def test_errors_name_the_benchmarks(fails, pairs, flags, words):
    assert words in fails(*flags, "--save", "x")


def test_the_lists_show_benchmarks(run):
    assert "AIO3           haze, rain and noise with one network: SOTS_outdoor Rain100L CBSD68@15" in run("--list")[1]


def test_rows_of_several_weights_are_not_mixed():
    """A set that was tested later with other weights, or by another protocol, is missing in the row of the first weights."""
    metrics = {name: entry(30 + place, name) for place, name in enumerate(SETS)}
    metrics["Rain100L"] = entry(50, "Rain100L", "other.pt")
    metrics["CBSD68@50"] = entry(50, "CBSD68@50", protocol="default")
    one, two = benchmarks.tables(metrics)
    assert (one.protocol, two.protocol) == ("promptir", "default")
    mine, other = (row for row in one.rows if not row.published)
    assert mine.label == "w.pt, measured here" and mine.over == "3 of 5" and mine.cells[1] == mine.cells[4] == (None, None)
    assert mine.cells[-1] == (pytest.approx((30 + 32 + 33) / 3), pytest.approx((0.30 + 0.32 + 0.33) / 3))
    assert other.label == "other.pt, measured here" and other.over == "1 of 5" and other.cells[-1][0] == 50
    assert not [row for row in two.rows if row.published]
    assert "Published numbers were not measured by default; they are shown with --protocol promptir or dsrir." in two.notes


def test_the_mean_of_the_papers_and_an_old_protocol():
    """AllWeather's mean leaves Snow100K-S out; numbers of another version of the protocol are not shown beside published ones."""
    metrics = {name: entry(30 + place, name, protocol="snow100k_y") | {"benchmarks": {"AllWeather": name}}
               for place, name in enumerate(BENCHMARKS["AllWeather"].members)}
    table, = benchmarks.tables(metrics)
    assert table.titles[-1] == "mean of 3" and table.rows[0].cells[-1][0] == pytest.approx(32) and table.rows[0].over == ""
    assert [(row.label, row.cells[0][0], row.cells[-1][0]) for row in table.rows[1:]] == [("Histoformer", None, 32.43),
                                                                                          ("MODEM", 38.08, 32.87)]
    for each in metrics.values():
        each["protocol"] = each["protocol"] | {"version": 0}
    assert benchmarks.tables(metrics) == []


def test_a_benchmark_that_is_named_twice_warns_once():
    assert benchmarks.named("AIO3+AIO3+x", "none") == ["AIO3"]
