"""tool.profile: counts that are known, and every part of the output."""
import re

import pytest
import torch
from torch import nn

from model.method import Method
from tool import guarded, profile


@pytest.fixture
def tool(place, capsys):
    """Run the tool: tool('--flag', …) -> (status, what it printed)."""
    def call(*flags: str) -> tuple[int, str]:
        status = guarded("tool.profile", lambda: profile.run(list(flags)))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out + err
    return call


def test_multiply_adds_of_a_convolution():
    class One(Method):
        def predict(self, x):
            return {"image": self.network(x)}
    assert profile.multiply_adds(One(nn.Conv2d(3, 3, 3, padding=1))) == 3 * 3 * 9 * 256 * 256


def test_profile_of_a_small_network(tool, monkeypatch):
    monkeypatch.setattr(profile, "MATRIX", 64)
    status, text = tool("dncnn", "--channels", "4", "--side", "64", "--patch_size", "16", "--batch_size", "2", "--loss", "1*L1", "--cpu",
                        "--steps", "1", "--precisions", "single", "--data_train", "DemoSnow")
    assert status == 0, text
    parameters = int(re.search(r"parameters +([\d,]+)", text)[1].replace(",", ""))
    assert parameters > 1000
    assert re.search(r"torch, single +\d+\.\d\d +\d+ +\d+\.\d megapixels", text)
    shares = [float(value) for value in re.findall(r"ms +([\d.]+) %", text)]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_bytes_that_operators_move():
    x = torch.ones(1024)
    with profile.Traffic() as traffic:
        y = x + x.view(32, 32).reshape(-1)             # two inputs and an output; views move nothing
        y.mul_(2)
    assert traffic.bytes == 4096 * (3 + 2)


def test_floors_state_the_arithmetic(monkeypatch):
    monkeypatch.setattr(profile, "MATRIX", 64)
    monkeypatch.setattr(profile, "COPIED", 1024)
    matrix = torch.rand(1000, 1000)
    arithmetic, memory = profile.floors(lambda: matrix @ matrix, lambda: matrix @ matrix, "single")
    assert ": 3.00 G multiply-adds at the" in arithmetic and ": 11 MiB read and written" in memory


@pytest.mark.parametrize("flags", [("nope",), ("dncnn", "--precisions", "double"), ("dncnn", "--side", "0"), ("dncnn", "--nonsense")])
def test_wrong_flags_are_one_sentence(tool, flags):
    status, text = tool(*flags)
    assert status == 2
    assert text.splitlines()[-1].startswith("tool.profile: error: ")


def test_backward_and_optimiser_run(tool, monkeypatch):
    seen = []
    real = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *args: (seen.append(1), real(self, *args)))
    assert tool("dncnn", "--channels", "4", "--side", "32", "--patch_size", "16", "--batch_size", "2", "--loss", "1*L1", "--cpu",
                "--steps", "2", "--precisions", "single", "--data_train", "DemoSnow")[0] == 0
    assert len(seen) == 4                 # the first one is not measured, and the memory traffic of one is counted
