"""The command line in two passes: first what names the model, then all flags with that model's own and its defaults."""
import argparse
import re
from argparse import BooleanOptionalAction, Namespace

import loss
import metric
import model
from data import flags as data_flags
from loss import flags as loss_flags
from metric import flags as metric_flags
from model import weights
from report import flags as report_flags
from restore import flags as restore_flags
from runtime import experiment, process
from runtime import flags as runtime_flags
from runtime.arguments import COUNT, EPOCHS, RATIO, REAL, SIZE, Formatter, Parser, number
from runtime.errors import UserError


def parse(argv: list[str] | None = None) -> Namespace:
    """Return all flags with what follows from them; UserError says what is wrong.

    Later wins: built-in defaults, the model's RECIPE and what its `recipe` makes of the flags, the template, what the
    --pre_train file says of itself, the flags of the experiment that is continued, --config, the command line. `flags`
    holds them as given, `_understand` adds their meaning under names of its own.
    """
    typed = _first_pass(argv)
    name, sources = _sources(typed)
    package = model.package(name)
    layers = [_converted(package, flags, what) for what, flags in sources]
    layers.append({key: typed[key] for key in ("epochs", "epoch_chg") if key in typed})
    full = parser(package, _fold([package.RECIPE, *layers]))
    if hasattr(package, "recipe"):        # a recipe that depends on flags
        full = parser(package, _fold([package.RECIPE, package.recipe(full.parse_args(argv)), *layers]))
    values = vars(full.parse_args(argv))
    values |= {"model": package.__name__.rpartition(".")[2], "betas": _joined(values["betas"], " "),
               "epoch_chg": _joined(full.get_default("epoch_chg"), "-"), "epochs": full.get_default("epochs"),
               "data_test": values["data_test"] or values["data_train"]}
    if "data_range" not in typed and _speaks_of_other_sets(typed, layers[:-1]):
        values["data_range"] = ""
    return _understand(Namespace(flags=dict(values), defaults=vars(full.parse_args([])),
                                 range_is_for_test=values["test_only"] and "data_range" in typed, **values))


def _first_pass(argv: list[str] | None) -> dict:
    """Return, of the flags that decide what other flags there are or mean, those that were typed."""
    first = Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name in ("--model", "--template", "--config", "--pre_train", "--load", "--save", "--data_train", "--data_test", "--data_range"):
        first.add_argument(name)
    first.add_argument("--resume", nargs="?", const="-1")
    first.add_argument("--test_only", action=BooleanOptionalAction)
    first.add_argument("--epochs", type=EPOCHS)
    first.add_argument("--epoch_chg", nargs="+")
    typed = vars(first.parse_known_args(argv)[0])
    if "epoch_chg" in typed:
        typed["epoch_chg"] = "-".join(typed["epoch_chg"])
        borders = _whole_numbers(typed["epoch_chg"], "--epoch_chg")
        if sorted(set(borders)) != borders:
            raise UserError(f"--epoch_chg {typed['epoch_chg']} does not rise; it names the epochs at which the stages end, "
                            "as in 135-238-314-347")
    if typed.get("load") and typed.get("save", typed["load"]) != typed["load"]:
        raise UserError(f"--load {typed['load']} goes on in experiment/{typed['load']}; leave out --save {typed['save']}, "
                        "or start a new experiment with --pre_train")
    return typed


def _sources(typed: dict) -> tuple[str, list[tuple[str, dict]]]:
    """Return the model's name, and what stands below the command line, the weakest first: (what says so, its flags)."""
    sources: list[tuple[str, dict]] = []
    if typed.get("template"):
        known = model.templates()
        if typed["template"] not in known:
            raise UserError(f"unknown template '{typed['template']}'; known: {', '.join(known)}")
        owner, flags = known[typed["template"]]
        sources.append((f"--template {typed['template']}", {**flags, "model": owner}))
    config = experiment.read_args(typed["config"]) if typed.get("config") else {}
    save = typed.get("load") or {**(sources[0][1] if sources else {}), **config, **typed}.get("save", "test")
    continued = bool(typed.get("load")) or typed.get("resume", "0") != "0"
    stored = experiment.stored_args(experiment.folder_of(save)) if continued else {}
    if typed.get("load") and not stored:
        raise UserError(f"--load {save}: there is no experiment of that name in {experiment.ROOT}/")
    pre_train = typed.get("pre_train", "")
    if typed.get("test_only") and continued and not pre_train:
        pre_train = str(experiment.folder_of(save) / "model" / "model_best.pt")
    if pre_train:
        stated = weights.describe(pre_train)
        if not typed.get("test_only"):
            stated = {key: value for key, value in stated.items() if not key.startswith("data_")}
        sources.append((f"the file {pre_train}", stated))
    if stored:
        sources.append((f"the experiment {save}", {**stored, "save": save}))
    if config:
        sources.append((f"--config {typed['config']}", config))
    sources.append(("", {"pre_train": pre_train} if pre_train else {}))
    name = str(typed.get("model", "")).lower()
    for source, flags in sources:
        owner = str(flags.get("model", name)).lower()
        if name and owner != name:
            raise UserError(f"{source} is of the model {owner}, which contradicts {name}; leave --model out or name {owner}")
        name = owner
    return name or model.DEFAULT, sources


def _speaks_of_other_sets(typed: dict, layers: list[dict]) -> bool:
    """Return whether an inherited --data_range was meant for other data sets than those that were typed."""
    stored = {key: value for layer in layers for key, value in layer.items()}
    before = {"data_train": stored.get("data_train"), "data_test": stored.get("data_test") or stored.get("data_train")}
    return any(key in typed and typed[key] != before[key] for key in before)


def _converted(package, flags: dict, what: str) -> dict:
    """Return flags that came from a file as if they had been typed; UserError for what could not have been."""
    actions = {action.dest: action for action in parser(package, {})._actions}
    result = {}
    for key, value in flags.items():
        if key not in actions:
            raise UserError(f"{what} sets an unknown flag '{key}'")
        action = actions[key]
        try:
            if isinstance(action.default, bool) or isinstance(value, bool):
                fits = isinstance(value, bool) and isinstance(action.default, bool)
            elif isinstance(action.default, list):
                fits = isinstance(value, list) and all(isinstance(part, str) for part in value)
            else:
                text = "-".join(map(str, value)) if isinstance(value, list) and action.nargs == "+" else str(value)
                value = action.type(text) if action.type else text
                fits = not action.choices or value in action.choices
        except (ValueError, argparse.ArgumentTypeError):
            fits = False
        if not fits:
            raise UserError(f"{what}: the flag '{key}' cannot be {value!r}; its usual value is {action.default!r}")
        result[key] = value
    return result


def _fold(layers: list[dict]) -> dict:
    """Return the layers' flags, later ones winning; `epochs` alone scales the stages' borders and the warm-up."""
    values: dict = {"epoch_chg": ""}
    for layer in layers:
        if "epochs" in layer and "warmup" not in layer and "epochs" in values and "warmup" in values:
            values["warmup"] *= layer["epochs"] / values["epochs"]
        values |= layer
        if "epochs" in layer and "epoch_chg" not in layer and values["epoch_chg"]:
            borders = _whole_numbers(values["epoch_chg"], "--epoch_chg")
            values["epoch_chg"] = "-".join(str(round(border * layer["epochs"] / borders[-1])) for border in borders)
        elif "epoch_chg" in layer and "epochs" not in layer and layer["epoch_chg"]:
            values["epochs"] = _whole_numbers(layer["epoch_chg"], "--epoch_chg")[-1]
    return values


def _joined(value: str | list[str], mark: str) -> str:
    return value if isinstance(value, str) else mark.join(value)


def _understand(args: Namespace) -> Namespace:
    """Add what the flags mean: stages, milestones, ranges; UserError for what cannot be."""
    if str(args.scale) not in ("1", "1.0"):
        raise UserError(f"--scale {args.scale}: images keep their size here, so --scale is 1 (or left out)")
    experiment.folder_of(args.save)
    args.milestones = _whole_numbers(args.decay, "--decay")
    args.adam_betas = _betas(args.betas)
    args.ranges = _ranges(args.data_range)
    args.sigmas = _sigmas(args.sigma)
    args.losses = [text.strip() for text in args.loss.split(" / ")]
    args.patch_sizes = _whole_numbers(args.patch_size, "--patch_size")
    args.batch_sizes = _whole_numbers(args.batch_size, "--batch_size")
    for text in args.losses:
        loss.parse(text)
    args.protocols = metric.protocols(args.protocol)
    args.extra_metrics = tuple(filter(None, args.metrics.split("+")))
    if max(args.patch_sizes) > 4096 or max(args.batch_sizes) > 65536:
        raise UserError(f"--patch_size {args.patch_size} --batch_size {args.batch_size}: no more than 4096 and 65536, please")
    for size in args.batch_sizes:
        if size % process.world():
            raise UserError(f"--batch_size {size} is the total over all processes and must divide by their number, {process.world()}")
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
    args.tile_given = args.tile != "auto"
    args.tile = int(args.tile) if args.tile_given else 512
    args.tile_overlap = min(args.tile_overlap, args.tile // 2)
    return args


def _whole_numbers(text: str, flag: str) -> list[int]:
    """Read `a-b-c`."""
    parts = str(text).split("-")
    if not all(part.isdecimal() and 0 < int(part) <= 10**9 for part in parts):
        raise UserError(f"{flag} '{text}' is not a whole number from 1 to 1000000000, nor several joined by '-' as in 100-200")
    return [int(part) for part in parts]


def _betas(text: str) -> tuple[float, float]:
    """Read two numbers below 1, with any brackets, commas or a hyphen between."""
    parts = [part for part in re.split(r"[\s,()]+|(?<!e)-", text) if part]
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


def _sigmas(text: str) -> tuple[int, int] | None:
    """Read `a-b`, two noise levels."""
    low, mark, high = text.partition("-")
    if text and not (mark and low.isdecimal() and high.isdecimal() and int(low) <= int(high) <= 255):
        raise UserError(f"--sigma '{text}' is not two noise levels from 0 to 255, as in --sigma 0-55")
    return (int(low), int(high)) if text else None


def parser(package, defaults: dict) -> Parser:
    """Return the full parser for a model's package; `defaults` override the built-in ones in --help and the result."""
    result = Parser(prog="main.py", allow_abbrev=False, formatter_class=Formatter,
                    description="Train, test and apply networks that restore photos taken in bad conditions.")
    add = result.add_argument_group("model").add_argument
    add("--model", default=model.DEFAULT, help="the system; --list shows all")
    add("--template", default="", help="a named set of flags; --list shows all")
    add("--pre_train", default="", metavar="FILE", help="weights to start from or to test: our files or the papers' released ones")
    add("--config", default="", metavar="JSON", help="run again with the flags of an experiment/<save>/args.json; the command line wins")
    add("--list", action="store_true", help="list models, templates, losses and data sets, and stop")

    data_flags.add_arguments(result)
    add = result.add_argument_group("training").add_argument
    add("--epochs", type=EPOCHS, default=300, help="epochs in all; scales the stages' borders and the warm-up")
    add("--epoch_chg", nargs="+", default="", metavar="N", help="the epochs at which the stages end, as 135-238-314")
    add("--test_every", type=COUNT, default=1000, help="steps of an epoch; 0: one pass over the data")
    add("--val_epochs", type=SIZE, default=1, help="test every N epochs")
    add("--batch_size", default="16", metavar="N", help="images a step, over all processes")
    add("--split_batch", type=SIZE, default=1, help="compute each batch in N parts, to save memory")
    add("--loss", default="1*L1", help="weight*Type[:prediction[:target]], joined by +; stages by ' / '")
    add("--ema", type=number(float, 0, 0.999999), default=0.0,
        help="decay of a moving average of the weights, which is then tested and saved; 0: none")
    add("--skip_threshold", type=number(float, 1e-6), default=1e8, help="skip a step whose loss exceeds this times the last epoch's")
    add("--seed", type=number(int, 0, 2**63 - 1), default=1, help="seed of weights, crops and order")

    loss_flags.add_arguments(result)
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

    for room in (restore_flags, metric_flags, report_flags, runtime_flags):
        room.add_arguments(result)

    own = result.add_argument_group(package.__name__.rpartition(".")[2])
    package.add_arguments(own)
    getattr(package, "add_training_arguments", lambda group: None)(own)
    unknown = set(defaults) - {action.dest for action in result._actions}
    if unknown:
        raise UserError(f"unknown flag '{sorted(unknown)[0]}' in a recipe, template or config")
    result.set_defaults(**defaults)
    return result
