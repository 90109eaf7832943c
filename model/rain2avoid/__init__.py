"""Rain2Avoid: a rainy picture teaches a network to derain it, without any clean image (ICASSP 2023)."""
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
STRATEGIES = {                            # what else holds by strategy
    "single": dict(epochs=100, batch_size="1", patch_size="256"),          # crops; 4096 takes pictures whole, as the paper does
    "online": dict(epochs=100, batch_size="1", patch_size="256"),
    "multiple": dict(epochs=2000, batch_size="64", patch_size="64", val_epochs=100),
}
ODD = number(int, 3, 15)


def add_arguments(group) -> None:
    """Add the flags of the network: the backbone and its own."""
    group.add_argument("--backbone", type=_backbone, default="Unet", metavar="NAME",
                       help="the network: Unet, ResNet, DnCNN, Restormer, DRSFormer (the paper's), or any other model; "
                            "its own flags stand in brackets, as in 'sapnet(recurrent_iter=3, use_dilation=false)'")
    group.add_argument("--channels", type=COUNT, default=0, help="width of the backbone; 0: its own default")
    group.add_argument("--blocks", default="", help="the backbone's --blocks, where it has such a flag")


def add_training_arguments(group) -> None:
    """Add the flags of the three steps."""
    add = group.add_argument
    add("--strategy", default="single", choices=list(STRATEGIES),
        help="single: a network per picture; online: its references are drawn while it learns; multiple: one network for the set")
    add("--steps", default="all", choices=("all", "ldgp", "nss", "learn"),
        help="ldgp: make maps of rain; nss: derained references; learn: train on the maps that are there; all of it")
    add("--dir_out", default="", metavar="DIR", help="maps, references and results go to DIR/<set>; default: --dir_data")
    add("--ldgp_patch", type=number(int, BLOCK * CELL), default=80, help="side of the patches that vote on the rain's direction")
    add("--kernel_size", type=SIZE, default=10, help="least length of a streak, in pixels")
    add("--threshold", type=number(int, 0, 254), default=10, help="pixels whose map is above it are rain")
    add("--pow", type=REAL, default=0.5, help="a candidate's weight is 1 / distance**pow")
    add("--K", type=ODD, default=7, help="side of the window in which candidates are looked for, odd")
    add("--k", type=ODD, default=3, help="side of the windows that are compared, odd")
    add("--sdr_num", type=SIZE, default=50, help="references per picture")
    add("--nss_sampling", default="seeded", choices=SAMPLINGS, help="released: as the released program, the same numbers for every pixel")
    add("--sdr_together", type=SIZE, default=25, help="references whose mean is the target of a step; the paper's is 1, 25 times as slow")
    add("--export_sdr", action=argparse.BooleanOptionalAction, default=False, help="write all references, not only their mean")
    add("--keep_clean", action=argparse.BooleanOptionalAction, default=True,
        help="pixels that are no rain by the map stay as they are; --no-keep_clean takes the network's answer everywhere, as the paper")
    add("--blend", type=RATIO, default=0.5,
        help="in pixels of rain, the share of the network's answer; the rest is the mean of the references")
    add("--plateau", type=COUNT, default=0, help="single, online: end when the loss stays where it is for N epochs; 0: never")
    add("--warm_start", action=argparse.BooleanOptionalAction, default=False,
        help="single, online: begin with the network of the picture before")


def recipe(args) -> dict:
    """Return what the strategy sets."""
    return STRATEGIES[args.strategy]


def _backbone(text: str) -> str:
    """Return a value of --backbone with its model's name in lower case."""
    name, mark, rest = text.partition("(")
    return name.strip().lower() + mark + rest


def build(args) -> Method:
    """Return the backbone's method; UserError for a model that is none, or flags that it does not have."""
    name, mark, rest = args.backbone.partition("(")
    package = model.package(name)
    if package.__name__ == __name__:
        raise UserError(f"--backbone {name} is this system itself; a backbone is any other model: "
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
            raise UserError(f"--backbone '{args.backbone}': {flag} is true or false, not '{value}'")
        typed += [] if action.nargs == 0 else [f"--{flag}={value}"]
        if action.nargs == 0:
            own.set_defaults(**{flag: value.lower() == "true"})
    return package.build(Namespace(model=name, rgb_range=args.rgb_range, n_colors=args.n_colors, **vars(own.parse_args(typed))))


def command_line(argv: list[str]) -> list[str]:
    """Return a command line with the backbone's own flags in the brackets of --backbone: `--backbone sapnet --recurrent_iter 3`
    becomes `--backbone sapnet(recurrent_iter=3)`, the form that files keep."""
    chosen = Parser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--backbone", default="")
    backbone = chosen.given(argv, others=True).get("backbone", "").lower()
    if backbone not in model.MODELS or f"model.{backbone}" == __name__:
        return argv
    own, ours = Parser(add_help=False, allow_abbrev=False), model.own_flags(__name__.rpartition(".")[2])
    for flag, action in model.own_flags(backbone).items():
        if flag not in ours:
            own._add_action(action)
    given, rest = own.given(argv, others=True), own.parse_known_args(argv)[1]
    inner = ", ".join(f"{flag}={str(value).lower() if isinstance(value, bool) else value}" for flag, value in given.items())
    return [*rest, "--backbone", f"{backbone}({inner})"] if given else argv


def _own_flags(backbone: str, rest: str) -> dict[str, str]:
    """Read `a=1, b=2)`, what follows the bracket of --backbone; UserError for anything else."""
    pairs = [[part.strip() for part in each.split("=")] for each in rest.removesuffix(")").split(",")]
    if not rest.endswith(")") or not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise UserError(f"--backbone '{backbone}': the flags of a backbone are written as name(flag=value, flag=value)")
    return dict(pairs)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state as it is: released names are the business of the backbone's package."""
    return state


def trains(args) -> bool:
    """Return whether --steps asks for more than maps and references, which belong to no experiment."""
    return args.steps in ("all", "learn")


def runs(args) -> Iterator[Run]:
    """Yield a run per picture, or one for a set; see learning.py. UserError for windows that cannot be."""
    for name in ("K", "k"):
        if not getattr(args, name) % 2:
            raise UserError(f"--{name} {getattr(args, name)}: windows are odd, so that they have a middle")
    if args.k > args.K:
        raise UserError(f"--k {args.k} is larger than --K {args.K}, the window in which candidates are looked for")
    return learning.runs(args, build(args))
