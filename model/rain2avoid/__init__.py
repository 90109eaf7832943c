"""Rain2Avoid: trains a network to derain images from the rainy images alone, without clean images (ICASSP 2023)."""
import argparse
from argparse import Namespace
from collections.abc import Iterator

from torch import Tensor

import model
from contract import Run
from model.method import Method
from model.rain2avoid import learning
from model.rain2avoid.hog import BLOCK, CELL
from model.rain2avoid.nss import SAMPLINGS
from runtime.arguments import COUNT, RATIO, REAL, SIZE, Parser, number
from runtime.errors import UserError

RECIPE = dict(loss="1*MSE", optimizer="ADAM", lr=1e-3, gamma=1.0, test_every=0, data_train="Folder", augment="mirror", audit=False)
TINY = dict(channels=4)                   # a small network, for the tests
STRATEGIES = {                            # further defaults of each strategy
    "single": dict(epochs=100, batch_size="1", patch_size="256"),          # crops; 4096 trains on whole images, as in the paper
    "online": dict(epochs=100, batch_size="1", patch_size="256"),
    "multiple": dict(epochs=2000, batch_size="64", patch_size="64", val_epochs=100),
}
ODD = number(int, 3, 15)


def add_arguments(group) -> None:
    """Add the flags that the network depends on: the backbone and the flags of the backbone."""
    group.add_argument("--backbone", type=_backbone, default="Unet", metavar="NAME",
                       help="the network: Unet, ResNet, DnCNN, Restormer, DRSFormer (those of the paper), or any other model; "
                            "its flags follow in brackets, for example 'sapnet(recurrent_iter=3, use_dilation=false)'")
    group.add_argument("--channels", type=COUNT, default=0, help="width of the backbone; 0: the default of the backbone")
    group.add_argument("--blocks", default="", help="value of --blocks for a backbone that has this flag")


def add_training_arguments(group) -> None:
    """Add the flags of the three steps: maps, references, training."""
    add = group.add_argument
    add("--strategy", default="single", choices=list(STRATEGIES),
        help="single: one network per image; online: the same, with references drawn in training; multiple: one network for the set")
    add("--steps", default="all", choices=("all", "ldgp", "nss", "learn"),
        help="ldgp: make maps of rain; nss: make derained references; learn: train with the existing maps; all: all three steps")
    add("--dir_out", default="", metavar="DIR", help="write maps, references and results to DIR/<set>; default: --dir_data")
    add("--ldgp_patch", type=number(int, BLOCK * CELL), default=80,
        help="side of the patches from which the direction of rain is estimated, in pixels")
    add("--kernel_size", type=SIZE, default=10, help="minimum length of a rain streak, in pixels")
    add("--map_confidence", type=RATIO, default=0.5,
        help="streaks of a map are left out if the confidence that they are rain and not texture is lower; 0: none, as in the paper")
    add("--threshold", type=number(int, 0, 254), default=10, help="a pixel is rain if its value in the map is greater than this")
    add("--pow", type=REAL, default=0.5, help="the weight of a candidate is 1 / distance**pow")
    add("--K", type=ODD, default=7, help="side of the window that is searched for candidates, an odd number of pixels")
    add("--k", type=ODD, default=3, help="side of the windows that are compared, an odd number of pixels")
    add("--sdr_num", type=SIZE, default=50, help="number of references per image")
    add("--nss_sampling", default="seeded", choices=SAMPLINGS,
        help="seeded: numbers for each pixel, from --seed; released: the same numbers for all pixels, as in the released program")
    add("--sdr_together", type=SIZE, default=25,
        help="number of references whose mean is the target of a training step; the paper uses 1, which takes 25 times as long")
    add("--export_sdr", action=argparse.BooleanOptionalAction, default=False, help="write all references, not only their mean")
    add("--keep_clean", action=argparse.BooleanOptionalAction, default=True,
        help="keep the pixels that are not rain in the map; --no-keep_clean uses the network's output everywhere, as in the paper")
    add("--blend", type=RATIO, default=0.5,
        help="weight of the network's output in rain pixels; the mean of the references has the remaining weight")
    add("--plateau", type=COUNT, default=0, help="single, online: end a stage when the loss has not fallen for N epochs; 0: never")
    add("--warm_start", action=argparse.BooleanOptionalAction, default=False,
        help="single, online: start from the network of the previous image")


def recipe(args) -> dict:
    """Return the defaults that --strategy sets."""
    return STRATEGIES[args.strategy]


def _backbone(text: str) -> str:
    """Return a value of --backbone with the name of the model in lower case."""
    name, mark, rest = text.partition("(")
    return name.strip().lower() + mark + rest


def build(args) -> Method:
    """Return the backbone's method; raises UserError for a model that cannot be a backbone, or for flags that it does not have."""
    name, mark, rest = args.backbone.partition("(")
    package = model.package(name)
    if package.__name__ == __name__:
        raise UserError(f"--backbone {name} is this model itself; a backbone is any other model: "
                        f"{', '.join(each for each in model.MODELS if each != name)}")
    own = Parser(prog="main.py", add_help=False, allow_abbrev=False)
    package.add_arguments(own)
    known = {action.dest: action for action in own._actions}
    own.set_defaults(**{key: value for key, value in package.RECIPE.items() if key in known})
    given = {"channels": str(args.channels or ""), "blocks": args.blocks}
    given = {key: value for key, value in given.items() if value} | (_own_flags(args.backbone, rest) if mark else {})
    typed = []
    for flag, value in given.items():
        if flag not in known:
            raise UserError(f"the backbone {name} has no flag --{flag}; it has {', '.join(f'--{each}' for each in known) or 'none'}")
        action = known[flag]
        if action.nargs == 0 and value.lower() not in ("true", "false"):
            raise UserError(f"--backbone '{args.backbone}': {flag} must be true or false, not '{value}'")
        typed += [] if action.nargs == 0 else [f"--{flag}={value}"]
        if action.nargs == 0:
            own.set_defaults(**{flag: value.lower() == "true"})
    return package.build(Namespace(model=name, rgb_range=args.rgb_range, n_colors=args.n_colors, **vars(own.parse_args(typed))))


def command_line(argv: list[str]) -> list[str]:
    """Return the command line with the backbone's flags moved into the brackets of --backbone, as model files store them.

    `--backbone sapnet --recurrent_iter 3` becomes `--backbone sapnet(recurrent_iter=3)`.
    """
    chosen = Parser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--backbone", default="")
    backbone = chosen.given(argv, others=True).get("backbone", "").lower()
    if not backbone or "(" in backbone or f"model.{backbone}" == __name__:
        return argv
    own, ours = Parser(add_help=False, allow_abbrev=False), model.own_flags(__name__.rpartition(".")[2])
    for flag, action in model.own_flags(backbone).items():
        if flag not in ours:
            own._add_action(action)
    given, rest = own.given(argv, others=True), own.parse_known_args(argv)[1]
    inner = ", ".join(f"{flag}={str(value).lower() if isinstance(value, bool) else value}" for flag, value in given.items())
    return [*rest, "--backbone", f"{backbone}({inner})"] if given else argv


def _own_flags(backbone: str, rest: str) -> dict[str, str]:
    """Parse the text after the opening bracket of --backbone, `a=1, b=2)`; raises UserError for any other form."""
    pairs = [[part.strip() for part in each.split("=")] for each in rest.removesuffix(")").split(",")]
    if not rest.endswith(")") or not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise UserError(f"--backbone '{backbone}': write the flags of a backbone as name(flag=value, flag=value)")
    return dict(pairs)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state unchanged, because the package of the backbone renames released tensors."""
    return state


def trains(args) -> bool:
    """Return True if --steps includes training; maps and references alone do not make an experiment."""
    return args.steps in ("all", "learn")


def runs(args) -> Iterator[Run]:
    """Yield one run per image, or one for a set (see learning.py); raises UserError for invalid windows."""
    for name in ("K", "k"):
        if not getattr(args, name) % 2:
            raise UserError(f"--{name} must be odd, so that the window has a middle pixel, not {getattr(args, name)}")
    if args.k > args.K:
        raise UserError(f"--k {args.k} is larger than --K {args.K}, the window that is searched for candidates")
    return learning.runs(args, build(args))
