"""tool.bench: the ways that are compared give equal results, and the JSON file and the tables have all fields. No time is asserted."""
import argparse
import contextlib
import itertools
import json
import os
from pathlib import Path

import pytest
import torch

from restore import backend
from tool import guarded
from tool.bench import cases, command, gpu, loops, networks, table, timing
from tool.bench.networks import NETWORKS, TRAINING, Setting
from tool.bench.timing import Case, LeftOut, Way

ROW = {"group", "case", "way", "unit", "first_seconds", "difference", "mean_levels", "equal", "memory_mib", "seconds", "median", "least",
       "most", "rounds", "ratio", "beyond_seconds"}


@pytest.fixture
def tool(place, capsys):
    """Run the tool: tool('--flag', …) -> (status, what it printed)."""
    def call(*flags: str) -> tuple[int, str]:
        status = guarded("tool.bench", lambda: command.run(list(flags)))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out + err
    return call


@pytest.fixture
def setting(place) -> Setting:
    return Setting(("unet",), (), True, place)


def case(ways: dict[str, Way], amount: float = 0) -> Case:
    return Case("code", "a work", lambda: ways, "patches/s" if amount else "s", amount)


def returning(value, calls: list | None = None, limit: float = timing.EXACT) -> Way:
    """A way whose result is a value, which is also added to `calls`."""
    return Way(lambda: lambda: (calls.append(value) if calls is not None else None, value)[1], limit)


def test_the_command_on_small_networks(tool, monkeypatch):
    """Every float32 way equals plain; the file states machine, load and rows; the cache of backends is another one only meanwhile."""
    monkeypatch.delenv("UNWEATHER_CACHE", raising=False)
    status, text = tool("restore", "train", "data", "--model", "unet", "smgarn", "--backends", "", "--quick", "--json", "numbers.json")
    assert status == 0, text
    content = json.loads(Path("numbers.json").read_text())
    assert content["quick"] is True and list(content["groups"]) == ["restore", "train", "data"]
    for name, report in content["groups"].items():
        assert {"device", "processor", "system", "threads", "cores", "versions", "commit"} == set(report["machine"])
        assert set(report["load"]) == {"start", "end"} and {"torch", "Python"} <= set(report["machine"]["versions"])
        assert all(set(row) == ROW and row["group"] == name and row["rounds"] == len(row["seconds"]) == 1 for row in report["rows"])
        assert all(row["equal"] for row in report["rows"])
        assert f"## {name}" in text
    assert [row["way"] for row in content["groups"]["data"]["rows"]] == ["plain", "default, --ext sep", "--ext img"]
    assert all(row["difference"] == 0 for row in content["groups"]["data"]["rows"])
    assert [row["case"] for row in content["groups"]["restore"]["rows"] if row["way"] == "default"] == ["unet, 64x64", "smgarn, 64x64"]
    assert "5 cases, about" in text and "Quick run: tiny networks" in text and "UNWEATHER_CACHE" not in os.environ


@pytest.mark.parametrize("name", NETWORKS)
def test_a_plain_loop_trains_as_the_trainer_does(setting, name):
    """The same batches and losses in three steps, also after an update of the weights."""
    ways = networks.training(setting._replace(models=(name,)), name, 32, 2, TRAINING)
    plain, ours, again = (ways[title].start() for title in ("plain", "default", "plain without reading"))
    losses = [(plain(), float(ours()), again()) for _ in range(3)]
    assert all(theirs == pytest.approx(mine, rel=2e-3) for theirs, mine, _ in losses)
    assert losses[0] == pytest.approx(losses[0][:1] * 3, rel=1e-5) and len({theirs for theirs, *_ in losses}) == 3
    assert losses[1][2] != pytest.approx(losses[1][0], rel=1e-5)          # the first batch again


@pytest.mark.parametrize("name", ["two_stage_kd", "sapnet", "dsrir", "restormer", "nafnet"])
def test_the_restorer_gives_the_result_of_the_plain_network(setting, name):
    ways = networks.restoring(setting, name, (48, 64))
    plain, ours = (ways[title].start()() for title in ("plain", "default"))
    assert plain.shape == (1, 3, 48, 64) and timing.compared(ours, plain, timing.EXACT)["equal"]


def test_a_backend_and_one_that_is_missing(setting, monkeypatch, tmp_path):
    pytest.importorskip("openvino", reason="the extra 'fast' is not installed")
    pytest.importorskip("onnxscript", reason="the extra 'fast' is not installed")
    if any(map(os.environ.get, backend.LIMITS)):
        pytest.skip("OpenVINO is not used where the instructions of the processor are limited")
    monkeypatch.setenv("UNWEATHER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("restore.backend._open", {})
    monkeypatch.setattr("restore.backend._is_installed", lambda package: package != "onnxruntime")
    ways = networks.restoring(setting._replace(backends=("onnxruntime", "openvino")), "unet", (64, 64))
    assert set(ways) >= {"plain", "default", "onnxruntime, single", "openvino, single", "openvino, bf16"}
    kept = {name: ways[name] for name in ("plain", "onnxruntime, single", "openvino, single")}
    found = timing.measure(case(kept), 1, 60)
    assert [row["way"] for row in found.rows] == ["plain", "openvino, single"] and found.rows[1]["equal"]
    assert [each["reason"] for each in found.left_out] == ["it needs the package onnxruntime: pip install onnxruntime"]


def test_slow_bf16_is_left_out(setting, monkeypatch):
    monkeypatch.setattr(networks.process, "has_bf16", lambda: False)
    ways = networks.training(setting, "unet", 32, 2, TRAINING) | networks.restoring(setting, "unet", (64, 64))
    for title in ("bf16", "torch, bf16"):
        with pytest.raises(LeftOut, match="no instructions for matrix products in bf16"):
            ways[title].start()


def test_reference_code_equals_loops(place):
    """NSS and LDGP are equal in every pixel, HCR and UBS with their gradients nearly."""
    chosen = [each for each in cases.every(Setting((), (), True, place)) if each.group == "code"]
    assert [each.name.partition(",")[0].partition(" ")[0] for each in chosen] == ["NSS", "LDGP", "HCR", "UBS"]
    for each in chosen:
        ways = each.ways()
        plain, ours = (torch.as_tensor(ways[title].start()()) for title in ("plain", "default"))
        assert timing.compared(ours, plain, ways["default"].limit)["equal"], each.name
        assert plain.float().std() > 0
    rgb, prior = cases.rainy(81, 90)
    assert loops.angle(rgb) == -30 and 0.1 < (prior > 10).mean() < 0.6


def test_the_start_of_programs(monkeypatch):
    """The programs are started in the repository; the first one imports torch alone."""
    seen = []
    monkeypatch.setattr(cases.subprocess, "run", lambda command, **options: seen.append((command[1:], options["cwd"], options["check"])))
    rows = timing.measure(Case("start", "x", cases.starting), 1, 60).rows
    assert [row["way"] for row in rows] == ["import torch", "import unweather", "main.py --help"]
    assert (["main.py", "--help"], table.REPO, True) in seen and (["-c", "import torch"], table.REPO, True) in seen


def test_ways_are_measured_in_turn():
    calls: list[str] = []
    found = timing.measure(case({"plain": returning(1.0, calls), "ours": returning(1.00001, calls)}), 4, 60)
    assert calls == [1.0, 1.00001] * 5                            # the first of each is not measured
    assert [len(row["seconds"]) for row in found.rows] == [4, 4]


def test_fewer_rounds_if_the_time_is_up():
    assert [row["rounds"] for row in timing.measure(case({"plain": returning(1), "ours": returning(1)}), 50, 0).rows] == [3, 3]


def test_no_way_is_prepared_after_the_whole_time():
    found = timing.measure(case({"plain": returning(1), "ours": returning(1)}), 50, 60, whole=0)
    assert [row["way"] for row in found.rows] == ["plain"] and found.rows[0]["rounds"] == 3
    assert found.left_out == [{"group": "code", "case": "a work", "way": "ours", "reason": "the 0 s of this case were over"}]


def test_numbers_of_a_row():
    found = timing.summary([2.0, 1.0, 4.0], [4.0, 4.0, 4.0], 8)
    assert found == {"median": 4.0, "least": 2.0, "most": 8.0, "rounds": 3, "ratio": 2.0, "beyond_seconds": -2.0}
    assert timing.summary([2.0, 1.0, 4.0], [1.0, 1.0, 1.0], 0)["median"] == 2.0


@pytest.mark.parametrize("result, expected, difference, levels, equal", [
    (None, None, None, None, None),
    (2.0, 2.0, 0, None, True),
    (1.0, 2.0, 0.5, None, False),
    (torch.full((1, 3, 2, 2), 0.501), torch.full((1, 3, 2, 2), 0.5), 2e-3, 0.255, False),
    (torch.ones(2), torch.ones(3), float("inf"), None, False),
    (float("nan"), 1.0, float("nan"), None, False),
])
def test_comparison_of_results(result, expected, difference, levels, equal):
    found = timing.compared(result, expected, timing.EXACT)
    assert found["equal"] is equal
    assert found["difference"] == (difference if difference is None else pytest.approx(difference, rel=1e-3, nan_ok=True))
    assert found["mean_levels"] == (levels if levels is None else pytest.approx(levels, rel=1e-3))


def test_what_cannot_be_measured_is_stated():
    def impossible(error):
        def start():
            raise error
        return Way(start)
    found = timing.measure(case({"plain": returning(1), "a": impossible(LeftOut("there is none")), "b": impossible(RuntimeError("broken")),
                                 "c": impossible(torch.OutOfMemoryError("CUDA"))}), 1, 60)
    assert [row["way"] for row in found.rows] == ["plain"]
    assert [each["reason"] for each in found.left_out] == ["there is none", "broken", "the GPU memory is full"]


def test_a_way_whose_later_call_does_not_fit():
    turns = itertools.count()

    def call():
        if next(turns):
            raise torch.OutOfMemoryError("CUDA")
    found = timing.measure(case({"plain": Way(lambda: lambda: None), "ours": Way(lambda: call)}), 2, 60)
    assert [row["way"] for row in found.rows] == ["plain"] and found.left_out[0]["reason"] == "the GPU memory is full"


def test_different_results_are_a_failure(tool, monkeypatch):
    wrong = case({"plain": returning(1.0), "ours": returning(1.1)})
    monkeypatch.setattr(cases, "every", lambda setting: [wrong])
    status, text = tool("--quick")
    assert status == 1 and text.splitlines()[-1] == "tool.bench: error: the results of these ways differ from plain: a work: ours"
    assert "1.0e-01 **not equal**" in text and Path("experiment/bench.json").is_file()


def test_tables_are_written_between_their_comments(tool, monkeypatch, place):
    """Only the block of the measured group changes; a measurement on a busy machine says so."""
    page = place / "page.md"
    page.write_text("# Page\n\n<!-- bench code -->\nold\n<!-- end -->\n\nbetween\n\n<!-- bench data -->\nkept\n<!-- end -->\nend\n")
    monkeypatch.setattr(table.write, "__defaults__", (page,))
    monkeypatch.setattr(cases, "every", lambda setting: [case({"plain": returning(1.0), "ours": returning(1.0)}, amount=4)])
    monkeypatch.setattr(command.waiting, "busy_cores", iter([0.1, 1.5]).__next__)
    assert tool("code", "--rounds", "3", "--write")[0] == 0
    text = page.read_text()
    assert text.startswith("# Page\n\n<!-- bench code -->\n\n| case | way |") and "old" not in text
    assert text.endswith("\n\n<!-- end -->\n\nbetween\n\n<!-- bench data -->\nkept\n<!-- end -->\nend\n")
    assert text.count("| a work | ") == 2 and "**Other programs used 0.1 cores at the start and 1.5 at the end. The numbers are" in text
    page.write_text("no block")
    monkeypatch.setattr(command.waiting, "busy_cores", lambda: 0.0)
    status, words = tool("code", "--write")
    assert status == 1 and "has no lines '<!-- bench code -->' and '<!-- end -->'" in words and page.read_text() == "no block"


def test_the_page_has_a_place_for_every_table():
    text = table.PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- bench {group} -->\n" in text for group in (*command.GROUPS, "gpu"))


@pytest.mark.parametrize("flags, words", [
    (("speed",), "cases speed: known are restore, train, data, code, start"),
    (("--model", "unet", "nope"), "--model nope: known are two_stage_kd, "),
    (("--backends", "torch"), "--backends torch: known are compile, onnxruntime, openvino, auto"),
    (("--gpu", "train"), "--gpu has cases of its own; leave out train"),
    (("--write", "--model", "unet"), "--write replaces whole tables, which need all networks; leave out --model"),
    (("--rounds", "0"), "'0' is not a whole number from 1"),
    (("--nonsense",), "unknown flag --nonsense"),
    (("--gpu",), "--gpu needs a GPU, and PyTorch finds none on this machine; without --gpu the cases for CPUs are measured"),
])
def test_wrong_flags_are_one_sentence(tool, monkeypatch, flags, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, text = tool(*flags)
    assert status == 2 and len(text.splitlines()) == 1 and text.startswith("tool.bench: error: ") and words in text


def test_gpu_cases_compute_on_a_cpu(setting, monkeypatch):
    """Small sizes on the CPU, with a compiler that returns what it is given: every way runs, and those in float32 are equal to plain."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: (compiled.append(1), function)[1])
    monkeypatch.setattr(networks.process, "has_bf16", lambda: True)
    monkeypatch.setattr("restore.backend._open", {})
    found = [timing.measure(each, 1, 60, 60) for each in gpu.every(setting._replace(models=("unet",)))]
    assert len(found) == 4 and len(compiled) == 5 and not any(each.left_out for each in found)
    rows = [row for each in found for row in each.rows]
    assert {row["case"] for row in rows} == {f"{what}{how}" for what in ("restore unet, 64x64", "train unet, batch 2, patch 32")
                                          for how in ("", ", compiled")}
    assert len(rows) == sum(map(len, (gpu.MODES, gpu.RESTORER, gpu.COMPILED_MODES, gpu.COMPILED_RESTORER, gpu.TRAINING,
                                      gpu.COMPILED_TRAINING))) + 4        # two ways of the plain loop, twice
    assert all(row["difference"] < (0.2 if "16" in row["way"] or "half" in row["way"] else 1e-3) for row in rows)


def test_the_command_on_a_gpu_keeps_its_time(tool, monkeypatch):
    """Each case has its part of the time, and none more than what is left of the whole (here on the CPU)."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(command.process, "session", lambda cpu, gpus: contextlib.nullcontext())
    monkeypatch.setattr(gpu, "SECONDS", 100)
    clock = itertools.count(0, 40)
    monkeypatch.setattr(command, "time", argparse.Namespace(monotonic=lambda: next(clock)))
    limits = []
    monkeypatch.setattr(command, "measure", lambda case, rounds, seconds, whole: (limits.append(whole), timing.Result([], []))[1])
    monkeypatch.setattr(gpu, "every", lambda setting: [case({})._replace(group="gpu", about=50)] * 3)
    assert tool("--gpu")[0] == 0 and Path("experiment/bench_gpu.json").is_file()
    assert limits == [50, 20, -20]


def test_gpu_cases_fit_into_their_time(place):
    chosen = gpu.every(Setting(tuple(NETWORKS), (), False, place))
    assert sum(each.about for each in chosen) == pytest.approx(gpu.SECONDS) and gpu.SECONDS <= 8 * 60
    assert min(each.about for each in chosen) > 5


def test_every_way_restores_the_settings_of_convolutions(setting):
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    seen = []

    def call():
        cudnn = torch.backends.cudnn
        seen.append((cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32))
    gpu.steps(call, gpu.convolutions(False))()
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        later = gpu.remembered(Way(lambda: call))
    later()
    assert seen == [(False, False, False)] * gpu.STEPS + [(True, False, True)] * gpu.STEPS
    assert before == (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32)
