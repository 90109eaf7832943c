"""The directory of an experiment: its name, lock and stored flags, and the training state from which a run resumes."""
import contextlib
import functools
import json
import os
import shutil
from pathlib import Path

from runtime import VERSION, check, files, process
from runtime.errors import UserError
from runtime.files import read_tensors

STATE_FORMAT = "unweather state 2"                    # changed only if older versions would misread the file
STATE_PARTS = ("log", "progress", "random", "network", "side", "average", "optimizer", "scaler")
BEFORE = "state_before.pt"
LONGEST_NAME, LONGEST_PATH = 200, 3500                # bytes; file systems allow 255 and 4,096, of which names of files need a part
FINISHED = "pictures.json"                            # list of finished images, for a training with one network per image
ROOT = Path("experiment")
PASSING = ("reset", "load", "resume", "config", "template", "list", "explain")    # flags of one call, which are not stored
# Flags of older versions that an args.json may name: {old name: new name}; an empty new name means that the flag is ignored.
RENAMED: dict[str, str] = {}
# flags that may differ when the command of a finished experiment is run again
INCIDENTAL = (*PASSING, "n_threads", "cpu", "n_GPUs", "print_every", "ext", "save_every", "report", "logger")


def folder_of(save_name: str) -> Path:
    """Return experiment/<save_name>; raises UserError for a name that is not a directory of its own below experiment/."""
    folder, root = (ROOT / save_name).resolve(), ROOT.resolve()
    if not save_name or folder == root or root not in folder.parents:
        raise UserError(f"--save '{save_name}' is not inside {ROOT}/; use a plain name such as --save mine")
    place = ROOT / save_name
    if any(part.startswith(".") for part in Path(save_name).parts):
        raise UserError(f"--save '{save_name}' begins with a dot; such names in {ROOT}/ belong to the program, so use a plain name")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(save_name).parts) or len(os.fsencode(folder)) > LONGEST_PATH:
        raise UserError(f"--save '{save_name[:40]}…' is too long; a name has at most {LONGEST_NAME} bytes")
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise UserError(f"{place} is a link or a file, not the directory of an experiment; choose another name with --save")
    files.check_output(place, "--save", folder=True)
    if any((parent / "args.json").is_file() for parent in place.parents if ROOT in parent.parents):
        raise UserError(f"--save '{save_name}' is inside another experiment; choose another name")
    return place


@contextlib.contextmanager
def exclusive(save_name: str):
    """Hold the lock of experiment/<save_name> within the block; raises UserError if another run holds it."""
    if process.rank() > 0:
        yield
    else:
        with files.locked(_lock(save_name), functools.partial(_refuse, save_name)):
            yield


def check_free(save_name: str) -> None:
    """Raise UserError if another run holds the lock of experiment/<save_name>; writes nothing otherwise."""
    if process.rank() == 0 and _lock(save_name).is_file():
        with exclusive(save_name):
            pass


def _lock(save_name: str) -> Path:
    """Return the lock file of an experiment; raises UserError if it is a link, because locking would change a file elsewhere."""
    path = ROOT / ".locks" / f"{save_name.replace('/', '_')[-LONGEST_NAME:]}.lock"
    for each in (path.parent, path):
        if each.is_symlink():
            raise UserError(f"{each} is a link, but this program keeps its locks there; remove the link")
    return path


def _refuse(save_name: str, holder: str) -> None:
    raise UserError(f"{folder_of(save_name)} is in use by {holder}; wait until it ends or choose another name with --save")


def stored_args(folder: Path) -> dict:
    """Return the flags stored in an experiment directory, {} if it has none."""
    path = folder / "args.json"
    return read_args(path) if path.is_file() else {}


def read_args(path: str | Path) -> dict:
    """Return the flags of an args.json, with old names replaced by new ones; raises UserError for an invalid file."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read the flags in {path}: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} does not contain a JSON object of flags; use the args.json of an experiment")
    named = {RENAMED.get(key, key): value for key, value in values.items()}
    return {key: value for key, value in named.items() if key}


def find_state(args) -> dict | None:
    """Return the state from which a training resumes, None for a new training; changes no file.

    Raises UserError if the experiment exists already, unless --reset empties it, --load or --resume continues it, the same
    command has saved nothing, or has finished it; in the last case the returned state has no epoch left to train.
    """
    folder = folder_of(args.save)
    exists = folder.is_dir() and any(folder.iterdir())
    if _continues(folder, args):
        return newest_state(folder)
    if args.reset or ((folder / FINISHED).is_file() and _same_flags(folder, args)):        # the training continues with the next image
        return None
    if args.resume != "0" or args.load:
        return _state(folder, args.resume)
    state = _finished(folder, args) if exists else None
    if exists and not state and not _saved_nothing(folder, args):
        raise UserError(f"{folder} exists already; add --reset to empty it, --resume to continue it, "
                        "or choose another name with --save")
    return state


def _saved_nothing(folder: Path, args) -> bool:
    """Return whether a training with the same flags was stopped in this folder before it saved anything."""
    return (folder / "model").is_dir() and not any((folder / "model").iterdir()) and _same_flags(folder, args)


def _continues(folder: Path, args) -> bool:
    """Return whether torchrun or SLURM, which repeat the command line, has restarted the training in this folder, not one before it."""
    return process.restarted() and (not stored_args(folder) or _same_flags(folder, args))


def save_state(folder: Path, state: dict) -> None:
    """Write state.pt; keep the previous state as state_before.pt."""
    path = folder / "state.pt"
    new = folder / "state_new.pt"
    files.write_tensors(new, state)
    if path.is_file():
        os.replace(path, folder / BEFORE)
    os.replace(new, path)
    files.sync_folder(folder)


def keep_good_state(folder: Path, bad: bool) -> None:
    """If the newest state is bad, because no step could be made from it, replace it by the previous state, if there is one."""
    before, path = folder / "model" / BEFORE, folder / "model" / "state.pt"
    if bad and process.rank() == 0 and before.is_file():
        os.replace(before, path)
    process.barrier()


def newest_state(folder: Path) -> dict | None:
    """Return the newest undamaged state of a training, None if there is none."""
    return _state(folder, "auto")


def open_experiment(args, trains: bool) -> Path:
    """Create experiment/<save>, or empty it with --reset, write its flags there and return the path.

    A test does not overwrite the flags of a training.
    """
    folder = folder_of(args.save)
    process.barrier()
    if process.rank() == 0:
        if args.reset and trains and folder.is_dir() and not _continues(folder, args):
            shutil.rmtree(folder)
        files.make_folder(folder / "model" if trains else folder)
        for half in folder.rglob(".*.part*"):                     # left by a process that was killed while writing
            half.unlink(missing_ok=True)
        if trains or not (folder / "model").is_dir():
            flags = {key: value for key, value in args.flags.items() if key not in PASSING}
            files.write_json(folder / "args.json", flags)
            files.write_text(folder / "config.txt", "".join(f"{key}: {value}\n" for key, value in flags.items()))
    process.barrier()
    return folder


def _state(folder: Path, resume: str) -> dict | None:
    """Return the state that --resume selects; None for `auto` if no undamaged state exists; raises UserError otherwise."""
    if resume not in ("0", "-1", "auto") and not resume.isdecimal():
        raise UserError(f"--resume {resume} is invalid; use -1 for the newest state, an epoch kept by --save_models, or auto")
    if resume.isdecimal() and resume != "0":
        paths = [folder / "model" / f"state_{resume}.pt"]
    else:
        paths = [folder / "model" / "state.pt", folder / "model" / BEFORE]
    trouble = []
    for path in paths:
        try:
            if path.is_file():
                state = read_state(path)
            else:
                raise UserError(f"{path} does not exist")
        except UserError as error:
            trouble.append(str(error))
        else:
            if path.name == BEFORE:
                process.log().say(f"{trouble[0]}; the previous state {path} is used", keep=False)
            return state
    if resume == "auto":
        return None
    kept = sorted(int(file.stem[6:]) for file in paths[0].parent.glob("state_*.pt") if file.stem[6:].isdecimal())
    weights = [path for path in (folder / "model" / f"model_{name}.pt" for name in ("latest", "best")) if path.is_file()]
    advice = (f"; states are kept of the epochs {', '.join(map(str, kept))}: name one with --resume" if kept else
              f"; start a new training from its weights with --pre_train {weights[0]} and another --save" if weights else
              "; start it anew with --reset")
    raise UserError(f"cannot resume {folder}: {' and '.join(trouble)}{advice}")


def read_state(path: Path) -> dict:
    """Read the state of a training; raises UserError for any other file and for an unknown format.

    States stay readable in all later versions, as model files do. A later version that needs more than STATE_PARTS must use
    the values of a new training for what an older state lacks.
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
    if wrong := check.wrong_part(state):
        raise UserError(f"{path}{files.origin(state)} is damaged or was changed: {wrong}")
    return state


def _finished(folder: Path, args) -> dict | None:
    """Return the last state of an experiment if the same flags have trained it to the end, else None."""
    path = folder / "model" / "state.pt"
    if not path.is_file() or not _same_flags(folder, args):
        return None
    state = read_state(path)
    if state["progress"]["epoch"] < args.epochs:
        return None
    process.log().say(f"{folder} is finished: these flags were trained to epoch {args.epochs}; this run only tests it again "
                      "(--reset trains it again)")
    return state


def _same_flags(folder: Path, args) -> bool:
    """Return whether the flags equal those of the experiment, except for flags that change no result.

    A flag that args.json lacks, because an older version wrote it, is equal at its default.
    """
    stored, defaults = stored_args(folder), {key: value for key, value in args.flags.items() if args.origin[key] == "default"}
    one, two = ({key: value for key, value in flags.items() if key not in INCIDENTAL} for flags in (defaults | stored, args.flags))
    return bool(stored) and one == two
