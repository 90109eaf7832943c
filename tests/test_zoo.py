"""Tests of the zoo: its data, training, publishing, tables and cards on tiny images, and what ships in zoo/."""
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import option
import unweather
from data import demo
from model import two_stage_kd, weights
from runtime import zoo
from runtime.errors import Failure, UserError
from tests.conftest import REPO, photo, save
from tool import zoo as tool
from tool.zoo import cards, classical, pack, prepare, publish, recipes, table, train

RECIPE = {"model": "nafnet", "channels": 4, "blocks": "1/1/1", "data_train": "photos@0-55+Rain800", "data_test": "CBSD68@25", "epochs": 2,
          "batch_size": "2", "patch_size": "16", "ema": 0.9, "n_threads": 0, "exclude_leaks": True}
SHIPPED = zoo.names()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder as UNWEATHER_DATA names one, with few small images."""
    root = tmp_path_factory.mktemp("unweather_data")
    for number, name in enumerate(("BSDS500/train/a.png", "BSDS500/train/leak.png", "BSDS500/test/b.png", "CBSD68/c.png", "CBSD68/d.png",
                                   "Rain100L/target/1.png", "SOTS_indoor/target/1.png")):
        save(root / name, photo(48, 64, number))
    for name in ("Rain100L", "SOTS_indoor"):
        save(root / name / "input/1.png", photo(48, 64, 20) // 2 + 60)
    for number, name in enumerate(("train/7", "train/8", "test/1"), 30):
        save(root / f"Rain800/{name}.png", np.hstack([photo(48, 64, number), photo(48, 64, number) // 2 + 60]))
    (root / "leaks").mkdir()
    (root / "leaks/BSDS500_train_LEAKS_into_x.txt").write_text("leak.png\n")
    (root / "leaks/Rain800_train_LEAKS_into_y.txt").write_text("8.png\n")
    return root


@pytest.fixture
def small(place, images, monkeypatch) -> Path:
    """A working folder with a zoo of its own, in which 'tiny' has a recipe, and the pages that hold the tables."""
    monkeypatch.setattr(zoo, "ROOT", place / "zoo")
    monkeypatch.setenv("UNWEATHER_DATA", str(images))
    (place / "zoo/tiny").mkdir(parents=True)
    (place / "zoo/tiny/args.json").write_text(json.dumps(RECIPE))
    (place / "zoo/tiny/notes.md").write_text("Notes in words.\n")
    for kind, page in table.PAGES.items():
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"before\n<!-- zoo {kind} -->\nold\n<!-- zoo end -->\nafter\n")
    return place


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("links", [True, False])
def test_data_without_leaks(small, images, monkeypatch, links):
    """Images that a list names or the search finds are left out, a second call changes nothing, and a new list is followed."""
    found = small / "found"
    shutil.copytree(images, found)
    monkeypatch.setenv("UNWEATHER_DATA", str(found))
    scene = structured(1)
    save(found / "CBSD68/scene.png", scene)
    save(found / "BSDS500/test/copy.png", scene[:, ::-1])
    if not links:
        monkeypatch.setattr(Path, "symlink_to", lambda *_, **__: (_ for _ in ()).throw(OSError("no links here")))
    times = []
    for _ in range(2):
        root = prepare.prepare(prepare.source())
        assert names(root / "photos/input") == ["a.png", "b.png"] and names(root / "Rain800/train") == ["7.png"]
        assert (root / "photos/target/a.png").read_bytes() == (found / "BSDS500/train/a.png").read_bytes()
        assert (root / "photos/target/a.png").is_symlink() == links
        times.append([path.lstat().st_mtime_ns for path in sorted(root.rglob("*"))])
    assert times[0] == times[1]
    if links:
        (found / "leaks/BSDS500_train_LEAKS_into_z.txt").write_text("a.png\n")
        assert names(prepare.prepare(prepare.source()) / "photos/input") == ["b.png"]
        (root / "photos/target/b.png").unlink()
        (root / "photos/target/b.png").write_text("of the user")
        with pytest.raises(UserError, match=r"b\.png is in the place of a link"):
            prepare.prepare(prepare.source())
        assert (root / "photos/target/b.png").read_text() == "of the user"


def test_a_packed_folder(small, images, monkeypatch):
    """It has the training images without leaks and a few test images, within its limit, and a network trains with it."""
    size = sum(path.stat().st_size for path in images.rglob("*.png") if path.name not in ("leak.png", "8.png"))
    for limit, pairs in ((size - 1, []), (size, ["7.png"])):
        monkeypatch.setattr(pack, "LIMIT", limit)
        save(pack.PACKED / "weights/own.png", photo(8, 8, 0))
        folder = pack.run()
        assert [names(folder / each) for each in ("Rain100L/input", "Rain800/train", "weights")] == [["1.png"], pairs, ["own.png"]]
    monkeypatch.setenv("UNWEATHER_DATA", str(folder))
    assert names(prepare.prepare(prepare.source()) / "photos/input") == ["a.png", "b.png"]
    monkeypatch.setattr(pack, "LIMIT", 10)
    with pytest.raises(UserError, match="of a packed folder"):
        pack.run()


def structured(seed: int) -> np.ndarray:
    """Return an image (160, 200, 3) with details at all scales, by which a copy of it can be recognised."""
    rng = np.random.default_rng(seed)
    total = sum(np.kron(rng.random((160 // side, 200 // side)), np.ones((side, side))) / 4 for side in (4, 8, 20, 40))
    return np.repeat((255 * total / total.max()).astype(np.uint8)[..., None], 3, axis=2)


def test_incomplete_data_is_named(small, monkeypatch):
    monkeypatch.setenv("UNWEATHER_DATA", str(small))
    with pytest.raises(UserError, match=r"lacks the folders BSDS500/train, .*SOTS_indoor"):
        train.run("tiny", 0.001)


def test_from_training_to_tables(small, capsys):
    """A training keeps its plan, is published, and its card and the tables have the numbers that the tests wrote."""
    folder = train.run("tiny", 0.001)
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["steps"] >= 1 and len(plan["rates"]) == 1 and plan["hours"] == 0.001
    before = (folder / "model.safetensors").read_bytes()
    assert train.run("tiny", 0.001) == folder and (folder / "model.safetensors").read_bytes() == before
    with pytest.raises(UserError, match=r"is the plan of a training of 0\.001 hours .* continue it with HOURS=0\.001"):
        train.run("tiny", 0.002)
    (zoo.ROOT / "tiny/args.json").write_text(json.dumps(RECIPE | {"lr": 0.5}))
    with pytest.raises(UserError, match=r"args\.json has changed since this training began, in lr"):
        train.run("tiny", 0.001)
    (zoo.ROOT / "tiny/args.json").write_text(json.dumps(RECIPE))
    assert "| `CBSD68@25` |" in (folder / "README.md").read_text()
    assert not (zoo.ROOT / "tiny/model.safetensors").exists()
    publish.run("tiny")
    assert (zoo.ROOT / "tiny/model.safetensors").read_bytes() == before
    assert weights.load("zoo:tiny").network.head.weight.dtype == torch.float32
    table.run([], write=True)
    found = [json.loads(path.read_text()) for path in Path("experiment/zoo/tests").glob("tiny/*/metrics.json")]
    numbers = {name: each for one in found for name, each in one.items()}
    assert set(numbers) == {each.name for each in table.SETS if each.task in ("noise", "rain", "clean")}
    page, card = Path("docs/zoo.md").read_text(), (zoo.ROOT / "tiny/README.md").read_text()
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "old" not in page
    for name in ("CBSD68@25", "Rain100L"):
        assert re.search(rf"{name} .*\| `zoo:tiny` \| {numbers[name]['psnr']:.2f} \| {numbers[name]['psnr_y']:.2f}", page)
    assert f"| {numbers['CBSD68@25']['psnr']:.2f} |" in card and hashlib.sha256(before).hexdigest() in card
    assert "Where it helps least" in card and (zoo.ROOT / "tiny/least_noise.jpg").is_file() and "(least_rain.jpg)" in card
    assert "Notes in words." in card and "HOURS=0.001" in card and "BSDS500: Berkeley" in card
    assert "| rain: Rain100L, Y | 1 |" in Path("README.md").read_text()
    assert f"| {numbers['Rain100L']['others'][0]['psnr']:.2f} |" in page
    shutil.rmtree("experiment/zoo/tests")
    capsys.readouterr()
    table.run(["tiny"], write=False)                     # what zoo/numbers.json has is not tested again
    assert not Path("experiment/zoo/tests").exists()
    assert "zoo:tiny" in capsys.readouterr().out


def test_stages(small):
    """The card of a network that starts from another one of the zoo has commands, hours and data of both; tables have only the last."""
    train.run("tiny", 0.001)
    publish.run("tiny")
    later = RECIPE | {"pre_train": "zoo:tiny", "data_train": "CBSD68@rain"}
    (zoo.ROOT / "later").mkdir()
    (zoo.ROOT / "later/args.json").write_text(json.dumps(later))
    (zoo.ROOT / "later/notes.md").write_text("Notes.\n")
    assert recipes.stages("later") == ["tiny", "later"] and recipes.complete(["tiny", "later"]) == ["later"]
    folder = train.run("later", 0.001)
    assert "zoo:tiny (own file)" in Path("experiment/zoo/later/training/log.txt").read_text()
    publish.run("later")
    assert (folder / "model.safetensors").read_bytes() == (zoo.ROOT / "later/model.safetensors").read_bytes()
    card = cards.text("later", zoo.ROOT / "later", "table", [])
    assert all(each in card for each in ("### tiny", "NAME=tiny HOURS", "NAME=later HOURS", "`zoo:tiny`", "- BSDS500: ", "- CBSD68: "))
    (zoo.ROOT / "later/args.json").write_text(json.dumps(later | {"pre_train": recipes.RELEASE.format("tiny")}))
    (zoo.ROOT / "tiny" / zoo.FILE).unlink()
    assert recipes.stages("later") == ["tiny", "later"] and recipes.unshipped("later") == ["tiny"]
    (zoo.ROOT / "tiny/args.json").write_text(json.dumps(RECIPE | {"pre_train": "zoo:later"}))
    with pytest.raises(UserError, match="starts from "):
        recipes.stages("later")


def test_a_smoke_test_leaves_out_what_needs_missing_files(small):
    recipe = RECIPE | {"pre_train": "none.pth", "vgg_weights": "none.pth", "loss": "1*L1+0.1*SCR / 1*L1+0.2*HCR"}
    assert recipes.smoke(recipe)[4:] == ["--pre_train", "", "--vgg_weights", "", "--loss", "1*L1 / 1*L1"]
    Path("none.pth").touch()
    assert recipes.smoke(recipe)[4:] == []
    assert recipes.smoke(recipe | {"teachers": ["experiment/zoo/x/release/model.safetensors"]})[4:] == ["--loss", "1*L1 / 1*L1"]


def test_published_numbers_have_a_column():
    head = table.long([], {}, {}).splitlines()[0]
    assert all(f"| {known.column} |" in head for rows in table.PUBLISHED.values() for known in rows)
    assert set(table.PUBLISHED) <= {each.name for each in table.SETS}


def test_a_changed_recipe_is_not_published(small):
    train.run("tiny", 0.001)
    (zoo.ROOT / "tiny/args.json").write_text(json.dumps(RECIPE | {"lr": 0.5}))
    with pytest.raises(UserError, match="has changed since the training"):
        publish.run("tiny")


def test_limits_of_what_is_published(small, monkeypatch):
    """Weights that float16 damages, and weights that are too large, stay where they are."""
    train.run("tiny", 0.001)
    monkeypatch.setattr(publish, "LOSS", -1.0)
    with pytest.raises(Failure, match="float16 costs"):
        publish.run("tiny")
    monkeypatch.setattr(publish, "LOSS", 1.0)
    monkeypatch.setattr(publish, "TOGETHER", 1000)
    with pytest.raises(Failure, match="the zoo allows"):
        publish.run("tiny")
    assert not (zoo.ROOT / "tiny/model.safetensors").exists()


def test_a_smoke_test_is_not_published(small, monkeypatch):
    """Without UNWEATHER_DATA the training uses embedded photos, with masks where the recipe needs them; its weights stay where they are."""
    monkeypatch.delenv("UNWEATHER_DATA")
    masks = {"model": "smgarn", "data_train": "photos@snow0-1.5+Rain800@snow", "loss": "1*L1+1*L1:mask", "data_test": "CBSD68@snow"}
    (zoo.ROOT / "tiny/args.json").write_text(json.dumps({key: value for key, value in RECIPE.items() if key != "blocks"} | masks))
    assert (train.run("tiny", 0.001) / "model.safetensors").is_file()
    with pytest.raises(UserError, match="is a smoke test"):
        publish.run("tiny")
    with pytest.raises(UserError, match="UNWEATHER_DATA"):
        table.run([], write=True)


@pytest.mark.parametrize("flags, words", [
    (["train"], "train needs the name"), (["train", "a", "b"], "train needs the name of one network"),
    (["train", "none"], "the zoo has no network 'none'.* known: tiny"), (["train", "../tiny"], "the zoo has no network '../tiny'"),
    (["publish", "tiny"], "no training of 'tiny' has ended"), (["test", "none"], "the zoo has no weights 'none'"),
    (["train", "tiny", "--hours", "9"], "--hours"), (["--nonsense"], "unknown flag --nonsense")])
def test_wrong_input(small, flags, words):
    with pytest.raises(UserError, match=words):
        tool.run(flags)


def test_a_page_without_marks(small):
    Path("README.md").write_text("text")
    with pytest.raises(Failure, match="has no lines <!-- zoo short -->"):
        table.put(Path("README.md"), "short", "x")
    assert Path("README.md").read_text() == "text"


def test_classical_methods_restore(place):
    """Each kind of method improves embedded images of its task; all keep size and range."""
    def change(weather: str, method: str) -> float:
        item = demo.opener(weather)(Path(), "test")[0]
        clean, degraded = (item.images[key][:200, :200] / 255 for key in ("image", "input"))
        result = classical.METHODS[weather][method](degraded)
        assert result.shape == clean.shape
        error = [np.mean((np.clip(each, 0, 1) - clean) ** 2) for each in (degraded, result)]
        return 10 * np.log10(error[0] / error[1])
    assert change("noise", "non-local means") > 4 and change("noise", "total variation") > 4
    assert change("snow", "opening 5x5") > 1
    assert change("rain", "opening 3x3") > 0 or change("rain", "median 3x3") > 0
    assert np.isfinite(change("haze", "dark channel"))


def test_an_unknown_name():
    with pytest.raises(UserError, match=r"'zoo:\.\./x' is not in the zoo"):
        weights.read("zoo:../x")


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships(name):
    """Size, digest and card of each file fit, it loads from any folder, and it improves a photo of its task that it has not seen."""
    place = REPO / "zoo" / name
    content, card = (place / "model.safetensors").read_bytes(), (place / "README.md").read_text()
    assert len(content) <= publish.LARGEST and hashlib.sha256(content).hexdigest() in card
    assert all((place / each).is_file() for each in ("args.json", "plan.json", "notes.md", "curves.png"))
    method = unweather.load(f"zoo:{name}")
    for weather in recipes.tasks(recipes.flags(name)):
        item = demo.opener(weather)(Path(), "test")[0]
        clean, degraded = (item.images[key][:256, :256] for key in ("image", "input"))
        before, after = (unweather.measure(each, clean)["psnr"] for each in (degraded, unweather.restore(method, degraded)))
        assert after > before + 0.2, weather


@pytest.mark.parametrize("name", sorted(path.parent.name for path in (REPO / "zoo").glob("*/args.json")))
def test_recipes(place, name):
    """Every recipe is read by main.py as it is; its smoke test has the same tasks and no other images than scikit-image's."""
    recipe = recipes.flags(name)
    args = option.parse(["--config", str(recipes.path(name))])
    assert args.model == recipe["model"] and args.data_train == recipe["data_train"]
    assert not args.no_augment and args.augment == recipe.get("augment", args.augment)
    if recipe.get("teachers"):
        assert two_stage_kd._in_order(args.data_train.split("+"), args.teachers) == recipe["teachers"]
    smoke = dict(zip(*[iter(recipes.smoke(recipe))] * 2))
    assert {part.partition("@")[0] for part in smoke["--data_train"].split("+")} == {"photos"}
    assert recipes.tasks({"data_train": smoke["--data_train"]}) == recipes.tasks(recipe)


def test_all_together_are_small():
    assert "aio" in SHIPPED and SHIPPED[0] == "aio"
    assert sum((REPO / "zoo" / name / "model.safetensors").stat().st_size for name in SHIPPED) <= publish.TOGETHER


def test_a_copied_folder_loads(tmp_path):
    shutil.copytree(REPO / "zoo" / "aio", tmp_path / "copy")
    assert unweather.load(tmp_path / "copy/model.safetensors").network is not None
