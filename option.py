"""The command line: selects the model, merges the sources of flag values, and converts the values."""
import argparse
import functools
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import loss
import metric
import model
from contract import Stage
from data import benchmarks
from data import flags as data_flags
from loss import flags as loss_flags
from metric import flags as metric_flags
from model import weights
from report import flags as report_flags
from restore import flags as restore_flags
from runtime import arguments, experiment, process
from runtime import flags as runtime_flags
from runtime.arguments import COUNT, EPOCHS, RATIO, REAL, SIZE, Formatter, Joined, Parser, number
from runtime.errors import UserError, shown

DEFAULT, TYPED = "default", "typed"       # names of the first and the last source
# Functions that convert the text of a flag. args holds the result, args.flags the text.
# Texts whose meaning depends on other flags are converted in _interpret and _stages.
READERS: dict[str, Callable[[str], Any]] = {
    "decay": functools.partial(arguments.whole_numbers, flag="--decay"),
    "betas": arguments.betas,
    "sigma": arguments.noise_levels,
    "protocol": metric.protocols,
    "metrics": lambda text: tuple(filter(None, text.split("+"))),
}
COLUMN = 48                               # largest width in characters of the column of flags in --explain
ADDED = ("flags", "origin", "stages")     # attributes of args that are not flags


class Source(NamedTuple):
    """One source of flag values: its name in words, and the values in the form of args.json."""
    name: str
    flags: dict[str, Any]


def parse(argv: list[str] | None = None) -> Namespace:
    """Return all flags of a command line with converted values; raises UserError for an invalid flag or value.

    Values come from these sources; a later source overrides an earlier one: the built-in defaults, the model's RECIPE, the
    result of its `recipe` function, the template, the arguments stored in the --pre_train file, the args.json of the
    experiment that is continued, --config, the command line. The result also has the attributes `flags` (the values as
    args.json stores them), `origin` (the name of the source of each value) and `stages` (the training plan).
    """
    name, stored = _stored(parser().given(argv, others=True))
    package = model.package(name)
    full = parser(package)
    argv = getattr(package, "command_line", list)(sys.argv[1:] if argv is None else argv)       # a model package may rewrite its flags
    default = Source(DEFAULT, full.defaults())
    lower = [_checked(full, source) for source in (Source(f"recipe {name}", package.RECIPE), *stored)]
    full.set_defaults(**_fold([default, *lower])[0])                     # --help shows these defaults
    typed = Source(TYPED, full.given(argv))
    arguments.check_rising(typed.flags.get("epoch_chg", ""))
    if hasattr(package, "recipe"):        # a recipe that depends on other flags
        flags, _ = _fold([default, *lower, typed])
        lower.insert(1, _checked(full, Source(f"recipe {name}", package.recipe(Namespace(**flags)))))
    flags, origin = _fold([default, *lower, typed])
    flags["model"] = name
    if flags["test_only"] and "dir_demo" in typed.flags and "data_test" not in typed.flags:
        flags["data_test"], origin["data_test"] = "Demo", f"{TYPED}, follows from --dir_demo"
    if not flags["data_test"]:
        flags["data_test"], origin["data_test"] = flags["data_train"], f"{origin['data_train']}, follows from --data_train"
    return _interpret(flags, origin)


def explained(args: Namespace) -> str:
    """Return one line for each flag that is not at its built-in default: the flag as typed, and the source of its value."""
    defaults = parser(model.package(args.model)).defaults()
    rows = [(_as_typed(flag, value), args.origin[flag])
            for flag, value in args.flags.items() if value != defaults[flag] and flag != "explain"]
    width = min(max((len(text) for text, _ in rows), default=0), COLUMN)
    return "\n".join(f"{text:{width}}   {source}" for text, source in rows)


def _as_typed(flag: str, value: object) -> str:
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return " ".join([f"--{flag}", *(shlex.quote(str(part)) for part in (value if isinstance(value, list) else [value]))])


def _stored(typed: dict) -> tuple[str, list[Source]]:
    """Return the model's name and the sources that the typed flags select, in the order template, file, experiment, config."""
    if typed.get("load") and typed.get("save", typed["load"]) != typed["load"]:
        raise UserError(f"--load {typed['load']} continues in experiment/{typed['load']}; leave out --save {typed['save']}, "
                        "or start a new experiment with --pre_train")
    sources = [_template(typed["template"])] if typed.get("template") else []
    config = experiment.read_args(typed["config"]) if typed.get("config") else {}
    save = typed.get("load") or ((sources[0].flags if sources else {}) | config | typed).get("save", "test")
    continued = bool(typed.get("load")) or typed.get("resume", "0") != "0"
    folder = experiment.folder_of(save) if continued else None
    trained_with = experiment.stored_args(folder) if folder else {}
    if typed.get("load") and not trained_with:
        raise UserError(f"--load {save}: no experiment of that name exists in {experiment.ROOT}/")
    best = str(folder / "model" / "model_best.pt") if folder and typed.get("test_only") and not typed.get("pre_train") else ""
    file = typed.get("pre_train") or best
    if file:
        stated = weights.describe(file)
        if not typed.get("test_only"):    # a training does not take over the data flags
            stated = {key: value for key, value in stated.items() if not key.startswith("data_")}
        sources.append(Source(f"file {file}", stated))
    if folder and trained_with:
        sources.append(Source(str(folder / "args.json"), {**trained_with, "save": save}))
    if config:
        sources.append(Source(f"config {typed['config']}", config))
    if best:                              # overrides the training's own --pre_train, which names its initial weights
        sources.append(Source(f"best weights of {folder}", {"pre_train": best}))
    name = str(typed.get("model", "")).lower()
    for source in sources:
        owner = str(source.flags.get("model", name)).lower()
        if name and owner != name:
            raise UserError(f"{source.name} belongs to the model {owner}, which contradicts {name}; "
                            f"leave out --model or use --model {owner}")
        name = owner
    return name or model.DEFAULT, sources


def _template(name: str) -> Source:
    known = model.templates()
    if name not in known:
        raise UserError(f"unknown template '{name}'; known: {', '.join(known)}")
    owner, flags = known[name]
    return Source(f"template {name}", {**flags, "model": owner})


def _checked(full: Parser, source: Source) -> Source:
    """Return a source with its values converted as typed flags are; raises UserError for an unknown flag or an invalid value."""
    known, result = full.defaults(), {}
    for flag, value in source.flags.items():
        if flag not in known:
            raise UserError(f"{source.name} sets an unknown flag '{flag}'")
        if full.names_code(flag):         # only what is typed names code; args.json states it for its reader
            continue
        try:
            result[flag] = full.converted(flag, value)
        except ValueError as error:
            raise UserError(f"{source.name}: the flag '{flag}' cannot be {shown(value)}; its usual value is {known[flag]!r}") from error
    return Source(source.name, result)


def _fold(sources: list[Source]) -> tuple[dict, dict[str, str]]:
    """Return the value of each flag and the name of its source; a later source overrides an earlier one."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source in sources:
        for flag, value, cause in _consequences(values, source.flags) if values else ():
            values[flag], origin[flag] = value, f"{source.name}, follows from --{cause}"
        values |= source.flags
        origin |= dict.fromkeys(source.flags, source.name)
    return values, origin


def _consequences(values: dict, changes: dict) -> list[tuple[str, Any, str]]:
    """Return the values that must change together with `changes`: (flag, new value, flag that causes it).

    A new `epochs` without `epoch_chg` scales the ends of the stages, and likewise `warmup` and `hold`; a new `epoch_chg` without `epochs`
    sets `epochs`; other data sets reset `data_range`, which was given for the previous ones; a benchmark in `data_test` sets `protocol`;
    `augment` ends a `no_augment`.
    """
    found = []
    if "epochs" in changes and changes["epochs"] != values["epochs"]:
        found += [(flag, values[flag] * (changes["epochs"] / values["epochs"]), "epochs")
                  for flag in ("warmup", "hold") if flag not in changes]
    if "epochs" in changes and "epoch_chg" not in changes and values["epoch_chg"]:
        ends = arguments.whole_numbers(values["epoch_chg"], "--epoch_chg")
        found.append(("epoch_chg", "-".join(map(str, arguments.scaled(ends, changes["epochs"]))), "epochs"))
    if changes.get("epoch_chg") and "epochs" not in changes:
        found.append(("epochs", arguments.whole_numbers(changes["epoch_chg"], "--epoch_chg")[-1], "epoch_chg"))
    before = {"data_train": values["data_train"], "data_test": values["data_test"] or values["data_train"]}
    other = [flag for flag in before if changes.get(flag, before[flag]) != before[flag]]
    if other and values["data_range"] and "data_range" not in changes:
        found.append(("data_range", "", other[0]))
    found += [("no_augment", False, "augment")] if "augment" in changes and "no_augment" not in changes else []
    if changes.get("data_test") and "protocol" not in changes:
        own = benchmarks.protocol_of(changes["data_test"], changes.get("dir_data", values["dir_data"]))
        found += [("protocol", own, "data_test")] if own else []
    return [(flag, value, cause) for flag, value, cause in found if value != values[flag]]


def _interpret(flags: dict, origin: dict[str, str]) -> Namespace:
    """Return the flags with their texts converted; raises UserError for invalid values or combinations."""
    if flags["scale"] not in ("1", "1.0"):
        raise UserError(f"--scale {flags['scale']}: this program keeps the image size, so --scale is 1 (or left out)")
    experiment.folder_of(flags["save"])
    meaning = {flag: read(flags[flag]) for flag, read in READERS.items()}
    metric.check_best(flags["best"], meaning["protocol"], meaning["metrics"])
    both = flags["test_only"] and origin["data_range"] == TYPED          # of a test alone, a typed range also selects test images
    meaning["data_range"] = arguments.ranges(flags["data_range"], both)
    if both and flags["data_range"] and "/" not in flags["data_range"]:
        flags["data_range"] += f"/{flags['data_range']}"                 # args.json says which images were tested
    meaning["tile"] = int(flags["tile"]) if flags["tile"] != "auto" else 512 if flags["chop"] else None
    meaning["tile_overlap"] = min(flags["tile_overlap"], (meaning["tile"] or 512) // 2)
    return Namespace(**{**flags, **meaning}, flags=flags, origin=origin, stages=_stages(flags))


def _stages(flags: dict) -> list[Stage]:
    """Return the training plan; loss, patch size and batch size have one value for all stages or one value per stage."""
    losses = [text.strip() for text in flags["loss"].split(" / ")]
    patches, batches = (arguments.whole_numbers(flags[flag], f"--{flag}") for flag in ("patch_size", "batch_size"))
    for text in losses:
        loss.parse(text)
    if max(patches) > 4096 or max(batches) > 65536:
        raise UserError(f"--patch_size {flags['patch_size']} --batch_size {flags['batch_size']}: the maxima are 4096 and 65536")
    for size in batches:
        if size % process.world():
            raise UserError(f"--batch_size {size} is the total over all processes and must be divisible by their number, {process.world()}")
    ends = arguments.whole_numbers(flags["epoch_chg"], "--epoch_chg") if flags["epoch_chg"] else []
    several = {"--loss": losses, "--patch_size": patches, "--batch_size": batches}
    count = max(len(ends), *map(len, several.values()))
    for flag, given in several.items():
        if len(given) not in (1, count):
            raise UserError(f"{flag} has {len(given)} values for {count} stages; give 1 or {count}")
        given *= count // len(given)
    ends = ends or arguments.scaled(list(range(1, count + 1)), flags["epochs"])
    if len(ends) != count or ends[-1] != flags["epochs"] or sorted(ends) != ends:
        raise UserError(f"--epoch_chg {flags['epoch_chg']}: {count} stages need {count} rising epochs, "
                        f"and the last one must equal --epochs {flags['epochs']}")
    lengths = [end - start for start, end in zip([0, *ends], ends)]
    return [Stage(*values) for values in zip(lengths, losses, patches, batches)]


def parser(package: ModuleType | None = None) -> Parser:
    """Return the parser of the core flags and, if given, of a model package's flags; without a package it has no --help."""
    result = Parser(prog="main.py", allow_abbrev=False, formatter_class=Formatter, add_help=package is not None,
                    description="Train, test and apply networks that restore photos taken in bad conditions.")
    add = result.add_argument_group("model").add_argument
    add("--model", default=model.DEFAULT, help="the model; --list shows all")
    add("--template", default="", help="a named set of flags; --list shows all")
    add("--pre_train", default="", metavar="FILE", help="weights to start from or to test: a file of this program or of a paper")
    add("--config", default="", metavar="JSON", help="use the flags of an experiment/<save>/args.json; typed flags override them")
    add("--list", action="store_true", help="print models, templates, losses, data sets, benchmarks, metrics and protocols, and exit")
    add("--explain", action="store_true", help="print each flag that is not at its built-in default and the source of its value, and exit")

    data_flags.add_arguments(result)
    add = result.add_argument_group("training").add_argument
    add("--epochs", type=EPOCHS, default=300,
        help="number of epochs; unless they are given, --epoch_chg, --warmup and --hold change in proportion to it")
    add("--epoch_chg", nargs="+", action=Joined, mark="-", default="", metavar="N", help="epochs at which stages end, as in 135-238-314")
    add("--test_every", type=COUNT, default=1000, help="steps per epoch; 0: one pass over the data")
    add("--val_epochs", type=SIZE, default=1, help="test after every N epochs")
    add("--batch_size", default="16", metavar="N", help="images per step, total over all processes")
    add("--split_batch", type=arguments.parts, default=1, metavar="N",
        help="compute each batch in N parts to save memory; auto: in as few parts as fit into the memory")
    add("--loss", default="1*L1", help="terms weight*Type[:prediction[:target]] joined by +; the losses of stages are joined by ' / '")
    add("--ema", type=number(float, 0, 0.999999), default=0.0,
        help="decay of a moving average of the weights; the average is tested and saved; 0: no average")
    add("--skip_threshold", type=number(float, 1e-6), default=1e8,
        help="skip a step whose loss exceeds this factor times the mean loss of the last epoch")
    add("--rollback", type=COUNT, default=0,
        help="when a training diverges, return to the last good state with half the learning rate, at most N times")
    add("--detect", action="store_true", help="name the module whose output is not finite first when a step is skipped; slower")
    add("--seed", type=number(int, 0, 2**63 - 1), default=1, help="seed of the initial weights, the crops and the order of images")

    loss_flags.add_arguments(result)
    add = result.add_argument_group("optimisation").add_argument
    add("--optimizer", type=str.upper, default="ADAM", choices=("SGD", "ADAM", "ADAMW", "RMSPROP"), help="optimiser")
    add("--lr", type=REAL, default=1e-4, help="learning rate")
    add("--schedule", default="step", choices=("step", "cosine", "hold_cosine"), help="schedule of the learning rate")
    add("--decay", default="200", metavar="a-b-c", help="epochs after which the step schedule multiplies the learning rate by --gamma")
    add("--gamma", type=RATIO, default=0.5, help="factor of the step schedule")
    add("--lr_min", type=REAL, default=1e-6, help="final learning rate of the cosine schedules")
    add("--hold", type=REAL, default=0.0, help="hold_cosine: epochs before the learning rate begins to fall")
    add("--warmup", type=REAL, default=0.0, help="epochs during which the learning rate rises linearly from 0")
    add("--momentum", type=RATIO, default=0.9, help="momentum of SGD and RMSprop")
    add("--betas", nargs="+", action=Joined, mark=" ", default="0.9 0.999", help="betas of Adam and AdamW")
    add("--epsilon", type=REAL, default=1e-8, help="epsilon of Adam, AdamW and RMSprop")
    add("--weight_decay", type=REAL, default=0.0, help="weight decay")
    add("--gclip", type=REAL, default=0.0, help="clip each gradient element to this absolute value; 0: no clipping")
    add("--gclip_norm", type=REAL, default=0.0, help="scale the gradient to at most this norm over all parameters; 0: no clipping")

    for room in (restore_flags, metric_flags, report_flags, runtime_flags):
        room.add_arguments(result)

    if package:
        _add_own(result, package)
    return result


def _add_own(result: Parser, package: ModuleType) -> None:
    """Add the flags of a model package; raises UserError for a flag that already exists."""
    name, core = package.__name__.rpartition(".")[2], result.defaults()
    own = result.add_argument_group(name)
    try:
        package.add_arguments(own)
        getattr(package, "add_training_arguments", lambda group: None)(own)
    except argparse.ArgumentError as error:
        flag = str(error).rpartition(" ")[2]
        raise UserError(f"the package model/{name} adds the flag {flag}, which already exists; rename it there") from error
    for flag in (action.dest for action in own._group_actions):
        if flag in core or flag in ADDED:
            raise UserError(f"the package model/{name} adds a flag that is stored as args.{flag}, which already exists; rename it there")
