"""Feeds damaged and hostile files to the readers of images, model files, states and reports, and prints what no reader expected.

    python -m tests.fuzz image|weights|state|report [--minutes N] [--seed N]

A reader may return a result or raise UserError, within LIMIT seconds. Anything else ends the program with status 1 and names the
seed of the input: `--seed SEED --minutes 0` reads that input alone.
"""
import argparse
import copy
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image

import option
import report
from data import image
from model import build, weights
from runtime import experiment, files, safetensors
from runtime.errors import UserError
from tests.conftest import photo
from tests.stored import unpack

LIMIT = 20                                # seconds for one input
MEMORY = 8 * 2**30                        # bytes of address space; an input that needs more is reported
ODD = (None, True, -1, 0, 1, 10**7, 2**63, -2**70, 1e308, float("nan"), float("inf"), "", "x", "../../victim", "\udce9\0", "9" * 5000,
       [], [[[]]], {}, {1: 2}, ["a"] * 1000, torch.zeros(0), torch.full((3,), float("nan")), torch.zeros(2, dtype=torch.complex64),
       torch.eye(3).to_sparse(), torch.zeros(2, device="meta"), torch.zeros(2, dtype=torch.float8_e5m2))
PLAIN = tuple(value for value in ODD if not isinstance(value, torch.Tensor) and value != {1: 2})
DENSE = tuple(value for value in ODD if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta)
Target = Callable[[random.Random], None]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with some bits flipped, parts cut, repeated, moved, or replaced."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if not out:
            break
        at, length = rng.randrange(len(out)), rng.choice((1, 2, 4, 16, 256))
        kind = rng.randrange(6)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at:at + length] = rng.randbytes(length)
        elif kind == 2:
            del out[at:at + length]
        elif kind == 3:
            out[at:at] = out[at:at + length] * rng.choice((1, 3, 50))
        elif kind == 4:
            out[at:at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
        else:
            del out[at:]
    return bytes(out)


def changed(tree: object, rng: random.Random, values: tuple) -> object:
    """Return a copy of nested dictionaries and lists in which one to three values are replaced, removed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:                    # everything has been removed
            break
        parent, key = rng.choice(places)
        kind = rng.randrange(4)
        if kind == 0 and isinstance(parent, dict):
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(("x", "../x", "log", "0", "width"))] = copy.deepcopy(rng.choice(values))
        else:
            parent[key] = copy.deepcopy(rng.choice(values))
    return tree


def _places(tree: object) -> Iterator[tuple]:
    """Yield (container, key) of every value; of long lists only the first ones."""
    pairs = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree))[:20] if isinstance(tree, list) else []
    for key, value in pairs:
        yield tree, key
        yield from _places(value)


def images() -> Target:
    """Return the target that reads damaged images of all formats."""
    wholes = []
    turned = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"           # the EXIF orientation 6
    for kind, options in (("PNG", {}), ("JPEG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {}), ("WEBP", {}),
                          ("GIF", {})):
        for mode in ("RGB", "L", "P", "RGBA") if kind == "PNG" else ("RGB",):
            buffer = io.BytesIO()
            Image.fromarray(photo(24, 20, 1)).convert(mode).save(buffer, kind, exif=turned, **options)
            wholes.append(buffer.getvalue())

    def target(rng: random.Random) -> None:
        path = Path(f"x{rng.choice(('.png', '.jpg', '.tif', '.webp'))}")
        path.write_bytes(damaged(rng.choice(wholes), rng))
        height, width = image.size(path)
        assert image.read(path).shape == (height, width, 3)
    return target


def model_files() -> Target:
    """Return the target that loads damaged model files, of this program and released ones."""
    contents = []
    for name in ("dncnn", "nafnet", "smgarn", "sapnet", "rain2avoid"):
        tiny = {"nafnet": ["--blocks", "1/1/1"], "sapnet": ["--channels", "16"]}.get(name, [])
        args = option.parse(["--model", name, "--data_train", "x", "--channels", "4", *tiny])
        contents.append(weights.model_content(build(args), args, {"epoch": 1, "data_train": "x"}))

    def target(rng: random.Random) -> None:
        content, path, kind = rng.choice(contents), Path("w.pt"), rng.random()
        typed = {}
        if kind < 0.3:
            files.write_tensors(path, changed(content, rng, ODD))
        elif kind < 0.6:
            files.write_tensors(path, content)
            path.write_bytes(damaged(path.read_bytes(), rng))
        else:
            path.write_bytes(odd_safetensors(content, rng))
            typed = rng.choice(({}, {"model": content["model"], **content["arguments"]}))
        weights.forget()
        weights.load(path, typed)
    return target


def odd_safetensors(content: dict, rng: random.Random) -> bytes:
    """Return a safetensors file with odd arguments, tensors or header, or damaged; with this program's texts or without."""
    content, kind = content | {"names": rng.choice(("own", "released", "x"))}, rng.randrange(4)
    if kind == 0:
        content |= {key: changed(content[key], rng, PLAIN) for key in safetensors.JSON}
    elif kind == 1:
        content |= {"state": content["state"] | {rng.choice(list(content["state"])): rng.choice(DENSE)}}
    data = safetensors.encoded(content)
    if kind == 2:
        return damaged(data, rng)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    if rng.random() < 0.4:
        del header["__metadata__"]
    text = json.dumps(changed(header, rng, PLAIN) if kind == 3 else header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data[8 + length:]


def states() -> Target:
    """Return the target that reads damaged states."""
    unpack(Path(__file__).parent / "stored/0.1.0/state.pt.xz", "whole.pt")
    whole = files.read_tensors("whole.pt")

    def target(rng: random.Random) -> None:
        path = Path("s.pt")
        if rng.random() < 0.7:
            files.write_tensors(path, changed(whole, rng, ODD))
        else:
            path.write_bytes(damaged(Path("whole.pt").read_bytes(), rng))
        experiment.read_state(path)
    return target


def cards() -> dict:
    """Return the cards of two images, as a test writes them."""
    album = report.Album("set", 2, option.parse(["--data_train", "x", "--report", "--save_results"]))
    for name, numbers in (("a", {"psnr": 30.0, "input_psnr": 29.0, "ssim": 0.9}), ("b", {})):
        x = image.to_tensor(photo(24, 20, 1))[None]
        album.add(name, x, x, x if numbers else None, numbers, Path("b.png"))
    album.write(Path(), {"name": "default", "version": 1})
    return json.loads(Path("cards-set.json").read_text())


def reports() -> Target:
    """Return the target that builds the result page from damaged files."""
    entry = {"psnr": 30.0, "ssim": 0.9, "input_psnr": 20.0, "input_ssim": 0.5, "count": 1, "data_set": "set", "channel": "rgb",
             "others": [], "interval95": {"psnr": [29.0, 31.0]}, "protocol": {"name": "default", "version": 1, "border": 0},
             "model": "smgarn", "precision": "single", "subset": "all", "tile": None,
             "weights": "w.pt", "parameters": 5, "benchmarks": {"AIO3": "Rain100L"}}
    session = {"event": "session", "time": "t", "device": "CPU", "processor": "p", "versions": "v", "trains": True}
    known = {"metrics.json": {"set": entry}, "args.json": {"model": "smgarn", "save": "x", "epochs": 3},
             "cards-set.json": cards(),
             "log.jsonl": [{"event": "epoch", "epoch": 1, "lr": 0.1, "losses": {"loss": 1.0}}, {"event": "test", "epoch": 1, **entry},
                           {"event": "test", "epoch": None, **entry}, {"event": "best", "weights": "w.pt", "chosen": "epoch 1"}],
             "times.jsonl": [session, {"event": "epoch", "epoch": 1, "seconds": 2.0},
                             {"event": "test", "epoch": None, "data_set": "set", "seconds": 1.0}]}

    def target(rng: random.Random) -> None:
        folder = files.make_folder(Path("x"))
        for name, content in known.items():
            if rng.random() < 0.5:
                content = changed(content, rng, PLAIN)
            lines = content if name.endswith("l") and isinstance(content, list) else [content]
            data = "\n".join(map(json.dumps, lines)).encode("utf-8", "surrogatepass")
            (folder / name).write_bytes(damaged(data, rng) if rng.random() < 0.4 else data)
        report.write(folder)
    return target


TARGETS = {"image": images, "weights": model_files, "state": states, "report": reports}


def tried(target: Target, seed: int) -> str:
    """Return '' if a target accepts or refuses the input of a seed, else the traceback."""
    signal.alarm(LIMIT)
    try:
        target(random.Random(seed))
    except UserError as error:
        return "" if "\n" not in str(error) and len(str(error)) < 2000 else f"the message is not one sentence: {str(error)[:300]!r}"
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return ""


def too_slow(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {LIMIT} seconds")


def main() -> int:
    """Run one target; return 1 if an input led to anything but a result or a UserError."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1, help="seed of the first input; each next input has the next seed")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, too_slow)
    end, seed, bad = time.monotonic() + 60 * args.minutes, args.seed, 0
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        target = TARGETS[args.target]()
        while seed == args.seed or time.monotonic() < end:
            if trouble := tried(target, seed):
                bad += 1
                print(f"seed {seed}: {trouble}", flush=True)
            seed += 1
        os.chdir("/")
    print(f"{args.target}: {seed - args.seed} inputs from seed {args.seed}, {bad} not expected")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
