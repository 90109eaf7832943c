"""Testing: restore whole images, measure them where there is truth, save them."""
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

import metric
import runtime
import utility
from data import image
from data.batch import Batch
from model import restore
from model.method import Method


@torch.inference_mode()
def evaluate(method: Method, sets: dict[str, DataLoader], args, folder: Path, weights: str, epoch: int | None = None) -> dict[str, dict]:
    """Restore the test sets and return their numbers by name; `weights` says what was tested.

    Without an epoch the test is a final one: metrics.json and, as the flags say, the images are written to `folder`.
    """
    method.eval()
    results = {name: _evaluate_set(method, name, loader, args, folder, weights, epoch) for name, loader in sets.items()}
    if epoch is None and runtime.rank() == 0:
        path = folder / "metrics.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        utility.write_json(path, known | results)
    return results


def _evaluate_set(method: Method, name: str, loader: DataLoader, args, folder: Path, weights: str, epoch: int | None) -> dict:
    start, rows = time.perf_counter(), []
    for batch in tqdm(loader, f"test {name}", unit="image", disable=runtime.quiet(), leave=False):
        x = batch.input.to(runtime.device())
        output = restore_as_told(method, x, args)
        row = {}
        if "image" in batch.targets:
            target = batch.targets["image"].to(x.device)
            row = metric.measure(output, target)
            row |= {f"input_{key}": value for key, value in metric.measure(x, target).items()}
        rows.append(row)
        if epoch is None:
            _save_images(name, batch, output, args, folder)
    rows = runtime.gather(rows)
    seconds = time.perf_counter() - start
    result = {"data_set": name, "count": len(rows), **utility.means([row for row in rows if row]),
              "protocol": metric.DEFAULT.settings(), "precision": args.test_precision,
              "tile": args.tile if args.chop else None, "tile_overlap": args.tile_overlap if args.chop else None,
              "self_ensemble": args.self_ensemble, "model": args.model, "weights": weights}
    runtime.log().record("test", epoch=epoch, seconds=round(seconds, 3), **result)
    runtime.log().say(_summary(result, seconds))
    return result


def restore_as_told(method: Method, x: Tensor, args) -> Tensor:
    """Return the restored (1, 3, H, W) of any size, in the precision, tiles and self-ensemble that the flags ask for."""
    fn = method.restore
    if args.chop:
        fn = partial(restore.tiled, fn=fn, tile=args.tile, overlap=args.tile_overlap)
    with runtime.autocast(args.test_precision), runtime.exact_convolutions():
        return (restore.ensemble(x, fn) if args.self_ensemble else fn(x)).float()


def _save_images(name: str, batch: Batch, output: Tensor, args, folder: Path) -> None:
    restored = image.to_array(output[0])
    if args.save_results:
        image.write(utility.folder(folder / f"results-{name}") / f"{batch.name[0]}.png", restored)
    if args.save_gt:
        sides = [image.to_array(batch.input[0]), restored, *(image.to_array(target[0]) for target in batch.targets.values())]
        image.write(utility.folder(folder / f"compare-{name}") / f"{batch.name[0]}.png", np.hstack(sides))


def _summary(result: dict, seconds: float) -> str:
    """Return the line about a tested set: the numbers and how they were measured."""
    text = f"{result['data_set']}: {result['count']} images"
    if "psnr" in result:
        p = result["protocol"]
        text += (f", PSNR {result['psnr']:.2f} dB, SSIM {result['ssim']:.4f} (RGB); {result['psnr_y']:.2f} dB, "
                 f"{result['ssim_y']:.4f} (Y); input {result['input_psnr']:.2f} dB, {result['input_ssim']:.4f} (RGB) "
                 f"[protocol {p['name']} v{p['version']}: rounded to 8 bits, border {p['border']}, SSIM {p['ssim']}; "
                 f"{result['precision']}, {'tiles of ' + str(result['tile']) if result['tile'] else 'whole images'}"
                 f"{', x8' if result['self_ensemble'] else ''}]")
    return f"{text}, {seconds:.1f} s"
