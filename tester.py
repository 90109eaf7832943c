"""Testing: restore whole images, measure them where there is truth, save them."""
import json
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

import metric
import report
from contract import Batch
from metric import summary
from model import tiling
from model.method import Method
from restore import outputs
from restore.folder import restore_folder
from runtime import files, process
from runtime.errors import Failure, Interrupted, UserError
from utility import natural


@torch.inference_mode()
def evaluate(method: Method, sets: dict[str, DataLoader], args, folder: Path, weights: str, epoch: int | None = None) -> dict[str, dict]:
    """Restore the test sets and return their numbers by name; `weights` says what was tested.

    Without an epoch the test is a final one: metrics.json and, as the flags say, the images are written to `folder`; sets
    without truth are then restored by folders.py. UserError, after all is done, for pictures that could not be restored.
    """
    method.eval()
    results, trouble = {}, []
    for name, loader in sets.items():
        start, tiles = time.perf_counter(), None
        if epoch is None and not any("image" in item.images for item in loader.dataset.items):
            rows, tiles, bad = restore_folder(method, name, loader.dataset.items, args, folder, weights)
            trouble += bad
        else:
            rows = _rows(method, name, loader, args, folder, epoch)
        count = sum(parameter.numel() for parameter in method.network.parameters())
        results |= conclude({name: (rows, loader.dataset.task, loader.dataset.subset)}, args, folder, weights, count, epoch,
                            time.perf_counter() - start, tiles)
    if trouble:
        more = f"; {len(trouble) - 1} more are named in {folder / 'log.txt'}" if len(trouble) > 1 else ""
        raise UserError(f"{len(trouble)} of {sum(map(len, (each.dataset for each in sets.values())))} pictures could not be restored, "
                        f"all others were: {trouble[0]}{more}")
    return results


def conclude(sets: dict[str, tuple[list, str, str]], args, folder: Path, weights: str, parameters: int,
             epoch: int | None = None, seconds: float | None = None, tiles: dict | None = None) -> dict[str, dict]:
    """Say what sets came to, write it down, and return their numbers by name.

    sets: for each its rows (image, numbers by protocol: {} without truth), its task and which part of it was tested.
    `parameters` is how many the network has; tiles: how sets without truth were tiled, where not as --chop says.
    """
    results = {name: _concluded(name, *known, args, folder, weights, parameters, epoch, seconds, tiles or {})
               for name, known in sets.items()}
    if epoch is None and process.rank() == 0:
        path = folder / "metrics.json"
        files.write_json(path, _known(path) | results)
        if args.report:
            report.write(folder)
    return results


def _known(path: Path) -> dict:
    """Return the numbers of data sets tested before, {} where the file is missing or damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _rows(method: Method, name: str, loader: DataLoader, args, folder: Path, epoch: int | None) -> list[tuple[str, dict]]:
    """Restore a set; return its images' numbers by protocol, from all processes, sorted by name."""
    rows, images = [], loader.dataset
    album = report.Album(name, len(images), args, final=epoch is None)
    if epoch is None:
        outputs.clear(folder, name, args)
        process.barrier()
    for batch in tqdm(loader, f"test {name}", unit="image", disable=process.quiet(), leave=False):
        if process.asked_to_end():
            raise Interrupted
        numbers = {}
        for size, group in _by_size(args.protocols).items():
            sized = Batch(batch.name, group[0].fit(batch.input), {key: group[0].fit(x) for key, x in batch.targets.items()}, batch.kind)
            x = sized.input.to(process.device())
            output = restore_as_told(method, x, args)
            if not output.isfinite().all():
                raise Failure(f"the network's output for {batch.name[0]} of {name} is not finite in the precision "
                              f"{args.test_precision}; the weights are bad, or --test_precision single would do")
            target = sized.targets["image"].to(x.device) if "image" in sized.targets else None
            if not rows and size == args.protocols[0].size:
                truth = {} if target is None else {"truth": target}
                process.log().tell("example", epoch=epoch, data_set=name, parts={"input": x, "result": output, **truth})
            if target is not None:
                for protocol in group:
                    row = metric.compare(output, target, protocol, images.task, args.extra_metrics)
                    before = metric.compare(x, target, protocol, images.task) if epoch is None else {}
                    numbers[protocol.name] = row | {f"input_{key}": value for key, value in before.items()}
            if epoch is None and size == args.protocols[0].size:
                outputs.save_images(name, sized, output, args, folder)
                album.add(sized.name[0], x, output, target, numbers.get(args.protocols[0].name, {}))
                if args.save_maps:
                    outputs.save_maps(name, sized.name[0], method, x, args, folder)
        rows.append((batch.name[0], numbers))
    rows = sorted(process.gather(rows), key=lambda row: natural(row[0]))
    if epoch is None:
        album.write(folder, args.protocols[0].settings() if any(numbers for _, numbers in rows) else {})
    return rows


def _concluded(name: str, rows: list[tuple[str, dict]], task: str, subset: str, args, folder: Path, weights: str, parameters: int,
               epoch: int | None, seconds: float | None, tiles: dict) -> dict:
    """Say what a set came to, write its table, and return its numbers."""
    scored = {protocol.name: [numbers[protocol.name] for _, numbers in rows if numbers] for protocol in args.protocols}
    measured = [{**summary.summarise(scored[protocol.name]), "protocol": protocol.settings(),
                 "channel": metric.resolved(protocol.channels[0], task)}
                for protocol in args.protocols if scored[protocol.name]]
    first, others = (measured[0], measured[1:]) if measured else ({}, [])
    result = {"data_set": name, "count": len(rows), "subset": subset, **first, "others": others,
              "precision": args.test_precision, "tile": args.tile if args.chop else None,
              "tile_overlap": args.tile_overlap if args.chop else None, "self_ensemble": args.self_ensemble,
              "model": args.model, "parameters": parameters, "weights": weights, **tiles}
    if epoch is None and process.rank() == 0 and any(scored.values()):
        summary.write_table(folder / f"metrics-{name}.csv", [row[0] for row in rows], scored)
    process.log().record("test", epoch=epoch, **result)
    if seconds is not None:
        process.log().time("test", epoch=epoch, data_set=name, seconds=round(seconds, 3))
    _say(result, measured, "" if seconds is None else f", {seconds:.1f} s")
    return result


def _by_size(protocols: list[metric.Protocol]) -> dict[str, list[metric.Protocol]]:
    """Return the protocols grouped by their size policy: each group needs one pass through the network."""
    groups: dict[str, list[metric.Protocol]] = {}
    for protocol in protocols:
        groups.setdefault(protocol.size, []).append(protocol)
    return groups


def restore_as_told(method: Method, x: Tensor, args) -> Tensor:
    """Return the restored (1, 3, H, W) of any size, in the precision, tiles and self-ensemble that the flags ask for."""
    fn = method.restore
    if args.chop:
        fn = partial(tiling.tiled, fn=fn, tile=args.tile, overlap=args.tile_overlap)
    with process.autocast(args.test_precision), process.exact_convolutions():
        return (tiling.ensemble(x, fn) if args.self_ensemble else fn(x)).float()


def _say(result: dict, measured: list[dict], aside: str) -> None:
    """Put the numbers of a set into the log, a line per protocol, each with how it was measured; print what is said aside, too."""
    say, name = process.log().say, f"{result['data_set']}: {result['count']} images"
    if result["subset"] != "all":
        name += f" ({result['subset']})"
    some = f"{result['in_tiles']} of them in " if "in_tiles" in result else ""
    how = (f"{result['precision']}, {some + 'tiles of ' + str(result['tile']) if result['tile'] else 'whole images'}"
           f"{', x8' if result['self_ensemble'] else ''}")
    for numbers in measured:
        if "psnr" in numbers:
            say(f"{name}, {in_words(numbers)}; {how}]", aside)
    if "psnr" not in result:
        say(f"{name}, restored without truth [{how}]", aside)


def in_words(numbers: dict) -> str:
    """Return the numbers of one protocol with what they mean, up to an open bracket: `PSNR … [protocol …`."""
    low, high = numbers["interval95"]["psnr"]
    text = f"PSNR {numbers['psnr']:.2f} dB ({low:.2f} to {high:.2f}), SSIM {numbers['ssim']:.4f} ({numbers['channel'].upper()})"
    if "psnr_y" in numbers:
        text += f"; {numbers['psnr_y']:.2f} dB, {numbers['ssim_y']:.4f} (Y)"
    # the degraded images; a self-supervised method's mean reference, and its network's answer before what is clean was kept
    for other in ("input", "fused", "network"):
        if f"{other}_psnr" in numbers:
            text += f"; {other} {numbers[f'{other}_psnr']:.2f} dB, {numbers[f'{other}_ssim']:.4f}"
            if f"{other}_psnr_y" in numbers:
                text += f" (Y {numbers[f'{other}_psnr_y']:.2f} dB, {numbers[f'{other}_ssim_y']:.4f})"
    protocol = metric.PROTOCOLS[numbers["protocol"]["name"]]
    return f"{text} [protocol {protocol.name} {metric.described(protocol)}"
