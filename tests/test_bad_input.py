"""Bad input: one sentence states the error and its correction, status 2, no lost or partly written files."""
import shutil
from pathlib import Path

import pytest
import torch

from runtime import files
from tests.conftest import TINY, make_pairs, photo, save, veiled


def damage(what: str) -> None:
    root = Path("dataset/set")
    if what == "empty file":
        (root / "input/01.png").write_bytes(b"")
    elif what == "no image":
        (root / "input/01.png").write_bytes(b"hello")
    elif what == "truncated":
        whole = save(root / "input/01.jpg", veiled(photo(40, 48, 1)))
        (root / "input/01.png").unlink()
        whole.write_bytes(whole.read_bytes()[:500])
    elif what == "partner":
        (root / "target/01.png").unlink()
    elif what == "size":
        save(root / "target/01.png", photo(40, 40, 1))
    elif what == "no input":
        shutil.rmtree(root / "input")
    elif what == "nothing":
        [path.unlink() for path in (root / "input").iterdir()]


@pytest.mark.parametrize("ext", ["sep", "img"])
@pytest.mark.parametrize("what, words", [
    ("empty file", "cannot read the image dataset/set/input/01.png: the file is empty"),
    ("no image", "cannot read the image dataset/set/input/01.png: the image is damaged or of an unknown format"),
    ("truncated", "cannot read the image dataset/set/input/01.jpg: the file is truncated"),
    ("partner", "1 of 4 images in dataset/set/input have no partner in dataset/set/target: 01.png"),
    ("size", "the images of a pair must have one size: dataset/set/input/01.png is 48x40, dataset/set/target/01.png is 40x40"),
    ("no input", "there is no folder dataset/set/input"),
    ("nothing", "dataset/set/input holds no image"),
])
def test_damaged_data(fails, pairs, ext, what, words):
    damage(what)
    workers = "2" if ext == "img" else "0"                         # the sentence also passes through a worker process
    assert words in fails("--data_train", "set", "--save", "x", *TINY, "--ext", ext, "--n_threads", workers)
    if what != "truncated":
        assert not Path("experiment").exists()


def test_unknown_data_set(fails, place):
    assert "unknown data set 'Snow'; known: DIV2K, Rain100L" in fails("--data_train", "Snow", *TINY)
    assert "there is no folder dataset/DIV2K" in fails(*TINY)
    sentence = fails("--data_train", "DemoSnow", "--data_test", "Demo", "--dir_demo", "none", *TINY)
    assert "there is no file or folder none; --dir_demo specifies an image, a video, or the folder" in sentence


def test_a_target_that_is_missing(fails, run, pairs):
    shutil.rmtree(pairs / "mask")
    sentence = fails("--data_train", "set", "--save", "x", *TINY)
    assert "needs the target 'mask', which 3 of 3 images of set lack; without it: --loss '1*L1'" in sentence
    assert run("--data_train", "set", "--save", "x", *TINY, "--loss", "1*L1")[0] == 0


def test_images_smaller_than_the_patch(run, fails, pairs):
    """Small images are padded by reflection; it is an error if no image is as large as the patch."""
    assert "--patch_size 64 is larger than every image of set" in fails("--data_train", "set", "--save", "x", *TINY, "--patch_size", "64")
    for part in ("input", "target", "mask"):
        save(pairs / part / "00.png", photo(70, 64, 0))
    assert run("--data_train", "set", "--save", "x", *TINY, "--patch_size", "64")[0] == 0


def test_an_existing_experiment(fails, trained):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    sentence = fails("--data_train", "set", "--save", "x", *TINY, "--epochs", "3")
    assert sentence.endswith("experiment/x exists already; add --reset to empty it, --resume to continue it, "
                             "or choose another name with --save")
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_a_failing_reset_loses_nothing(fails, trained):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    make_pairs(Path("dataset/no_masks"))
    for flags in (("--data_train", "none"), ("--data_train", "set", "--pre_train", "none.pt"), ("--data_train", "no_masks")):
        fails(*flags, "--save", "x", "--reset", *TINY)
        assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_nothing_to_go_on_with(fails, trained):
    assert "experiment/x/model/state_7.pt does not exist" in fails("--save", "x", "--resume", "7")
    assert "experiment/y/model/state.pt does not exist" in fails("--save", "y", "--resume", "-1", "--data_train", "set")
    assert "use -1 for the newest state" in fails("--save", "x", "--resume", "last")


def test_a_state_that_does_not_fit(fails, trained):
    assert "does not fit these flags" in fails("--load", "x", "--epochs", "2", "--channels", "8")
    torch.save({"epoch": 1}, trained / "model/state.pt")           # no previous state exists after one epoch
    assert "state.pt is not the state of a training" in fails("--load", "x", "--epochs", "2")


def other_model(path: str) -> None:
    content = files.read_tensors("experiment/x/model/model_best.pt")
    torch.save(content | {"model": "no_such_model"}, path)


def cut(path: str) -> None:
    whole = Path("experiment/x/model/model_best.pt").read_bytes()
    Path(path).write_bytes(whole[:len(whole) // 2])


@pytest.mark.parametrize("make, words", [
    (other_model, "unknown model 'no_such_model'"),
    (cut, "bad.pt is damaged or is not a file of weights"),
    (lambda path: Path(path).write_bytes(b""), "bad.pt is damaged or is not a file of weights"),
    (lambda path: torch.save([1, 2], path), "bad.pt does not contain named weights"),
    (lambda path: torch.save({"body.weight": torch.zeros(1)}, path), "0 of its 130 tensors match, 1 are unknown"),
    (lambda path: torch.save(Path("x"), path), "bad.pt is damaged or is not a file of weights"),          # pickled objects are not loaded
])
def test_wrong_weights(fails, trained, make, words):
    make("bad.pt")
    assert words in fails("--test_only", "--pre_train", "bad.pt", "--data_test", "set", "--cpu")


def test_weights_of_another_width(fails, trained):
    sentence = fails("--test_only", "--pre_train", trained / "model/model_best.pt", "--channels", "8", "--data_test", "set", "--cpu")
    assert "should have the shape" in sentence and "check --model and the width flags" in sentence


def test_test_only_without_weights(fails, place):
    assert "--test_only needs weights" in fails("--test_only", "--data_test", "DemoSnow")


def test_several_gpus_need_torchrun(fails, place):
    assert "torchrun --nproc_per_node 2 main.py" in fails("--n_GPUs", "2", "--data_train", "DemoSnow")


@pytest.mark.parametrize("name", ["os.replace", "os.fsync"])
def test_a_full_disk(fails, trained, monkeypatch, name):
    """If the disk is full while weights are saved, the status is 1, the last good files are kept and no partial file is left."""
    before = (trained / "model/model_latest.pt").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device", "experiment/x/model/model_latest.pt")
    monkeypatch.setattr(name, full)
    text = fails("--load", "x", "--epochs", "2", status=1)
    assert "No space left on device" in text
    assert (trained / "model/model_latest.pt").read_bytes() == before
    assert not list(trained.rglob("*.part"))


def test_a_network_that_gives_no_numbers(fails, trained):
    """A network output that is not finite is a failure and is never scored."""
    content = files.read_tensors(trained / "model/model_best.pt")
    content["state"]["tail.2.weight"].fill_(3e38)
    torch.save(content, "much.pt")
    sentence = fails("--test_only", "--pre_train", "much.pt", "--data_test", "set", "--cpu", status=1)
    assert sentence.endswith("is not finite in the precision single; the weights are damaged")
    assert "try --test_precision single" in fails("--test_only", "--pre_train", "much.pt", "--data_test", "set", "--cpu",
                                                  "--test_precision", "bf16", status=1)
    assert not Path("experiment/test/metrics.json").exists()


def test_a_loss_that_names_nothing_writes_nothing(fails, pairs):
    text = fails("--data_train", "set", "--save", "x", *TINY, "--loss", "1*L1:maskk")
    assert "--loss names 'maskk', which does not exist; the model predicts: image, mask" in text
    assert not Path("experiment").exists()


def test_load_and_save_exclude_each_other(fails, trained):
    assert "--load x continues in experiment/x; leave out --save y" in fails("--load", "x", "--save", "y")


def test_a_training_that_is_further(fails, trained):
    before = (trained / "args.json").read_bytes()
    assert "exists already" in fails("--save", "x", "--data_train", "set", *TINY, "--seed", "3")
    state = files.read_tensors(trained / "model/state.pt")
    files.write_tensors(trained / "model/state.pt", state | {"progress": state["progress"] | {"epoch": 5}})
    assert "is already trained to epoch 5, which is beyond --epochs 2" in fails("--load", "x", "--epochs", "2")
    assert (trained / "args.json").read_bytes() == before


def test_damaged_side_files(run, trained_here):
    """A truncated log line, an empty metrics.json or a truncated cache file does not stop a resumed training."""
    with open(trained_here / "log.jsonl", "a") as file:
        file.write('{"event": "tra')
    (trained_here / "metrics.json").write_text("")
    for path in Path("dataset/bin").rglob("*.npy"):
        whole = path.read_bytes()
        path.unlink()                                              # replaces the file, because this process has mapped the old one
        path.write_bytes(whole[:100])
    status, text = run("--load", "x", "--epochs", "2")
    assert status == 0, text


@pytest.mark.parametrize("name", ["link", "file", "x/inner"])
def test_places_that_are_no_experiment(fails, trained, name):
    Path("experiment/link").symlink_to("x")
    Path("experiment/file").write_text("x")
    sentence = fails("--save", name, "--reset", "--data_train", "set", *TINY)
    assert "is a link or a file" in sentence or "is inside another experiment" in sentence
    assert (trained / "model/model_best.pt").is_file()


@pytest.mark.parametrize("link", ["experiment/.locks/x.lock", "experiment/.locks"])
def test_a_lock_that_is_a_link_changes_nothing(fails, pairs, link):
    victim = Path("victim") if link.endswith("lock") else Path("elsewhere/x.lock")
    victim.parent.mkdir(exist_ok=True)
    victim.write_text("kept")
    Path(link).parent.mkdir(parents=True, exist_ok=True)
    Path(link).symlink_to((victim if link.endswith("lock") else victim.parent).resolve())
    assert f"{link} is a link" in fails("--data_train", "set", "--loss", "1*L1", "--save", "x", "--reset", *TINY)
    assert victim.read_text() == "kept"
