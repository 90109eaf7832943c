"""Testing: restores whole images, measures those that have a target, and saves the results."""
import json
import time
from pathlib import Path

import torch
from torch import Tensor

import metric
import report
from contract import Batch, Item, Numbers, Outcome, TestSet
from data import added, benchmarks, image, loader, source
from data.pictures import is_video
from metric import summary
from model.method import Method
from restore import clean, outputs
from restore.folder import restore_folder
from restore.restorer import Finish, Restorer, Settings
from restore.video import restore_video
from runtime import files, process
from runtime.errors import Failure, Interrupted, UserError
from runtime.files import natural
from runtime.progress import Progress


def test(method: Method, sets: dict[str, TestSet], args, folder: Path, weights: str, epoch: int | None = None,
         finish: Finish | None = None) -> dict[str, dict]:
    """Restore the test sets and return the numbers of each set by name; `weights` describes the weights that are tested.

    Without `epoch` the test is final: metrics.json and, depending on the flags, the images are written to `folder`, and sets
    without targets are restored by restore/folder.py. finish: see contract.Run. Raises UserError if images could not be
    restored, after all other images have been restored.
    """
    results: dict[str, dict] = {}
    trouble: list[str] = []
    count = sum(parameter.numel() for parameter in method.network.parameters())
    settings = Settings.of(args) if epoch is None else Settings.of(args)._replace(backend="torch")       # weights change during a training
    for given, images in sets.items():
        name = outputs.name_for(folder, given, images.source) if epoch is None else given
        if name != given:
            process.log().say(f"{folder} has results of another folder or data set named {given}; those of "
                              f"{images.source or 'the data set'} are named {name}")
        start = time.perf_counter()
        further: dict[str, object] = {} if epoch is not None else {**benchmarks.belonging(given, args.data_test, args.dir_data)}
        restorer = Restorer(method, settings, finish)
        further |= {"backend": restorer.backend.name} if restorer.backend.name != "torch" else {}
        further |= {"precision": restorer.backend.precision} if restorer.backend.precision else {}
        if epoch is None and is_video(images.source):
            rows, about = restore_video(restorer, name, images, args, folder, weights)
            further |= about
        elif epoch is None and not any("image" in item.images for item in images.items):
            rows, tiles, bad = restore_folder(restorer, name, images, args, folder, weights)
            further, trouble = further | (tiles or {}), trouble + bad
        else:
            rows = _rows(restorer, name, images, args, folder, epoch)
            further |= {"clean": clean.changes(restorer, name, images, args)} if epoch is None and args.do_no_harm else {}
        results[name] = _summarise(name, rows, images.task, images.subset, args, folder, weights, count, epoch,
                                   time.perf_counter() - start, further)
        _write(results, args, folder, epoch)
    _log_benchmarks(results)
    if trouble:
        raise UserError(_incomplete(trouble, sum(len(each.items) for each in sets.values()), folder))
    return results


def _incomplete(trouble: list[str], count: int, folder: Path) -> str:
    """Return one sentence about the images of `count` that could not be restored; `trouble` has a sentence for each."""
    failed, rest = len(trouble), count - len(trouble)
    others = {0: "", 1: "; the other one was restored"}.get(rest, f"; the other {rest} were restored")
    more = {1: "", 2: f"; one more is listed in {folder / 'log.txt'}"}.get(
        failed, f"; {failed - 1} more are listed in {folder / 'log.txt'}")
    what = "the image" if count == 1 else f"{failed} of {count} images"
    return f"{what} could not be restored{others}: {trouble[0]}{more}"


def judge(results: dict[str, dict], best: str, loss: float, blind_epoch: int = 0) -> tuple[float, str]:
    """Return the score of a tested epoch, of which the highest one is the best, and the number behind it in words.

    It is the number that --best names, or the training loss if no test set has it. If the targets must not select the weights,
    `blind_epoch` is the number of the epoch, and the last one is the best.
    """
    if blind_epoch:
        return blind_epoch, "the last tested one"
    found = metric.score(results, best)
    return (-loss, f"training loss {loss:.4g}") if found is None else (found, metric.stated(results, best))


def conclude(outcomes: list[Outcome], args, folder: Path) -> None:
    """Log the results that runs computed themselves, and write their tables and cards; outcomes of one data set are joined."""
    joined: dict[str, Outcome] = {}
    for outcome in outcomes:
        earlier = joined[outcome.data_set].rows if outcome.data_set in joined else []
        joined[outcome.data_set] = outcome._replace(rows=sorted(earlier + outcome.rows, key=lambda row: natural(row[0].name)))
    results = {}
    for name, (_, task, subset, rows, weights, parameters) in joined.items():
        _show(name, rows, args, folder)
        results[name] = _summarise(name, [(item.name, numbers) for item, numbers in rows], task, subset, args, folder, weights,
                                   parameters, None, None, {**benchmarks.belonging(name, args.data_test, args.dir_data)})
        if args.do_no_harm:
            process.log().say(f"{name}: --do_no_harm does not apply to these results, because the training computed them itself")
    if results:
        _write(results, args, folder, None)
        _log_benchmarks(results)


def _log_benchmarks(results: dict[str, dict]) -> None:
    """Log a table of each benchmark that the results belong to, with the published rows."""
    for table in benchmarks.tables(results):
        for line in benchmarks.in_words(table):
            process.log().say(line)
        for row in table.rows:
            if not row.published:
                psnr, ssim = row.cells[-1]
                process.log().record("benchmark", name=table.benchmark, protocol=table.protocol, psnr=psnr, ssim=ssim,
                                     over=row.over or "all")


def _show(name: str, rows: list[tuple[Item, Numbers]], args, folder: Path) -> None:
    """Write the report cards of results that are stored in files."""
    first = args.protocol[0]
    album = report.Album(name, len(rows), args)
    for item, numbers in rows[process.rank()::process.world()]:
        x, result, target = (image.to_tensor(source.read(item.images[key]))[None] if key in item.images else None
                             for key in ("input", "result", "image"))
        album.add(item.name, x, result, target, numbers.get(first.name, {}))
    album.write(folder, first.settings() if any(numbers for _, numbers in rows) else {})


def _write(results: dict[str, dict], args, folder: Path, epoch: int | None) -> None:
    """Add the results of a final test to metrics.json and write the result page."""
    if epoch is None and process.rank() == 0:
        path = folder / "metrics.json"
        files.write_json(path, _known(path) | results)
        if args.report:
            report.write(folder)


def _known(path: Path) -> dict:
    """Return the numbers of data sets tested earlier, {} if the file is missing or damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _rows(restorer: Restorer, name: str, images: TestSet, args, folder: Path, epoch: int | None) -> list[tuple[str, Numbers]]:
    """Restore a set image by image; return (image name, numbers) from all processes, sorted by name.

    Raises Failure in all processes if an output is not finite.
    """
    rows: list[tuple[str, Numbers]] = []
    failed: list[str] = []
    album = report.Album(name, len(images.items), args, final=epoch is None)
    dataset = loader.Images(images.items, ("image",), images.read)
    batches = loader.test_loader(dataset, args.n_threads, process.rank(), process.world())
    if epoch is None:
        outputs.begin(folder, name, args, images)
        process.barrier()
    progress = Progress(f"test {name}", len(batches), "images")
    restorer.progress = progress.tiles
    for batch in progress.each(batches):
        if process.asked_to_end():
            raise Interrupted
        numbers: Numbers = {}
        for size, group in _by_size(args.protocol).items():
            sized = Batch(batch.name, group[0].fit(batch.input), {key: group[0].fit(x) for key, x in batch.targets.items()}, batch.kind)
            try:
                output = restorer(sized.input, may_tile=False, name=f"{batch.name[0]} of {name}")
            except Failure as error:
                failed.append(str(error))
                break
            first = size == args.protocol[0].size
            x, target = sized.input.to(output.device), sized.targets["image"].to(output.device) if "image" in sized.targets else None
            if not rows and first:
                truth = {} if target is None else {"truth": target}
                process.log().tell("example", epoch=epoch, data_set=name, parts={"input": x, "result": output, **truth})
            if target is not None:
                numbers |= _measured(x, output, target, group, images.task, args, epoch)
            if epoch is None and first:
                outputs.save_images(name, sized, output, args, folder)
                album.add(batch.name[0], x, output, target, numbers.get(args.protocol[0].name, {}))
                if args.save_maps:
                    outputs.save_maps(restorer.method, x, name, batch.name[0], args, folder)
        if failed:
            break
        rows.append((batch.name[0], numbers))
    failed = process.gather(failed)
    if failed:
        raise Failure(failed[0])
    rows = sorted(process.gather(rows), key=lambda row: natural(row[0]))
    if epoch is None:
        album.write(folder, args.protocol[0].settings() if any(numbers for _, numbers in rows) else {})
    return rows


@torch.inference_mode()
def _measured(x: Tensor, output: Tensor, target: Tensor, protocols: list[metric.Protocol], task: str, args, epoch: int | None) -> Numbers:
    """Return an image's numbers by protocol; a final test also measures the input, as input_<metric>."""
    numbers = {}
    for protocol in protocols:
        row = metric.compare(output, target, protocol, task, args.metrics)
        before = metric.compare(x, target, protocol, task) if epoch is None else {}
        numbers[protocol.name] = row | {f"input_{key}": value for key, value in before.items()}
    return numbers


def _summarise(name: str, rows: list[tuple[str, Numbers]], task: str, subset: str, args, folder: Path, weights: str, parameters: int,
               epoch: int | None, seconds: float | None, further: dict) -> dict:
    """Log the summary of a set, write its table, and return its numbers; `further` holds entries that are added to them."""
    scored = {protocol.name: [numbers[protocol.name] for _, numbers in rows if numbers] for protocol in args.protocol}
    measured = [{**summary.summarise(scored[protocol.name]), "protocol": protocol.settings(),
                 "channel": metric.resolved(protocol.channels[0], task)}
                for protocol in args.protocol if scored[protocol.name]]
    first, others = (measured[0], measured[1:]) if measured else ({}, [])
    result = {"data_set": name, "count": len(rows), "subset": subset, **first, "others": others,
              "precision": args.test_precision, "tile": args.tile if args.chop else None,
              "tile_overlap": args.tile_overlap if args.chop else None, "self_ensemble": args.self_ensemble,
              "model": args.model, "parameters": parameters, "weights": weights, **added.stated(name), **further}
    if epoch is None and process.rank() == 0 and any(scored.values()):
        summary.write_table(folder / f"metrics-{name}.csv", [row[0] for row in rows], scored)
    process.log().record("test", epoch=epoch, **result)
    if seconds is not None:
        process.log().time("test", epoch=epoch, data_set=name, seconds=round(seconds, 3))
    _log_numbers(result, measured, args.metrics, "" if seconds is None else f", {seconds:.1f} s")
    return result


def _by_size(protocols: list[metric.Protocol]) -> dict[str, list[metric.Protocol]]:
    """Return the protocols grouped by their size policy; each group needs one pass through the network."""
    groups: dict[str, list[metric.Protocol]] = {}
    for protocol in protocols:
        groups.setdefault(protocol.size, []).append(protocol)
    return groups


def _log_numbers(result: dict, measured: list[dict], further: tuple[str, ...], aside: str) -> None:
    """Log the numbers of a set, one line per protocol, with how they were measured; `aside` is printed but not written to log.txt."""
    say, name = process.log().say, f"{result['data_set']}: {result['count']} {result.get('unit', 'images')}"
    if result["subset"] != "all":
        name += f" ({result['subset']})"
    some = f"{result['in_tiles']} of them in " if "in_tiles" in result else ""
    by = ", ".join(result[key] for key in ("precision", "backend") if key in result)
    how = (f"{by}, {some + 'tiles of ' + str(result['tile']) if result['tile'] else 'whole images'}"
           f"{', x8' if result['self_ensemble'] else ''}{''.join('; ' + result[key] for key in ('noise', 'degradation') if key in result)}")
    for numbers in measured:
        if "psnr" in numbers:
            say(f"{name}, {in_words(numbers, further)}; {how}]", aside)
    if "psnr" not in result:
        say(f"{name}, restored, no ground truth [{how}]", aside)
    for text in clean.in_words(result["data_set"], result["clean"]) if "clean" in result else ():
        say(text)


def in_words(numbers: dict, further: tuple[str, ...] = ()) -> str:
    """Return the numbers of one protocol, and further metrics by name, as text that ends inside an open bracket: `PSNR … [protocol …`."""
    low, high = numbers["interval95"]["psnr"]
    text = f"PSNR {numbers['psnr']:.2f} dB ({low:.2f} to {high:.2f}), SSIM {numbers['ssim']:.4f} ({numbers['channel'].upper()})"
    if "psnr_y" in numbers:
        text += f"; {numbers['psnr_y']:.2f} dB, {numbers['ssim_y']:.4f} (Y)"
    text += "".join(f"; {name} {numbers[name]:.4f}" for name in further if name in numbers)
    # the degraded images; for self-supervised methods also the mean reference and the network's output before clean pixels are kept
    for other in ("input", "fused", "network"):
        if f"{other}_psnr" in numbers:
            text += f"; {other} {numbers[f'{other}_psnr']:.2f} dB, {numbers[f'{other}_ssim']:.4f}"
            if f"{other}_psnr_y" in numbers:
                text += f" (Y {numbers[f'{other}_psnr_y']:.2f} dB, {numbers[f'{other}_ssim_y']:.4f})"
    protocol = metric.PROTOCOLS[numbers["protocol"]["name"]]
    return f"{text} [protocol {protocol.name} {metric.described(protocol)}"
