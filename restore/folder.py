"""Folders of images without ground truth: reads, restores and writes in parallel, and continues after an interruption."""
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

import report
from contract import Item, TestSet
from data import headers, image, source
from data.loader import picture_loader
from model.method import Method
from restore import outputs, written
from restore.restorer import Restorer
from runtime import files, memory, process
from runtime.errors import Interrupted, UserError
from runtime.files import natural
from runtime.progress import Progress

BATCH = {"cpu": 2**18, "cuda": 2**20}     # maximum pixels of a batch of several images
MAX_IMAGES = 64                           # maximum number of images in a batch
LARGE = 2**23                             # pixels; with larger batches each worker process reads only one batch ahead
WRITERS, MAX_QUEUED = 4, 2**26            # number of writing threads, and maximum pixels in their queue
BROWSERS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}       # the formats that browsers show


class SizedBatch(NamedTuple):
    """A batch of images of one size: pixels per image, and the indices of the images."""
    pixels: int
    indices: list[int]


class Work(NamedTuple):
    """Images of one size that were read: the name of their set, their items, (B, H, W, 3) uint8, the folder for the results, and the
    folder for all other files."""
    name: str
    items: list[Item]
    pixels: Tensor
    results: Path
    folder: Path


class Plan(NamedTuple):
    """The batches to restore, large ones first; the indices of images whose results are kept; the errors of unreadable images."""
    batches: list[SizedBatch]
    kept: list[int]
    trouble: list[str]


def restore_folder(restorer: Restorer, name: str, images: TestSet, args, folder: Path, weights: str) -> tuple[list, dict | None, list]:
    """Restore a set without targets, save the results that the flags select, and write its report cards.

    Return the rows (item name, {}) of all processes, sorted; how images were tiled automatically (None: none were, or --chop
    is set); and one sentence for each image that could not be restored.
    """
    items, results = images.items, outputs.results_folder(folder, name, images)
    album = report.Album(name, len(items), args, ending=args.format, results=results)
    plan = process.gather([_plan(name, images, args, folder, weights)] if process.rank() == 0 else [])[0]
    if plan.kept:
        process.log().say(f"{name}: {len(plan.kept)} of {len(items)} images are already restored and kept (--no-skip_done restores all)")
    for index in plan.kept[process.rank()::process.world()]:
        _show(album, items[index], outputs.result_path(results, items[index].name, args.format), folder)
    rows, trouble = [], []
    batches = plan.batches[process.rank()::process.world()]
    ahead = 1 if any(batch.pixels > LARGE for batch in batches) else 2
    loader = picture_loader(items, [batch.indices for batch in batches], args.n_threads, ahead)
    count = sum(len(batch.indices) for batch in batches)
    total = sum(batch.pixels * len(batch.indices) for batch in batches)
    with Progress(f"restore {name}", count, "images", total) as progress, Writer() as writer:
        restorer.progress = progress.tiles
        for batch, read in zip(batches, loader):
            if process.asked_to_end():
                raise Interrupted
            trouble += read.trouble
            progress.begin(batch.pixels * len(batch.indices))
            if read.indices:
                work = Work(name, [items[index] for index in read.indices], read.pixels, results, folder)
                rows += _batch(restorer, work, album, writer, args)
            progress.end(len(batch.indices))
            del read                      # a large image is freed before the next one is loaded
    album.write(folder, {})
    rows = process.gather(rows) + [items[index].name for index in plan.kept]
    trouble = plan.trouble + process.gather(trouble)
    notes, sides = process.gather(restorer.notes), process.gather(restorer.tiled)
    for text in [*dict.fromkeys(note for note in notes if note not in restorer.notes), *(f"not restored: {text}" for text in trouble)]:
        process.log().say(text)
    tiles = {"tile": max(sides), "tile_overlap": args.tile_overlap, "in_tiles": len(sides)} if sides and not args.chop else None
    return [(row, {}) for row in sorted(rows, key=natural)], tiles, trouble


def _batch(restorer: Restorer, work: Work, album: report.Album, writer: "Writer", args) -> list[str]:
    """Restore images of one size, queue the results for writing, add report cards; return the names."""
    x = work.pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)
    output = restorer(x, name=f"{work.items[0].name} of {work.name}")
    for number, item in enumerate(work.items):
        before, after = x[number:number + 1], output[number:number + 1]
        if album.seen == 0 and process.rank() == 0:
            process.log().tell("example", epoch=None, data_set=work.name, parts={"input": before, "result": after})
        if args.save_results or args.save_gt:
            _write(writer, work, item, work.pixels[number].numpy(), image.to_array(after[0]), args)
        if not album.passes():
            album.add(item.name, before, after, None, {}, _shown_file(work.folder, work.name, item) if args.save_results else None)
        if args.save_maps:
            _maps(restorer.method, before, work.name, item, args, work.folder)
    return [item.name for item in work.items]


def _write(writer: "Writer", work: Work, item: Item, before: np.ndarray, after: np.ndarray, args) -> None:
    """Queue a restored image, and for --save_gt the sheet of input and result, for writing."""
    count = after.shape[0] * after.shape[1]
    if args.save_results:
        writer.add(lambda: _write_result(work, item, after, args.format), count)
        shown = _shown_file(work.folder, work.name, item)
        if args.report and shown != _file(item):
            files.make_folder(shown.parent)
            writer.add(lambda: image.write(shown, before), count)
    if args.save_gt:
        sheet = outputs.sheet_path(work.folder, work.name, item.name)
        files.make_folder(sheet.parent)
        writer.add(lambda: image.write(sheet, np.hstack([before, after])), 2 * count)


def _write_result(work: Work, item: Item, after: np.ndarray, ending: str) -> None:
    path, file = outputs.result_path(work.results, item.name, ending), _file(item)
    with written.result(work.folder, work.name, path, item.name, file.name) as part:
        image.write(part, after, image.extras(file))


def _shown_file(folder: Path, name: str, item: Item) -> Path:
    """Return the file of the unrestored image in full size for the result page: a copy as PNG if browsers do not show its format."""
    path = _file(item)
    return path if path.suffix.lower() in BROWSERS else outputs.before_path(folder, name, item.name)


class Writer:
    """Writes images in several threads while the next images are restored."""

    def __init__(self):
        self.pool = ThreadPoolExecutor(WRITERS)
        self.waiting: deque[tuple[Future, int]] = deque()
        self.pixels = 0

    def __enter__(self) -> "Writer":
        return self

    def add(self, work: Callable[[], None], pixels: int) -> None:
        """Queue a write of `pixels` pixels; block while the queue is full, and re-raise write errors."""
        while self.waiting and self.pixels + pixels > MAX_QUEUED:
            self._wait()
        self.waiting.append((self.pool.submit(work), pixels))
        self.pixels += pixels

    def _wait(self) -> None:
        future, pixels = self.waiting.popleft()
        self.pixels -= pixels
        future.result()

    def __exit__(self, kind, error, trace) -> None:
        try:
            while self.waiting and not kind:
                self._wait()
        finally:
            self.pool.shutdown(cancel_futures=True)


def _plan(name: str, images: TestSet, args, folder: Path, weights: str) -> Plan:
    """Select the results to keep, delete other results of an earlier test, and group the remaining images into batches.

    A result is kept if it is newer than its image and the weights file and was made with the same flags.
    """
    items, kept, results = images.items, [], outputs.results_folder(folder, name, images)
    flags = outputs.conditions(images, args, weights)
    before = outputs.earlier(folder, name, images)
    same = outputs.record(folder, name).get("flags") == flags
    if args.skip_done and args.save_results and not args.save_gt and not args.save_maps and same:
        kept = [index for index, item in enumerate(items) if outputs.is_done(
            before.get(item.name), item, outputs.result_path(results, item.name, args.format), weights)]
    outputs.begin(folder, name, args, images, flags, {items[index].name for index in kept})
    groups: dict[tuple[int, int], list[int]] = {}
    trouble = []
    left = sorted(set(range(len(items))) - set(kept))
    headers.scan(str(_file(items[index])) for index in left)
    for index in left:
        try:
            size = source.size(items[index].images["input"])
            image.check_side(outputs.result_path(results, items[index].name, args.format), max(size))
        except UserError as error:
            trouble.append(str(error))
        else:
            groups.setdefault(size, []).append(index)
    batches = []
    for (height, width), group in groups.items():
        most = max(min(BATCH[process.device().type] // (height * width), MAX_IMAGES, -(-len(group) // process.world())), 1)
        batches += [SizedBatch(height * width, group[start:start + most]) for start in range(0, len(group), most)]
    return Plan(sorted(batches, key=lambda batch: batch.pixels * len(batch.indices), reverse=True), kept, trouble)


def _file(item: Item) -> Path:
    path = source.path_of(item.images["input"])
    assert path                           # the images of a folder are files
    return path


def _show(album: report.Album, item: Item, result: Path, folder: Path) -> None:
    """Add the report card of an image that was restored earlier."""
    if not album.passes():
        with contextlib.suppress(UserError):
            before, after = (image.to_tensor(image.read(path))[None] for path in (_file(item), result))
            album.add(item.name, before, after, None, {}, _shown_file(folder, album.name, item))


def _maps(method: Method, x: Tensor, name: str, item: Item, args, folder: Path) -> None:
    """Save the maps of an image (1, 3, H, W); if the memory is too small for the whole image, log it and save none."""
    try:
        outputs.save_maps(method, x, name, item.name, args, folder)
    except (MemoryError, RuntimeError) as error:
        if not memory.lacks(error):
            raise
        process.log().say(f"no maps are saved of {item.name}: the memory is too small for the whole image")
