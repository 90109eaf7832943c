"""tool.synthesise: its output depends only on seed, name and version; it refuses wrong settings and folders."""
import json
import os
import re
import resource
import subprocess
from pathlib import Path

import numpy as np
import pytest

import option
from data import image
from data.choose import choose
from tests.conftest import REPO, photo, python, save
from tool import synthesise


@pytest.fixture
def clean(place) -> Path:
    """Three photos of several formats in ./clean."""
    for name in ("a.png", "b.jpg", "c c.webp"):
        save(Path("clean") / name, photo(40, 60, ord(name[0])))
    return Path("clean")


@pytest.fixture
def tool(clean, capsys):
    """Run the tool in this process: tool('snow', SET, '--flag', …) -> (status, what it printed)."""
    def call(weather: str, output: str, *rest: str) -> tuple[int, str]:
        status = synthesise.main([weather, "--input", "clean", "--output", output, *rest])
        out, err = capsys.readouterr()
        assert (status == 0) == (err == "")
        return status, out + err
    return call


@pytest.fixture
def fails(tool):
    """Run the tool; it must fail with one sentence, which is returned."""
    def call(*arguments: str, status: int = 2) -> str:
        code, text = tool(*arguments)
        assert code == status and text.startswith("tool.synthesise: error: ") and text.count("\n") == 1, text
        return text
    return call


def contents(root: str) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def error(root: str, name: str) -> np.ndarray:
    return image.read(Path(root, "input", name)).astype(float) - image.read(Path(root, "target", name))


def psnr(root: str, name: str) -> float:
    return 10 * np.log10(255**2 / np.mean(error(root, name) ** 2))


def test_jobs_and_order_change_nothing(tool):
    assert tool("snow", "one/set", "--versions", "2", "--jobs", "1")[0] == 0
    assert tool("snow", "two/set", "--versions", "2", "--jobs", "3")[0] == 0
    Path("clean/b.jpg").unlink()
    save(Path("clean/0.png"), photo(30, 30, 1))
    assert tool("snow", "three/set", "--versions", "2", "--jobs", "1")[0] == 0
    one, two, three = (contents(f"{name}/set") for name in ("one", "two", "three"))
    assert one == two
    assert sorted(one) == sorted(["synthesis.json", *(f"{folder}/{name}_{version}.png" for folder in ("input", "target", "mask")
                                                      for name in ("a", "b", "c c") for version in (1, 2))])
    assert all(three[name] == one[name] for name in one if "b_" not in name)
    assert len({one[f"input/{name}.png"] for name in ("a_1", "a_2", "b_1", "b_2")}) == 4


def test_seed_and_versions(tool):
    tool("rain", "set", "--seed", "1")
    tool("rain", "other", "--seed", "2")
    tool("rain", "more", "--versions", "2")
    assert contents("set")["input/a.png"] == contents("more")["input/a_1.png"] != contents("other")["input/a.png"]
    assert contents("set")["target/a.png"] == contents("other")["target/a.png"] == contents("more")["target/a_2.png"]
    assert np.array_equal(image.read(Path("set/target/b.png")), image.read(Path("clean/b.jpg")))


def test_loads_as_a_data_set_by_its_name(tool):
    _, text = tool("snow", "dataset/MySnow")
    assert "dataset/MySnow: 3 pairs, 3 made and 0 existed already" in text
    args = option.parse([*text[text.index("--dir_data"):].split(), "--data_test", "DemoSnow"])
    items = choose(args, "MySnow", "train").items
    assert [item.name for item in items] == ["a", "b", "c c"] and all(set(item.images) == {"input", "image", "mask"} for item in items)


def test_noise_is_within_its_range(tool):
    for name in "defgh":
        save(Path(f"clean/{name}.png"), np.full((90, 90, 3), 128, np.uint8))
    tool("noise", "set", "--sigma", "10-30")
    found = [error("set", f"{name}.png").std() for name in "defgh"]
    assert 9.7 < min(found) < 18 and 22 < max(found) < 30.9 and len(set(np.round(found))) > 2
    tool("noise", "fixed", "--sigma", "12.5")
    for name in "defgh":
        assert error("fixed", f"{name}.png").std() == pytest.approx(12.5, rel=0.03)
        assert abs(error("fixed", f"{name}.png").mean()) < 0.3             # rounded, not truncated


@pytest.mark.parametrize("weather", ["snow", "rain", "haze"])
def test_strength(tool, weather):
    for strength in ("0", "0.5-0.6", "2-2.5"):
        tool(weather, strength, "--strength", strength)
    for name in ("a.png", "b.png", "c c.png"):
        assert not error("0", name).any()
        assert 45 > psnr("0.5-0.6", name) > psnr("2-2.5", name) + 2


def test_snow_has_masks_that_fit(tool):
    tool("snow", "set", "--strength", "2")
    tool("rain", "rain")
    assert not Path("rain/mask").exists()
    mask, changed = image.read(Path("set/mask/a.png")), np.abs(error("set", "a.png"))
    assert mask.shape == (40, 60, 3) and (mask > 100).any()
    assert changed[mask < 3].max() < 40 < changed[mask > 150].mean()


def test_what_is_whole_is_kept_and_the_rest_made(tool):
    tool("snow", "set")
    before = contents("set")
    Path("set/input/a.png").unlink()
    Path("set/mask/b.png").unlink()
    kept = Path("set/input/c c.png").stat()
    assert "3 pairs, 2 made and 1 existed already" in tool("snow", "set")[1]
    assert contents("set") == before and Path("set/input/c c.png").stat() == kept
    save(Path("clean/a.png"), photo(40, 60, 99))                           # another photo of that name
    assert "1 made and 2 existed already" in tool("snow", "set")[1]
    assert np.array_equal(image.read(Path("set/target/a.png")), photo(40, 60, 99))
    assert "3 made" in tool("snow", "set", "--overwrite")[1]
    assert Path("set/input/c c.png").stat() != kept


@pytest.mark.parametrize("flags, words", [
    (["snow", "--seed", "2"], "seed 1, now 2"),
    (["snow", "--strength", "1-2"], "strength [0.5, 1.5], now [1.0, 2.0]"),
    (["snow", "--versions", "2", "--overwrite"], "versions 1, now 2"),
    (["noise"], "weather snow, now noise"),
])
def test_other_settings_are_refused(tool, fails, flags, words):
    tool("snow", "set")
    before = contents("set")
    assert words in fails(flags[0], "set", *flags[1:])
    assert contents("set") == before


def test_a_folder_of_something_else_is_refused(fails, tool):
    save(Path("set/input/z.png"), photo(8, 8, 1))
    Path("file").write_text("x")
    for settings in (None, "[]", "{"):
        if settings:
            Path("set/synthesis.json").write_text(settings)
        assert "set is not empty and was not made by this tool" in fails("haze", "set")
    assert "file is a file, and a folder is needed; name another place with --output" in fails("haze", "file")
    Path("set/synthesis.json").unlink()
    Path("set/input/z.png").unlink()
    Path("set/input").rmdir()
    Path("set/.DS_Store").write_text("x")
    assert tool("haze", "set")[0] == 0


@pytest.mark.parametrize("arguments, words", [
    (["fog", "set"], "invalid choice: 'fog'"),
    (["snow", "set", "--strength", "2-1"], "argument --strength: '2-1' is not a range within 0-5"),
    (["snow", "set", "--strength", "strong"], "'strong' is not a range"),
    (["snow", "set", "--strength", "5-50"], "'5-50' is not a range within 0-5"),
    (["noise", "set", "--sigma", "10-300"], "'10-300' is not a range within 0-255"),
    (["snow", "set", "--sigma", "20"], "--sigma has no effect for snow; use --strength a-b"),
    (["noise", "set", "--strength", "1"], "--strength has no effect for noise; use --sigma a-b"),
    (["snow", "set", "--versions", "0"], "'0' is not a whole number from 1"),
    (["snow", "set", "--strenght", "1"], "unknown flag --strenght; did you mean --strength?"),
    (["snow", "clean"], "contain one another"),
    (["snow", "clean/set"], "contain one another"),
    (["snow", "."], "contain one another"),
    (["snow", "DemoSnow"], "a set with the name 'DemoSnow' cannot be loaded"),
    (["snow", "set", "--input", "none"], "there is no folder none"),
    (["snow", "set", "--input", "empty"], "empty contains no image"),
])
def test_mistakes(fails, arguments, words):
    Path("empty").mkdir()
    assert words in fails(*arguments)
    assert not Path("set").exists() and sorted(path.name for path in Path("clean").iterdir()) == ["a.png", "b.jpg", "c c.webp"]


def test_photos_that_will_not_do(fails):
    save(Path("clean/a.jpg"), photo(20, 20, 1))
    assert "clean/a.jpg and a.png would both become a.png" in fails("snow", "set")
    Path("clean/a.jpg").write_bytes(b"hello")
    assert "cannot read the image clean/a.jpg" in fails("snow", "set")
    assert not Path("set").exists()


def test_a_damaged_photo_is_named_by_the_process_that_meets_it(fails, tool):
    whole = Path("clean/b.jpg").read_bytes()
    Path("clean/b.jpg").write_bytes(whole[:len(whole) * 2 // 3])
    assert "cannot read the image clean/b.jpg: the file is truncated" in fails("snow", "set", "--jobs", "2")
    Path("clean/b.jpg").write_bytes(whole)
    assert tool("snow", "set")[0] == tool("snow", "fresh")[0] == 0
    assert contents("set") == contents("fresh")


def test_a_full_disk(clean):
    """No file may grow beyond 2000 bytes: one sentence, status 1, no incomplete file; the same command continues later."""
    command = python("-m", "tool.synthesise", "noise", "--input", "clean", "--output", "set", "--jobs", "2")
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False,
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)))
    assert result.returncode == 1 and result.stdout == ""
    sentence = r"tool.synthesise: error: set/target/[ab].png: File too large; complete pairs stay; the same command continues\n"
    assert re.fullmatch(sentence, result.stderr)
    assert not any("input" in path or ".part" in path for path in contents("set"))
    assert json.loads(Path("set/synthesis.json").read_text())["sigma"] == [15, 50]
    assert synthesise.main(command[3:]) == 0 and len(contents("set")) == 7


def test_pictures_of_any_size(tool):
    for height, width in ((1, 1), (1, 9), (3, 2), (11, 5), (7, 400)):
        save(Path(f"clean/{height}x{width}.png"), photo(height, width, 3))
    for weather in ("snow", "rain", "haze", "noise"):
        assert tool(weather, f"sets/{weather}")[0] == 0
        assert image.size(Path(f"sets/{weather}/input/11x5.png")) == (11, 5)
