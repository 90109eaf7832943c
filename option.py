"""The command line: one parser in two passes, first what names the model, then that model's own flags and defaults."""
import argparse
import difflib
import re
from argparse import BooleanOptionalAction, Namespace

import checkpoint
import loss
import model
import runtime
from utility import UserError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str):
        unknown = re.match(r"unrecognized arguments: (--?[\w-]+)", message)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            close = difflib.get_close_matches(unknown[1], known, 1)
            message = f"unknown flag {unknown[1]}" + (f"; did you mean {close[0]}?" if close else "; see --help")
        raise UserError(message)


def number(kind: type, low: float, high: float = float("inf")):
    """Return an argparse type: a number of that kind from low to high."""
    def convert(text: str):
        value = kind(text)
        if not low <= value <= high:
            raise ValueError
        return value
    convert.__name__ = f"{'whole number' if kind is int else 'number'} of at least {low:g}" + (f" and at most {high:g}" if high < float("inf") else "")
    return convert


COUNT, SIZE, REAL, RATIO = number(int, 0), number(int, 1), number(float, 0), number(float, 0, 1)


def parser(package, defaults: dict) -> Parser:
    """Return the full parser for a model's package; `defaults` override the built-in ones in --help and the result."""
    result = Parser(prog="main.py", allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter,
                    description="Train, test and apply networks that restore photos taken in bad conditions.")
    add = result.add_argument_group("model").add_argument
    add("--model", default=model.DEFAULT, help="the system; --list shows all")
    add("--template", default="", help="a named set of flags; --list shows all")
    add("--pre_train", default="", metavar="FILE", help="weights to start from or to test: our files or the papers' released ones")
    add("--config", default="", metavar="JSON", help="run again with the flags of an experiment/<save>/args.json; the command line wins")
    add("--list", action="store_true", help="list models, templates, losses and data sets, and stop")

    add = result.add_argument_group("data").add_argument
    add("--dir_data", default="dataset", metavar="DIR", help="where the data sets are")
    add("--dir_demo", default="", metavar="DIR", help="a folder of pictures to restore, with --data_test Demo (or Folder)")
    add("--data_train", default="DIV2K", metavar="A+B", help="data sets to train on; any folder of --dir_data with input/ and target/ is one")
    add("--data_test", default="", metavar="A+B", help="data sets to test on; default: those of --data_train")
    add("--data_range", default="", metavar="a-b/c-d", help="images by position, to train on / to test on; with --test_only a-b alone")
    add("--ext", default="sep", choices=("sep", "sep_reset", "img"), help="sep, sep_reset: decode once into <dir_data>/bin, checked at every start; img: decode each time")
    add("--scale", default="1", help="kept from EDSR; restoration keeps the size, so only 1")
    add("--patch_size", default="64", metavar="N", help="side of the training crops")
    add("--rgb_range", type=number(float, 1e-6), default=255.0, help="range on which a network of that kind computes; images are in [0, 1] elsewhere")
    add("--n_colors", type=int, default=3, choices=(3,), help="colour channels")
    add("--no_augment", action="store_true", help="no flips and turns")
    add("--n_threads", type=COUNT, default=2, help="processes that load data; changes no number")

    add = result.add_argument_group("training").add_argument
    add("--epochs", type=SIZE, default=300, help="epochs in all; scales the stages' borders")
    add("--epoch_chg", nargs="+", default="", metavar="N", help="the epochs at which the stages end, as 135-238-314")
    add("--test_every", type=COUNT, default=1000, help="steps of an epoch; 0: one pass over the data")
    add("--val_epochs", type=SIZE, default=1, help="test every N epochs")
    add("--batch_size", default="16", metavar="N", help="images a step, over all processes")
    add("--split_batch", type=SIZE, default=1, help="compute each batch in N parts, to save memory")
    add("--loss", default="1*L1", help="weight*Type[:prediction[:target]], joined by +; stages by ' / '")
    add("--ema", type=number(float, 0, 0.999999), default=0.0, help="decay of a moving average of the weights, which is then tested and saved; 0: none")
    add("--skip_threshold", type=REAL, default=1e8, help="skip a step whose loss exceeds this times the last epoch's")
    add("--seed", type=COUNT, default=1, help="seed of weights, crops and order")

    add = result.add_argument_group("optimisation").add_argument
    add("--optimizer", type=str.upper, default="ADAM", choices=("SGD", "ADAM", "ADAMW", "RMSPROP"), help="optimiser")
    add("--lr", type=REAL, default=1e-4, help="learning rate")
    add("--schedule", default="step", choices=("step", "cosine"), help="how it falls")
    add("--decay", default="200", metavar="a-b-c", help="epochs after which the step schedule multiplies by gamma")
    add("--gamma", type=RATIO, default=0.5, help="factor of the step schedule")
    add("--lr_min", type=REAL, default=1e-6, help="last learning rate of the cosine schedule")
    add("--warmup", type=REAL, default=0.0, help="epochs in which the learning rate rises from 0")
    add("--momentum", type=RATIO, default=0.9, help="of SGD and RMSprop")
    add("--betas", nargs="+", default="0.9 0.999", help="of Adam")
    add("--epsilon", type=REAL, default=1e-8, help="of Adam and RMSprop")
    add("--weight_decay", type=REAL, default=0.0, help="weight decay")
    add("--gclip", type=REAL, default=0.0, help="clip each gradient to this absolute value; 0: no")

    add = result.add_argument_group("test and restore").add_argument
    add("--test_only", action=BooleanOptionalAction, default=False, help="test or restore, train nothing")
    add("--chop", action=BooleanOptionalAction, default=False, help="restore in tiles, for large images")
    add("--tile", type=number(int, 16), default=512, help="side of a tile with --chop")
    add("--tile_overlap", type=COUNT, default=96, help="by how much tiles overlap; at most half a tile is used")
    add("--self_ensemble", action=BooleanOptionalAction, default=False, help="mean over the 8 flips and turns")
    add("--test_precision", default="single", choices=list(runtime.PRECISIONS), help="precision of tests")

    add = result.add_argument_group("experiment").add_argument
    add("--save", default="test", metavar="NAME", help="results go to experiment/NAME")
    add("--load", default="", metavar="NAME", help="go on with experiment/NAME, with its flags")
    add("--resume", nargs="?", const="-1", default="0", metavar="N", help="go on with experiment/<save>: -1 at its newest state, auto likewise or from the start, N after epoch N (kept by --save_models)")
    add("--reset", action="store_true", help="empty experiment/<save> first; image caches stay")
    add("--save_models", action=BooleanOptionalAction, default=False, help="keep the weights and the state of every tested epoch")
    add("--save_results", action=BooleanOptionalAction, default=False, help="save restored images as PNG")
    add("--save_gt", action=BooleanOptionalAction, default=False, help="save input, result and truth side by side")
    add("--print_every", type=SIZE, default=100, help="steps between two lines of the log")

    add = result.add_argument_group("hardware").add_argument
    add("--cpu", action="store_true", help="use the CPU even where there is a GPU")
    add("--n_GPUs", type=COUNT, default=1, help="kept from EDSR; several GPUs: torchrun --nproc_per_node N main.py …")
    add("--precision", default="single", choices=list(runtime.PRECISIONS), help="precision of training (autocast)")

    own = result.add_argument_group(package.__name__.rpartition(".")[2])
    package.add_arguments(own)
    unknown = set(defaults) - {action.dest for action in result._actions}
    if unknown:
        raise UserError(f"unknown flag '{sorted(unknown)[0]}' in a recipe, template or config")
    result.set_defaults(**defaults)
    return result


def parse(argv: list[str] | None = None) -> Namespace:
    """Return all flags with what follows from them; UserError says what is wrong.

    Later wins: built-in defaults, the model's RECIPE, the template, what the model file says of itself, the flags of
    the experiment that is continued, --config, the command line. `flags` holds them as given, `_understand` adds
    their meaning under names of its own.
    """
    typed = _first_pass(argv)
    name, layers = _layers(typed)
    package = model.package(name)
    borders = {key: typed[key] for key in ("epochs", "epoch_chg") if key in typed}
    full = parser(package, _fold([package.RECIPE, *layers, borders]))
    values = vars(full.parse_args(argv))
    values |= {"model": package.__name__.rpartition(".")[2], "betas": _joined(values["betas"], " "),
               "epoch_chg": _joined(full.get_default("epoch_chg"), "-"), "epochs": full.get_default("epochs"),
               "data_test": values["data_test"] or values["data_train"]}
    _check_types(full, values)
    return _understand(Namespace(flags=dict(values), **values))


def _first_pass(argv: list[str] | None) -> dict:
    """Return, of the flags that decide what other flags there are, those that were typed."""
    first = Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name in ("--model", "--template", "--config", "--pre_train", "--load", "--save"):
        first.add_argument(name)
    first.add_argument("--resume", nargs="?", const="-1")
    first.add_argument("--test_only", action=BooleanOptionalAction)
    first.add_argument("--epochs", type=SIZE)
    first.add_argument("--epoch_chg", nargs="+")
    typed = vars(first.parse_known_args(argv)[0])
    if "epoch_chg" in typed:
        typed["epoch_chg"] = "-".join(typed["epoch_chg"])
    return typed


def _layers(typed: dict) -> tuple[str, list[dict]]:
    """Return the model's name and the sets of flags below the command line, the weakest first."""
    layers, claims = [], []                        # claims: (model, what says so)
    if typed.get("template"):
        known = model.templates()
        if typed["template"] not in known:
            raise UserError(f"unknown template '{typed['template']}'; known: {', '.join(known)}")
        owner, flags = known[typed["template"]]
        layers.append(flags)
        claims.append((owner, f"--template {typed['template']}"))
    folder = checkpoint.folder_of(typed.get("load") or typed.get("save") or "test")
    continued = bool(typed.get("load")) or typed.get("resume", "0") != "0"
    if continued:
        stored = checkpoint.stored_args(folder)
        if typed.get("load") and not stored:
            raise UserError(f"--load {typed['load']}: there is no experiment in {folder}")
        layers.append({**stored, "save": str(folder.relative_to(checkpoint.ROOT))} if stored else {})
    if typed.get("config"):
        layers.append(checkpoint.read_args(typed["config"]))
    pre_train = typed.get("pre_train", "")
    if typed.get("test_only") and continued and not pre_train:
        pre_train = str(folder / "model" / "model_best.pt")
        layers.append({"pre_train": pre_train})
    for layer in layers:
        if "model" in layer:
            claims.append((layer["model"], "the experiment's flags"))
    if pre_train:
        owner, arguments = checkpoint.describe(pre_train)
        if owner:
            layers.append(arguments)
            claims.append((owner, f"the file {pre_train}"))
    for layer in layers[:-1] if continued else []:
        layer.pop("reset", None)
    if typed.get("model"):
        for owner, says in claims:
            if owner != typed["model"].lower():
                raise UserError(f"--model {typed['model']} contradicts {says}, which is of the model {owner}; "
                                f"leave --model out or use --model {owner}")
        return typed["model"], layers
    return (claims[-1][0] if claims else model.DEFAULT), layers


def _fold(layers: list[dict]) -> dict:
    """Return the layers' flags, later ones winning; `epochs` without `epoch_chg` scales the stages' borders."""
    values: dict = {"epoch_chg": ""}
    for layer in layers:
        values |= layer
        if "epochs" in layer and "epoch_chg" not in layer and values["epoch_chg"]:
            borders = _whole_numbers(values["epoch_chg"], "--epoch_chg")
            values["epoch_chg"] = "-".join(str(round(border * layer["epochs"] / borders[-1])) for border in borders)
        elif "epoch_chg" in layer and "epochs" not in layer and layer["epoch_chg"]:
            values["epochs"] = _whole_numbers(layer["epoch_chg"], "--epoch_chg")[-1]
    return {key: value for key, value in values.items() if value != ""}


def _joined(value: str | list[str], mark: str) -> str:
    return value if isinstance(value, str) else mark.join(value)


def _check_types(full: Parser, values: dict) -> None:
    """Raise UserError when a flag that came from a file has a value of another kind than the flag's."""
    plain = {action.dest: action.default for action in parser(model.package(values["model"]), {})._actions}
    for key, value in values.items():
        kinds = (int, float) if isinstance(plain[key], float) else type(plain[key])
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(plain[key], bool):
            raise UserError(f"the flag '{key}' should be of the kind of {plain[key]!r}, but is {value!r}")


def _understand(args: Namespace) -> Namespace:
    """Add what the flags mean: stages, milestones, ranges; UserError for what cannot be."""
    if str(args.scale) not in ("1", "1.0"):
        raise UserError(f"--scale {args.scale}: images keep their size here, so --scale is 1 (or left out)")
    args.milestones = _whole_numbers(args.decay, "--decay")
    args.adam_betas = _betas(args.betas)
    args.ranges = _ranges(args.data_range)
    args.losses = [text.strip() for text in args.loss.split(" / ")]
    args.patch_sizes = _whole_numbers(args.patch_size, "--patch_size")
    args.batch_sizes = _whole_numbers(args.batch_size, "--batch_size")
    for text in args.losses:
        loss.parse(text)
    for size in args.batch_sizes:
        if size % runtime.world():
            raise UserError(f"--batch_size {size} is the total over all processes and must divide by their number, {runtime.world()}")
    borders = _whole_numbers(args.epoch_chg, "--epoch_chg") if args.epoch_chg else []
    several = {"--loss": args.losses, "--patch_size": args.patch_sizes, "--batch_size": args.batch_sizes}
    count = max(len(borders), *map(len, several.values()))
    for flag, given in several.items():
        if len(given) not in (1, count):
            raise UserError(f"{flag} has {len(given)} values for {count} stages; give 1 or {count}")
        given *= count // len(given)
    if not borders:
        borders = [round(args.epochs * (number + 1) / count) for number in range(count)]
    if len(borders) != count or borders[-1] != args.epochs or sorted(borders) != borders:
        raise UserError(f"--epoch_chg {args.epoch_chg}: {count} stages need {count} rising epochs, the last being --epochs {args.epochs}")
    args.stage_epochs = [end - start for start, end in zip([0, *borders], borders)]
    args.tile_overlap = min(args.tile_overlap, args.tile // 2)
    return args


def _whole_numbers(text: str, flag: str) -> list[int]:
    """Read `a-b-c`."""
    parts = str(text).split("-")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"{flag} '{text}' is not a whole number above 0, nor several joined by '-' as in 100-200")
    return [int(part) for part in parts]


def _betas(text: str) -> tuple[float, float]:
    """Read two numbers below 1, with any brackets, commas or a hyphen between."""
    parts = [part for part in re.split(r"[\s,()-]+", text) if part]
    try:
        first, second = map(float, parts)
    except ValueError:
        first = second = -1.0
    if not (0 <= first < 1 and 0 <= second < 1):
        raise UserError(f"--betas '{text}' is not two numbers from 0 to below 1, as in --betas 0.9 0.999")
    return first, second


def _ranges(text: str) -> list[tuple[int, int]]:
    """Read `a-b` or `a-b/c-d`, positions counted from 1."""
    if not text:
        return []
    parts = [part.split("-") for part in text.split("/")]
    if len(parts) > 2 or not all(len(part) == 2 and part[0].isdecimal() and part[1].isdecimal()
                                 and 1 <= int(part[0]) <= int(part[1]) for part in parts):
        raise UserError(f"--data_range '{text}' is not first-last or first-last/first-last with positions from 1, "
                        "as in 1-800/801-810 (training/test)")
    return [(int(first), int(last)) for first, last in parts]
