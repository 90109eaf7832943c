"""Model files that describe themselves, the full state of a training, and the folder of an experiment."""
import contextlib
import functools
import json
import os
import shutil
from pathlib import Path

from runtime import VERSION, files, process
from runtime.errors import UserError
from runtime.files import read_tensors

STATE_FORMAT = "unweather state 2"                    # a new number only where older programs would misread the file
STATE_PARTS = ("log", "progress", "random", "network", "side", "average", "optimizer", "scaler")
BEFORE = "state_before.pt"
FINISHED = "pictures.json"                            # the images that are finished, of a training with a network for each
ROOT = Path("experiment")
PASSING = ("reset", "load", "resume", "config", "template", "list", "explain")    # flags of one call, not of the experiment
# Flags of older versions that an args.json may name: {old name: new name}; an empty new name means that the flag is ignored.
RENAMED: dict[str, str] = {}
# flags in which a re-run of a finished experiment may differ without being another experiment
INCIDENTAL = (*PASSING, "n_threads", "cpu", "n_GPUs", "print_every", "ext", "save_every", "report", "logger")


def folder_of(save_name: str) -> Path:
    """Return experiment/<save_name>; UserError for a name that would leave experiment/."""
    folder, root = (ROOT / save_name).resolve(), ROOT.resolve()
    if not save_name or folder == root or root not in folder.parents:
        raise UserError(f"--save '{save_name}' would leave {ROOT}/; give a plain name such as --save mine")
    place = ROOT / save_name
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise UserError(f"{place} is a link or a file, not the folder of an experiment; choose another --save")
    if any((parent / "args.json").is_file() for parent in place.parents if ROOT in parent.parents):
        raise UserError(f"--save '{save_name}' lies inside another experiment; choose a name of its own")
    return place


@contextlib.contextmanager
def alone(save_name: str):
    """Hold experiment/<save_name> for this run; UserError when another one does."""
    if process.rank() > 0:
        yield
    else:
        with files.locked(_lock(save_name), functools.partial(_refuse, save_name)):
            yield


def check_free(save_name: str) -> None:
    """Raise UserError when another run holds experiment/<save_name>; nothing is written."""
    if process.rank() == 0 and _lock(save_name).is_file():
        with alone(save_name):
            pass


def _lock(save_name: str) -> Path:
    return ROOT / ".locks" / f"{save_name.replace('/', '_')}.lock"


def _refuse(save_name: str, holder: str) -> None:
    raise UserError(f"{folder_of(save_name)} is in use by {holder}; wait for its end or choose another name with --save")


def stored_args(folder: Path) -> dict:
    """Return the flags that a training experiment ran with, {} when there is none."""
    path = folder / "args.json"
    return read_args(path) if path.is_file() else {}


def read_args(path: str | Path) -> dict:
    """Return the flags of an args.json under their names of today; UserError if it is none."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the flags in {path}: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no object of flags; it should be an experiment's args.json")
    named = {RENAMED.get(key, key): value for key, value in values.items()}
    return {key: value for key, value in named.items() if key}


def find_state(args) -> dict | None:
    """Return the state from which a training goes on, None for a fresh start; nothing is changed yet.

    A training never touches an experiment that exists, unless --reset empties it or --load or --resume goes on with
    it; the same command on a finished experiment finds nothing left to train. A test adds its own results to it.
    """
    folder = folder_of(args.save)
    exists = folder.is_dir() and any(folder.iterdir())
    if process.restarted():               # by torchrun or SLURM, with the same command line
        return _state(folder, "auto")
    if args.reset or ((folder / FINISHED).is_file() and _same_flags(folder, args)):        # goes on with the next picture
        return None
    if args.resume != "0" or args.load:
        return _state(folder, args.resume)
    state = _finished(folder, args) if exists else None
    if exists and not state:
        raise UserError(f"{folder} exists already; add --reset to empty it, --resume to go on with it, "
                        "or choose another name with --save")
    return state


def save_state(folder: Path, state: dict) -> None:
    """Write state.pt; the one before it stays, as state_before.pt."""
    path = folder / "state.pt"
    new = folder / "state_new.pt"
    files.write_tensors(new, state)
    if path.is_file():
        os.replace(path, folder / BEFORE)
    os.replace(new, path)
    files.sync_folder(folder)


def open_experiment(args, trains: bool) -> Path:
    """Make experiment/<save> ready, emptied if --reset says so, write its flags there and return it.

    A test leaves the flags of a training alone.
    """
    folder = folder_of(args.save)
    process.barrier()
    if process.rank() == 0:
        if args.reset and trains and not process.restarted() and folder.is_dir():
            shutil.rmtree(folder)
        files.make_folder(folder / "model" if trains else folder)
        for half in folder.rglob(".*.part"):                      # of a process that was killed while writing
            half.unlink(missing_ok=True)
        if trains or not (folder / "model").is_dir():
            flags = {key: value for key, value in args.flags.items() if key not in PASSING}
            files.write_json(folder / "args.json", flags)
            files.write_text(folder / "config.txt", "".join(f"{key}: {value}\n" for key, value in flags.items()))
    process.barrier()
    return folder


def _state(folder: Path, resume: str) -> dict | None:
    """Return the state that --resume names, None for `auto` where there is none that is whole."""
    if resume not in ("0", "-1", "auto") and not resume.isdecimal():
        raise UserError(f"--resume {resume}: give -1 for the newest state, an epoch kept by --save_models, or auto")
    if resume.isdecimal() and resume != "0":
        paths = [folder / "model" / f"state_{resume}.pt"]
    else:
        paths = [folder / "model" / "state.pt", folder / "model" / BEFORE]
    trouble = [f"there is no {paths[0]}"]
    for path in paths:
        if path.is_file():
            try:
                state = read_state(path)
            except UserError as error:
                trouble = [str(error)]
            else:
                if path.name == BEFORE:
                    process.log().say(f"{trouble[-1]}; {path}, the state before it, is taken", keep=False)
                return state
    if resume == "auto":
        return None
    kept = sorted(int(file.stem[6:]) for file in paths[0].parent.glob("state_*.pt") if file.stem[6:].isdecimal())
    raise UserError(f"cannot go on with {folder}: {trouble[-1]}"
                    + (f"; kept are the epochs {', '.join(map(str, kept))}" if kept else ""))


def read_state(path: Path) -> dict:
    """Read the state of a training; UserError if the file is none, or has a format that this version does not know.

    States are readable for ever, as model files are: who needs more than STATE_PARTS of a state takes, where an older version
    has not written it, what a fresh start has.
    """
    state = read_tensors(path)
    stated = state.get("format")
    if isinstance(stated, str) and stated.startswith("unweather state") and stated != STATE_FORMAT:
        raise UserError(f"{path} has the format '{stated}'{files.origin(state)}, but unweather {VERSION} reads '{STATE_FORMAT}'; "
                        "resume with the version that wrote it, or start from its weights with --pre_train")
    if stated != STATE_FORMAT:
        raise UserError(f"{path} is not the state of a training; a training writes state.pt into experiment/<save>/model/")
    missing = [name for name in STATE_PARTS if not isinstance(state.get(name), dict)]
    if missing or not isinstance(state["progress"].get("epoch"), int):
        raise UserError(f"{path}{files.origin(state)} is not the state of a training: it lacks '{[*missing, 'epoch'][0]}'")
    return state


def _finished(folder: Path, args) -> dict | None:
    """Return the last state of an experiment that these very flags have trained to the end, else None."""
    path = folder / "model" / "state.pt"
    if not path.is_file() or not _same_flags(folder, args):
        return None
    state = read_state(path)
    if state["progress"]["epoch"] < args.epochs:
        return None
    process.log().say(f"{folder} is finished: these flags were trained to epoch {args.epochs}; it is tested again, "
                      "not trained (--reset starts over)")
    return state


def _same_flags(folder: Path, args) -> bool:
    """Return whether the flags are those of the experiment, but for what changes no result.

    A flag that its args.json lacks, being newer, is the same at its default.
    """
    stored, defaults = stored_args(folder), {key: value for key, value in args.flags.items() if args.origin[key] == "default"}
    one, two = ({key: value for key, value in flags.items() if key not in INCIDENTAL} for flags in (defaults | stored, args.flags))
    return bool(stored) and one == two
