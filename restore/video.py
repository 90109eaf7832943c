"""Videos: the frames stream through the Restorer; finished parts survive an interruption and are joined at the end."""
import itertools
import json
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import report
from contract import Numbers, TestSet
from data import image
from restore import ffmpeg, outputs, written
from restore.folder import BATCH
from restore.restorer import Restorer
from runtime import files, process, zoo
from runtime.errors import Interrupted, UserError
from runtime.progress import Progress, duration

PART = 32                                 # frames in a file of its own: the most that an interruption costs
SHOWN = 8                                 # frames on the result page
FORMAT = "unweather parts 1"
Rows = list[tuple[str, Numbers]]
Part = tuple[Path, int, int]              # a file with its first frame and the first one after it, from 0


def _ending(source: Path, film: ffmpeg.Film, asked: str) -> str:
    """Return the ending of the result: the one that is asked for, or the first that can hold the sound; raises UserError if none can."""
    wanted = [asked] if asked in ffmpeg.ENDINGS else [*ffmpeg.ENDINGS]
    if found := next((each for each in wanted if ffmpeg.fits(source, film, each)), ""):
        return found
    if others := [each for each in ffmpeg.ENDINGS if each not in wanted and ffmpeg.fits(source, film, each)]:
        raise UserError(f"the sound of {source} does not fit into a file that ends in .{asked}; give the result the ending "
                        f"{' or '.join(f'.{each}' for each in others)}")
    raise UserError(f"the sound of {source} fits into none of the files that are written ({', '.join(ffmpeg.ENDINGS)}); make a video "
                    f"without it first: ffmpeg -i {source} -an -c copy {source.stem}_silent{source.suffix}")


def restore_video(restorer: Restorer, name: str, images: TestSet, args, folder: Path, weights: str) -> tuple[Rows, dict]:
    """Restore the video of a set and write it with the sound and the times of the original; return a row for each frame, and `unit`.

    The result is H.264 with 8 bits, upright, in MP4, or in another file format if the sound needs it. While it is made, its parts are in
    the folder <result>.parts; a second run continues there. Raises UserError if the file is not a video or a package is missing.
    """
    if process.world() > 1:
        raise UserError("a video is restored by one process; start the program without torchrun")
    item, = images.items
    source: Path = item.images["input"]
    film, say = ffmpeg.inspect(source), process.log().say
    ending = _ending(source, film, args.format)
    for flag in ("save_gt", "save_maps"):
        if getattr(args, flag):
            say(f"{name}: --{flag} does not apply to a video, of which only the result is written")
    args = Namespace(**{**vars(args), "save_results": True, "format": ending})
    result = outputs.result_path(outputs.results_folder(folder, name, images), item.name, ending)
    flags, before = outputs.conditions(images, args, weights), outputs.earlier(folder, name, images).get(item.name)
    same = outputs.record(folder, name).get("flags") == flags
    rows: Rows = [(_frame(index), {}) for index in range(len(film.times))]
    if args.skip_done and same and outputs.is_done(before, item, result, weights):
        say(f"{name}: {result} is already restored and kept (--no-skip_done restores it again)")
    else:
        outputs.begin(folder, name, args, images, flags)
        if note := film.note():
            say(f"{name}: {note}")
        files.make_folder(result.parent)
        place = result.with_name(f"{result.name}.parts")
        state = source.stat()
        plan = {"format": FORMAT, "source": str(source.resolve()), "changed": [state.st_size, state.st_mtime_ns], "flags": flags,
                "weights_changed": Path(zoo.located(weights)).stat().st_mtime_ns, "frames": len(film.times), "part": PART}
        _open(place, plan)
        with files.locked(place / "lock", busy=lambda holder: _busy(place, holder)):
            parts = _restore(restorer, name, source, film, place, folder if args.report else None)
            with written.result(folder, name, result, item.name, source.name) as part:
                ffmpeg.join(parts, film, source, part)
        _remove(place)
        say(f"{name}: {result} is written")
    _cards(name, folder, len(film.times), args)
    return rows, {"unit": "frames"}


def _frame(index: int) -> str:
    return f"frame-{index + 1:06}"


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def _busy(place: Path, holder: str) -> None:
    raise UserError(f"{place} is used by {holder}, which restores the same video; wait for its end")


def _open(place: Path, plan: dict) -> None:
    """Create the folder of the parts, or remove its parts if they belong to another plan; UserError if it is a folder of somebody else."""
    path = place / "plan.json"
    known = None
    if path.is_file():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            known = {"format": FORMAT}    # damaged: nothing of it is used
    if known is None and place.exists():
        raise UserError(f"{place} exists, and this program did not write it; move it away: the parts of the video are written there")
    if known and known != plan:
        _remove(place)
    files.make_folder(place)
    files.write_json(path, plan)


def _remove(place: Path) -> None:
    """Delete a folder of parts; it stays if it holds anything else."""
    for pattern in ("[0-9][0-9][0-9][0-9][0-9][0-9].mp4", ".*.part", "list.txt", "lock", "plan.json"):
        for path in place.glob(pattern):
            path.unlink()
    if not any(place.iterdir()):
        place.rmdir()


def _restore(restorer: Restorer, name: str, source: Path, film: ffmpeg.Film, place: Path, folder: Path | None) -> list[Part]:
    """Restore the parts that are missing in `place`; return all parts.

    folder: where the frames for the result page are saved; None for no page.
    """
    count = len(film.times)
    parts = [(place / f"{number:06}.mp4", start, min(start + PART, count)) for number, start in enumerate(range(0, count, PART))]
    lacking = [(start, end) for path, start, end in parts if not path.is_file()]
    if not lacking:
        return parts
    first, todo = lacking[0][0], sum(end - start for start, end in lacking)
    about = f"{name}: {_frames(count)} of {film.width}x{film.height}, {duration(film.seconds(count) - film.seconds(0))} long"
    process.log().say(about + (f"; {count - todo} of them are already restored" if todo < count else ""), keep=False)
    size = max(BATCH[process.device().type] // (film.width * film.height), 1)
    stream = ffmpeg.frames(source, film, first)
    stream = itertools.chain([next(stream)], stream)          # before the clock starts: the frames before it are decoded, too
    with Progress(f"restore {name}", todo, "frames") as progress:
        restorer.progress, begun = progress.tiles, time.monotonic()
        for path, start, end in parts[first // PART:]:
            whole = itertools.islice(stream, end - start)
            if (start, end) not in lacking:
                for _ in whole:
                    pass
                continue
            with ffmpeg.writer(path, film, start) as writer:
                for batch in _batches(whole, size):
                    if process.asked_to_end():
                        raise Interrupted
                    progress.begin(len(batch))
                    x = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).contiguous().float().div_(255)
                    output = restorer(x, name=f"{_frame(writer.index)} of {name}")
                    for pixels, frame in zip(batch, output):
                        after = image.to_array(frame)
                        if folder and writer.index in _shown(count):
                            _keep(folder, name, writer.index, pixels, after)
                        writer.write(after)
                    progress.end(len(batch))
                    if progress.pieces == len(batch):
                        each = (time.monotonic() - begun) / len(batch)
                        process.log().say(f"{name}: {each:.2g} s for a frame, about {duration(each * todo)} for {_frames(todo)}",
                                          keep=False)
    return parts


def _batches(frames: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while batch := list(itertools.islice(frames, size)):
        yield batch


def _shown(count: int) -> set[int]:
    """Return the indices of the frames on the result page, from the first to the last."""
    return {round(number * (count - 1) / (SHOWN - 1)) for number in range(SHOWN)}


def _pair(folder: Path, name: str, index: int) -> tuple[Path, Path]:
    return outputs.before_path(folder, name, _frame(index)), folder / f"frames-{name}" / f"{_frame(index)}.png"


def _keep(folder: Path, name: str, index: int, before: np.ndarray, after: np.ndarray) -> None:
    for path, pixels in zip(_pair(folder, name, index), (before, after)):
        files.make_folder(path.parent)
        image.write(path, pixels)


def _cards(name: str, folder: Path, count: int, args) -> None:
    """Write the report cards of the frames that were saved for the result page."""
    album = report.Album(name, len(_shown(count)), args, results=folder / f"frames-{name}")
    for index in sorted(_shown(count)):
        before, after = _pair(folder, name, index)
        if args.report and before.is_file() and after.is_file():
            x, y = (image.to_tensor(image.read(path))[None] for path in (before, after))
            album.add(_frame(index), x, y, None, {}, before)
    album.write(folder, {})
