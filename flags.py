"""All flags of the command line, in the groups of --help."""
import argparse
import difflib
import math
import re
from argparse import BooleanOptionalAction
from collections.abc import Callable

import model
import runtime
from utility import UserError


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help with defaults, where there are any worth a word."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help if action.default in ("", False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str):
        unknown = re.match(r"unrecognized arguments: (--?[\w-]+)", message)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            close = difflib.get_close_matches(unknown[1], known, 1)
            message = f"unknown flag {unknown[1]}" + (f"; did you mean {close[0]}?" if close else "; see --help")
        raise UserError(message)


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """Return an argparse type: a finite number of that kind from low to high."""
    def convert(text: str):
        try:
            value = kind(text)
            fits = low <= value <= high and math.isfinite(value)
        except ValueError:
            fits = False
        if not fits:
            upper = f" to {high}" if high < math.inf else " upwards"
            raise argparse.ArgumentTypeError(f"'{text}' is not a {'whole ' * (kind is int)}number from {low:g}{upper}")
        return value
    return convert


def _interval(text: str) -> str:
    """Check an argparse value: `500` steps, `10m` minutes."""
    number(float, 0)(text.removesuffix("m")) if text.endswith("m") else number(int, 0)(text)
    return text


def _tile(text: str) -> str:
    """Check an argparse value: `auto`, or a side in pixels."""
    return text if text == "auto" else str(number(int, 16)(text))


COUNT, SIZE, EPOCHS = number(int, 0, 10**6), number(int, 1, 10**6), number(int, 1, 10**9)
REAL, RATIO = number(float, 0), number(float, 0, 1)


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

    add = result.add_argument_group("data").add_argument
    add("--dir_data", default="dataset", metavar="DIR", help="where the data sets are")
    add("--dir_demo", default="", metavar="DIR", help="a folder of pictures to restore, with --data_test Demo (or Folder)")
    add("--data_train", default="DIV2K", metavar="A+B",
        help="data sets to train on; any folder of --dir_data with input/ and target/ is one")
    add("--data_test", default="", metavar="A+B", help="data sets to test on; default: those of --data_train")
    add("--train_dir", default="", metavar="DIR", help="where the paths of a CSV list begin; default: --dir_data")
    add("--data_range", default="", metavar="a-b/c-d", help="images by position, to train on / to test on; with --test_only a-b alone")
    add("--audit", action=BooleanOptionalAction, default=True,
        help="before training, look for training images that show a scene of a test set (the first time takes a while; then cached)")
    add("--exclude_leaks", action=BooleanOptionalAction, default=False, help="leave such images out of the training")
    add("--ext", default="sep", choices=("sep", "sep_reset", "img"),
        help="sep, sep_reset: decode once into <dir_data>/bin, checked at every start; img: decode each time")
    add("--scale", default="1", help="kept from EDSR; restoration keeps the size, so only 1")
    add("--patch_size", default="64", metavar="N", help="side of the training crops")
    add("--rgb_range", type=number(float, 1e-6), default=255.0,
        help="range on which a network of that kind computes; images are in [0, 1] elsewhere")
    add("--n_colors", type=int, default=3, choices=(3,), help="colour channels")
    add("--augment", default="all", choices=("all", "mirror"), help="all 8 flips and turns, or mirroring left to right alone")
    add("--no_augment", action="store_true", help="no flips and turns")
    add("--balanced", action=BooleanOptionalAction, default=False,
        help="draw a data set first, then an image of it; --test_every 0 then counts the smallest set")
    add("--sigma", default="", metavar="a-b", help="noise levels drawn for the clean photos of a list, those of BSD400, WED and the like")
    add("--n_threads", type=number(int, 0, 256), default=2, help="processes that load data; changes no number")

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

    add = result.add_argument_group("losses that look at features (SCR, HCR, PCL, POCL, LPISL, UBS)").add_argument
    add("--weights_dir", default="", metavar="DIR",
        help="where ImageNet weights are, under torchvision's file names; default: downloaded at first use")
    add("--vgg_weights", default="", metavar="FILE", help="VGG's weights, torchvision's keys, half precision is fine")
    add("--vgg", type=int, default=0, choices=(0, 16, 19), help="which VGG; 0: the one of each loss's paper")
    add("--num_of_SegClass", type=SIZE, default=21, help="classes of the segmentation in UBS")

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
    add("--chop", action=BooleanOptionalAction, default=False, help="restore in tiles, whatever the memory; their side is --tile, or 512")
    add("--tile", type=_tile, default="auto", metavar="N",
        help="side of the tiles; pictures without truth get them by themselves where memory lacks, auto: as large as fits")
    add("--tile_overlap", type=COUNT, default=96, help="by how much tiles overlap; at most half a tile is used")
    add("--memory", type=number(float, 0), default=0.0, metavar="GIB",
        help="how much a process that restores pictures without truth may take; 0: what is available")
    add("--self_ensemble", action=BooleanOptionalAction, default=False, help="mean over the 8 flips and turns")
    add("--protocol", default="default", metavar="A+B",
        help="how results are measured; --list shows all; the first chooses the best model")
    add("--metrics", default="", metavar="A+B",
        help="further measures: ms_ssim, or any of pyiqa's (lpips, niqe, …) where that is installed")
    add("--test_precision", default="single", choices=list(runtime.PRECISIONS), help="precision of tests")

    add = result.add_argument_group("experiment").add_argument
    add("--save", default="test", metavar="NAME", help="results go to experiment/NAME")
    add("--load", default="", metavar="NAME", help="go on with experiment/NAME, with its flags")
    add("--resume", nargs="?", const="-1", default="0", metavar="N",
        help="go on with experiment/<save>: -1 at its newest state, auto likewise or from the start, "
             "N after epoch N (kept by --save_models); 0: no")
    add("--reset", action="store_true", help="empty experiment/<save> first; image caches stay")
    add("--save_every", type=_interval, default="10m", metavar="N", help="save the state every N steps, or Nm: minutes; 0: after epochs")
    add("--save_models", action=BooleanOptionalAction, default=False, help="keep the weights and the state of every tested epoch")
    add("--save_results", action=BooleanOptionalAction, default=False, help="save restored images as PNG (see --format)")
    add("--format", default="png", choices=("png", "jpg", "webp"),
        help="of restored pictures without truth; jpg and webp with quality 95. Scored results are always PNG")
    add("--skip_done", action=BooleanOptionalAction, default=True,
        help="keep results without truth that are newer than picture and weights and were made with the same flags")
    add("--report", action=BooleanOptionalAction, default=True,
        help="write report.html after a final test: numbers, curves, and every image to look at before and after")
    add("--save_maps", action=BooleanOptionalAction, default=False,
        help="save what else the network shows: masks, images of its stages, maps of its uncertainty")
    add("--save_gt", action=BooleanOptionalAction, default=False, help="save input, result and truth side by side")
    add("--logger", default="off", choices=("off", "tensorboard", "wandb"),
        help="curves and an example of every test, beside the log: to experiment/<save>/tensorboard or to Weights & Biases")
    add("--print_every", type=SIZE, default=100, help="steps between two lines of the log")

    add = result.add_argument_group("hardware").add_argument
    add("--cpu", action="store_true", help="use the CPU even where there is a GPU")
    add("--n_GPUs", type=COUNT, default=1, help="kept from EDSR; several GPUs: torchrun --nproc_per_node N main.py …")
    add("--precision", default="single", choices=list(runtime.PRECISIONS), help="precision of training (autocast)")

    own = result.add_argument_group(package.__name__.rpartition(".")[2])
    package.add_arguments(own)
    getattr(package, "add_training_arguments", lambda group: None)(own)
    unknown = set(defaults) - {action.dest for action in result._actions}
    if unknown:
        raise UserError(f"unknown flag '{sorted(unknown)[0]}' in a recipe, template or config")
    result.set_defaults(**defaults)
    return result
