"""python -m tool.measure --input RESTORED --target CLEAN: PSNR and SSIM of a folder of images, by named protocols."""
import argparse
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":                # before torch is imported
    from runtime import waiting
    waiting.before_torch()

import torch
from tqdm import tqdm

import metric
import tester
from data import image
from metric import summary
from runtime import process
from runtime.arguments import Parser
from runtime.errors import UserError
from runtime.files import check_output, make_folder, write_json
from tool import guarded

AHEAD = 4                                 # pairs that are decoded while another pair is measured


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag."""
    parser = Parser(prog="tool.measure", description=__doc__, allow_abbrev=False)
    parser.add_argument("--input", required=True, metavar="DIR", help="folder of the images to measure (restored or degraded)")
    parser.add_argument("--target", required=True, metavar="DIR",
                        help="folder of the clean images, with the same names or norain-N for rain-N")
    parser.add_argument("--protocol", default="default", metavar="A+B", help=f"protocols; known: {', '.join(metric.PROTOCOLS)}")
    parser.add_argument("--metrics", default="", metavar="A+B",
                        help="further measures: ms_ssim, mae, or the name of a measure of the package pyiqa")
    parser.add_argument("--task", default="", choices=("", "rain", "snow", "haze", "noise", "drops"),
                        help="what was removed; some protocols measure rain on Y and other tasks on RGB")
    parser.add_argument("--json", default="", metavar="FILE", help="write means, intervals and settings to this file")
    parser.add_argument("--csv", default="", metavar="FILE", help="write the numbers of every image to this file")
    parser.add_argument("--cpu", action="store_true", help="measure on the CPU even if there is a GPU")
    return parser.parse_args(argv)


def pairs(inputs: Path, targets: Path) -> list[tuple[str, Path, Path]]:
    """Pair the images of two folders by name; UserError when a folder is missing or empty or an input has no partner.

    The partner of an input has the same name, or `norain-` for `rain-`, or the part of the name before the first underscore.
    """
    for folder in (inputs, targets):
        if not folder.is_dir() or not image.listing(folder):
            raise UserError(f"{folder} is not a folder with images")
    clean = {path.stem: path for path in image.listing(targets)}
    found, alone = [], []
    for path in image.listing(inputs):
        names = (path.stem, path.stem.replace("rain-", "norain-"), path.stem.partition("_")[0])
        name = next((name for name in names if name in clean), None)
        found.append((path.stem, path, clean.get(name)))
        alone += [] if name else [path.name]
    if alone:
        raise UserError(f"{len(alone)} of {len(found)} images in {inputs} have no partner in {targets}: "
                        f"{', '.join(alone[:10])}{' and others' if len(alone) > 10 else ''}")
    return found


def read_pair(_: str, path: Path, target: Path) -> list[torch.Tensor]:
    """Return the two images of a pair, (1, 3, H, W) in [0, 1]; UserError when they differ in size."""
    pair = [image.to_tensor(image.read(file))[None] for file in (path, target)]
    if pair[0].shape != pair[1].shape:
        sizes = " and ".join(f"{file} ({x.shape[-1]}x{x.shape[-2]})" for file, x in zip((path, target), pair))
        raise UserError(f"the two images of a pair differ in size: {sizes}")
    return pair


@torch.inference_mode()
def measure(files: list[tuple[str, Path, Path]], protocols: list[metric.Protocol], extra: tuple[str, ...],
            task: str) -> dict[str, list[dict[str, float]]]:
    """Return the numbers of every pair by protocol; the next pairs are decoded in parallel."""
    rows: dict[str, list[dict[str, float]]] = {protocol.name: [] for protocol in protocols}
    with ThreadPoolExecutor(AHEAD) as readers:
        waiting: deque[Future] = deque()
        for number in tqdm(range(len(files)), "measure", unit="image", disable=None, leave=False):
            while len(waiting) < AHEAD and number + len(waiting) < len(files):
                waiting.append(readers.submit(read_pair, *files[number + len(waiting)]))
            pair = [x.to(process.device()) for x in waiting.popleft().result()]
            for protocol in protocols:
                rows[protocol.name].append(metric.compare(*map(protocol.fit, pair), protocol, task, extra))
    return rows


def run(argv: list[str] | None = None) -> None:
    """Measure, print a line for each protocol, and write the files that --json and --csv name."""
    args = arguments(argv)
    protocols, extra = metric.protocols(args.protocol), tuple(filter(None, args.metrics.split("+")))
    for flag, name in (("--json", args.json), ("--csv", args.csv)):
        if name:
            check_output(Path(name), flag)
    files = pairs(Path(args.input), Path(args.target))
    with process.session(args.cpu, 1):
        metric.prepare(extra, process.device())
        rows = measure(files, protocols, extra, args.task)
    results = []
    for protocol in protocols:
        numbers = {"count": len(files), **summary.summarise(rows[protocol.name]), "protocol": protocol.settings(),
                   "channel": metric.resolved(protocol.channels[0], args.task), "task": args.task,
                   "precision": "8-bit pictures", "tile": None}
        results.append(numbers)
        further = "".join(f", {name} {numbers[name]:.4f}" for name in extra)
        print(f"{len(files)} images: {tester.in_words(numbers)}; 8-bit images]{further}")
    if args.json:
        make_folder(Path(args.json).parent)
        write_json(Path(args.json), {"input": args.input, "target": args.target, "results": results})
    if args.csv:
        make_folder(Path(args.csv).parent)
        summary.write_table(Path(args.csv), [name for name, *_ in files], rows)


if __name__ == "__main__":
    sys.exit(guarded("tool.measure", run))
