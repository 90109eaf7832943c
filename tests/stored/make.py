"""Write the files of the current version: python -m tests.stored.make VERSION [NAME …], once for each release and never again.

NAME: a model, or `state`, a training; all without it, except spandrel, whose networks are those of a package. `nafnet` is also written
as safetensors.
Every model at its smallest width, with weights from a short repeating pattern, so that the compressed folder stays small.
"""
import contextlib
import json
import lzma
import sys
import tempfile
from pathlib import Path

import torch

import main as program
import model
import option
from model import names, weights
from runtime import experiment, files, safetensors

NET = Path(__file__).with_name("net.py")
TINY = {"smgarn": ["--channels", "4"], "sapnet": ["--channels", "16", "--recurrent_iter", "2", "--no-use_dilation"],
        "dsrir": ["--channels", "16", "--data_train", "DemoRain"],
        "two_stage_kd": ["--channels", "4", "--blocks", "2", "--data_train", "DemoSnow", "--loss", "1*L1 / 1*L1"],
        "unet": ["--channels", "3", "--data_train", "DemoRain"], "resnet": ["--channels", "3", "--data_train", "DemoRain"],
        "dncnn": ["--channels", "8", "--data_train", "DemoRain"], "restormer": ["--channels", "4", "--blocks", "1-2-1-1"],
        "drsformer": ["--channels", "4", "--blocks", "1-1-2-1"],
        "nafnet": ["--channels", "4", "--blocks", "1/1/1"], "external": ["--arch", f"{NET}:Net", "--arch_args", '{"width": 5}'],
        "rain2avoid": ["--backbone", "Restormer", "--channels", "6", "--blocks", "1-1-1-2", "--dir_demo", "photos"]}
GAIN = {"dncnn": 1.6, "dsrir": 0.6, "two_stage_kd": 0.5}      # so that results are neither near 0 nor huge


def fill(network: torch.nn.Module, gain: float) -> None:
    """Give every floating tensor of a network values of a repeating pattern; norms' variances stay positive."""
    pattern = torch.rand(1021, generator=torch.Generator().manual_seed(5)) * 2 - 1
    with torch.no_grad():
        for number, (name, value) in enumerate(network.state_dict().items()):
            if value.is_floating_point():
                steps = pattern.roll(97 * number).repeat(value.numel() // len(pattern) + 1)[:value.numel()]
                size = gain * (2 / max(value[0].numel(), 4)) ** 0.5 if value.dim() > 1 else 0.25
                value.copy_((steps * size + (value.dim() <= 1 and not name.endswith(("bias", "mean")))).view_as(value))


def picture() -> torch.Tensor:
    """Return the (1, 3, 33, 45) in [0, 1] that the files are applied to."""
    rows, columns = torch.arange(33.0)[:, None], torch.arange(45.0)
    return torch.stack([(rows * a + columns * b).sin() * 0.4 + 0.5 for a, b in ((0.3, 0.1), (0.2, 0.5), (0.7, 0.2))])[None]


def main(version: str, *chosen: str) -> None:
    """Write a folder with a model file, the flags and the expected result of the chosen models, and a training."""
    folder = files.make_folder(Path(__file__).parent / version)
    for name in [each for each in TINY if each in (chosen or TINY)]:
        assert not (folder / f"{name}.json").exists(), f"{name} is written already and must stay as it is"
        args = option.parse(["--model", name, "--save", name, *TINY[name]])
        method = model.build(args)
        fill(method.network, GAIN.get(name, 1.0))
        note = {"epoch": 3, "score": 21.5, "data_train": args.data_train, "data_range": args.flags["data_range"]}
        path = folder / f"{name}.pt"
        content = weights.model_content(method, args, note)
        files.write_tensors(path, content)
        if name == "nafnet":
            data = safetensors.encoded(content | {"names": "released", "state": names.released(method)})
            (folder / f"{name}.safetensors.xz").write_bytes(lzma.compress(data, preset=9))
        (folder / f"{name}.pt.xz").write_bytes(lzma.compress(path.read_bytes(), preset=9))
        path.unlink()
        flags = {key: value for key, value in args.flags.items() if key not in (*experiment.PASSING, *model.code_flags(name))}
        files.write_json(folder / f"{name}.json", flags)
        with torch.inference_mode():
            result = method.eval().restore(picture())
        assert result.isfinite().all(), name
        files.write_json(folder / f"{name}-result.json", [round(value, 6) for value in result[0, :, ::4, ::5].flatten().tolist()])
        print(f"{name:14}", f"{result.min():.3f} to {result.max():.3f}, deviation {result.std():.3f}")
    if not chosen or "state" in chosen:
        train(folder)


def train(folder: Path) -> None:
    """Write the flags of a training of two epochs, its state after the first, and the losses of the second."""
    work = Path(tempfile.mkdtemp())
    with contextlib.chdir(work) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
        assert not program.main(["--data_train", "DemoSnow", "--save", "x", "--channels", "2", "--epochs", "2", "--test_every", "3",
                                 "--batch_size", "2", "--patch_size", "16", "--n_threads", "0", "--cpu", "--save_models", "--no-report"])
    done = work / "experiment" / "x"
    (folder / "state.pt.xz").write_bytes(lzma.compress((done / "model" / "state_1.pt").read_bytes(), preset=9))
    (folder / "state-args.json").write_bytes((done / "args.json").read_bytes())
    records = [json.loads(line) for line in (done / "log.jsonl").read_text().splitlines()]
    files.write_json(folder / "state-result.json", [each["losses"] for each in records if each["event"] == "epoch"][1])


if __name__ == "__main__":
    main(*sys.argv[1:])
