"""python -m tool.restore PHOTO|FOLDER|VIDEO: restore a photo, a folder of photos with its subfolders, or a video."""
import argparse
import contextlib
import functools
import os
import sys
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":                # before torch is imported
    from runtime import waiting
    waiting.before_torch()

from torch import Tensor

import data
import main
import option
import tester
from contract import TestSet
from data import image, source
from data.pictures import is_video
from restore import ffmpeg, outputs
from restore.flags import add_backend
from runtime import files, memory, process, zoo
from runtime.arguments import Formatter, Parser, number, tile_side
from runtime.errors import Failure, UserError
from tool import guarded, network

LOCK = ".lock"                            # in the folder of the report, held while results are written


class Places(NamedTuple):
    """Where results go: their folder, the name of a single result ('' for a folder of photos), its format, and the folder of the report."""
    results: Path
    name: str
    format: str
    report: Path


def named(text: str) -> Path:
    """Return an argparse value as a path; an empty text, perhaps of an unset variable of the shell, is not the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("an empty text names no file or folder; write . for the working folder")
    return Path(text)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an invalid one."""
    parser = Parser(prog="tool.restore", description=__doc__, allow_abbrev=False, formatter_class=Formatter)
    add = parser.add_argument
    add("path", type=named, metavar="PHOTO|FOLDER|VIDEO")
    add("-o", "--output", type=named, metavar="OUT", help="file or folder of the result; default: NAME_restored beside the input")
    add("--weights", default=zoo.DEFAULT, metavar="FILE",
        help=f"model file of this program, or one released with a paper, with --model, or {zoo.PREFIX}NAME of the weights in zoo/ "
             f"({zoo.DEFAULT}: noise, rain, haze, snow)")
    add("--strength", type=number(float, 0, 1), default=1.0, help="1: the restored picture, 0: the input, between: their mixture")
    add("--format", default="png", choices=tuple(image.FORMATS), help="file format of restored photos")
    add("--whole", type=number(float, 0, 1e6), default=2.0, metavar="MEGAPIXELS",
        help="photos with more pixels are restored in tiles; 0: only if the memory is short")
    add("--tile", type=tile_side, default="1024", metavar="N", help="greatest side of the tiles in pixels")
    add("--self_ensemble", action="store_true", help="average the results of the 8 flips and rotations; takes 8 times as long")
    add_backend(add)
    add("--n_threads", type=number(int, 0, 256), default=2, help="number of processes that read the photos; 0: none beside the main one")
    add("--cpu", action="store_true", help="compute on the CPU even if there is a GPU")
    add("--no-report", dest="report", action="store_false", help="write no page that compares before and after")
    return network.parse(parser, argv)


def places(path: Path, output: Path | None, ending: str) -> Places:
    """Return where the results of a path go; UserError if the path does not exist, or for a place that cannot be used."""
    if not path.exists():
        raise UserError(f"there is no file or folder {path}")
    here = path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()        # a link stays where it is
    if not here.name and not output:
        raise UserError(f"name the folder for the results of {path} with -o")
    if path.is_dir():
        results = output or here.with_name(f"{here.name}_restored")
        files.check_output(results, "-o", folder=True)
        if results.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{results} lies in the folder of the photos, where results would be taken for photos; name another with -o")
        return Places(results, "", ending, results.resolve().with_name(f"{results.resolve().name}_report"))
    allowed = tuple(ffmpeg.ENDINGS if is_video(path) else image.FORMATS)
    single = output or here.with_name(f"{here.stem}_restored")
    if output and (output.is_dir() or not output.suffix):
        single = output / here.stem
    elif output:
        ending = output.suffix[1:]
        if ending not in allowed:         # results are found again by these endings, so .JPG and .jpeg are no others
            raise UserError(f"{output} cannot be written: its name must end in {', '.join(f'.{each}' for each in allowed)}")
        single = output.with_suffix("")
    files.check_output(single.parent, "-o", folder=True)
    return Places(single.parent, single.name, ending, single.parent.resolve() / f"{single.name}_report")


def typed(flag: str, value) -> str:
    """Return a flag of a network with its value as it is typed."""
    return f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag}={value}"


def core(args: argparse.Namespace, ending: str) -> argparse.Namespace:
    """Return the flags of main.py that these flags mean."""
    if not args.weights:
        raise UserError("--weights names no file; leave it out for those of the zoo, or name one, as experiment/mine/model/model_best.pt")
    flags = ["--test_only", "--save_results", "--data_test", "Demo", f"--dir_demo={args.path}", f"--pre_train={args.weights}",
             f"--whole={args.whole}", f"--tile={args.tile}", f"--test_precision={args.test_precision}",
             f"--backend={args.backend}",
             *(typed(key, value) for key, value in args.network.items()), f"--n_threads={args.n_threads}",
             *["--self_ensemble"] * args.self_ensemble, *["--cpu"] * args.cpu, "--report" if args.report else "--no-report"]
    result = option.parse(flags)
    result.format = ending
    result.flags |= {"format": ending, "strength": args.strength}
    return result


def placed(images: TestSet, path: Path, where: Places) -> TestSet:
    """Return the set without targets and without earlier results that a link leads to, with its results where they belong."""
    items = [item._replace(name=where.name or item.name, images={"input": item.images["input"]}) for item in images.items
             if where.name or not _is_result(source.path_of(item.images["input"]), path, where)]
    return images._replace(items=items, results=where.results)


def _is_result(photo: Path | None, path: Path, where: Places) -> bool:
    """Return whether a photo lies in the folder of the results or of the report, outside the folder of the photos itself."""
    found = Path(os.path.realpath(photo or path))          # unlike resolve() also of a link to itself
    inside = any(found.is_relative_to(place.resolve()) for place in (where.results, where.report))
    return inside and not found.is_relative_to(path.resolve())


def _busy(where: Places, holder: str) -> None:
    raise UserError(f"{where.report} is in use by {holder}, which restores to the same place; wait for its end, or use another -o")


def mixture(strength: float):
    """Return the function that mixes a picture and its restored version; None for the restored version alone."""
    def mix(before: Tensor, after: Tensor) -> Tensor:
        return before + strength * (after - before)
    return mix if strength < 1 else None


def run(argv: list[str] | None = None) -> None:
    """Restore what the command line names; UserError for wrong input, and, after all others, for photos that could not be restored."""
    args = arguments(argv)
    where = places(args.path, args.output, args.format)
    kept = [path.name for path in where.report.iterdir() if path.name != LOCK] if where.report.exists() else []
    if kept and "args.json" not in kept:
        raise UserError(f"{where.report} exists, and this program did not write it; move it away, or name another place with -o")
    with process.session(args.cpu, 1), contextlib.ExitStack() as held:
        flags = core(args, where.format)
        job = data.runs(flags)[0]
        sets = {name: placed(images, args.path, where) for name, images in job.test.items()}
        for name, images in sets.items():
            ending = "mp4" if is_video(args.path) and where.format not in ffmpeg.ENDINGS else where.format
            outputs.check_free(where.report, outputs.name_for(where.report, name, images.source), images, ending)
        method = main.make_method(flags, job, None)
        held.enter_context(files.locked(where.report / LOCK, functools.partial(_busy, where)))
        files.write_json(where.report / "args.json", flags.flags)
        process.log().open(where.report)
        try:
            tester.test(method, sets, flags, where.report, args.weights, finish=mixture(args.strength))
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, Failure) or not memory.lacks(error):
                raise
            raise Failure("the memory is full; try a smaller --tile, or --whole 0.1") from error
        finally:
            if (where.report / "report.html").is_file() and args.report:
                process.log().say(f"before and after: {where.report / 'report.html'}", keep=False)


if __name__ == "__main__":
    sys.exit(guarded("tool.restore", run))
