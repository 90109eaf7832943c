"""Rain2Avoid with --warm_start: each network starts from that of the previous image."""
import signal
from pathlib import Path

from tests.conftest import save
from tests.test_ldgp import streaked
from tests.test_rain2avoid import TINY
from trainer import Trainer


def test_a_stopped_run_goes_on_equally(run, place, monkeypatch):
    """The third image starts from the network of the second one, also when the program has been stopped between them."""
    for number in range(3):
        save(place / f"photos/{number}.png", streaked(64, 64, -15, number))
    flags = [*TINY, "--data_train", "Folder", "--dir_demo", "photos", "--warm_start"]
    real, steps, stop = Trainer.train_step, [], []

    def train_step(self, batch):
        if len(steps) in stop:
            stop.clear()
            signal.raise_signal(signal.SIGTERM)
        numbers = real(self, batch)
        steps.append((self.run.name, float(numbers["loss"])))
        return numbers
    monkeypatch.setattr(Trainer, "train_step", train_step)
    assert run(*flags, "--save", "whole", "--dir_out", "whole")[0] == 0
    whole = steps.copy()
    steps.clear()
    stop.append([name for name, _ in whole].index("2"))            # the first step of the third image
    assert run(*flags, "--save", "stopped", "--dir_out", "stopped")[0] == 143 and len(list(Path().glob("stopped/*/result/*"))) == 2
    del steps[-1]                                                  # which is made again
    assert run(*flags, "--save", "stopped", "--dir_out", "stopped")[0] == 0
    assert steps == whole and len({name for name, _ in whole}) == 3


def test_a_damaged_file_of_weights_is_named(run, place):
    """The next image then starts from a new network."""
    for number in range(2):
        save(place / f"photos/{number}.png", streaked(64, 64, -15, number))
    flags = [*TINY, "--data_train", "Folder", "--dir_demo", "photos", "--warm_start", "--save", "x"]
    assert run(*flags)[0] == 0
    Path("experiment/x/previous-photos.pt").write_bytes(b"damaged")
    Path("dataset/photos/result/1.png").unlink()
    status, text = run(*flags)
    assert status == 0 and "previous-photos.pt is damaged" in text and "the next image starts from a new network" in text
