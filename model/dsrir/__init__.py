"""DSRIR: dynamic spatial refinement for progressive all-in-one restoration of noise, rain and haze."""
from pathlib import Path

from torch import Tensor

from contract import Prediction
from model import names
from model.dsrir.network import DSRIR
from model.method import Method
from runtime.arguments import SIZE, is_whole
from runtime.errors import UserError

RECIPE = dict(optimizer="ADAMW", lr=2e-4, weight_decay=1e-4, betas="0.9 0.999", schedule="cosine", warmup=3.0, lr_min=1e-6,
              loss="1*Uncertainty:restored:image+1*PSNR+0.25*PSNR:restored.1:image+0.25*PSNR:restored.2:image+0.2*POCL",
              patch_size="128-160-192-256", batch_size="16-14-12-8", epochs=347, epoch_chg="135-238-314-347", test_every=0,
              val_epochs=5, sigma="0-55", data_train="", data_test="")
TINY = dict(channels=16)                  # a small network, for the tests
ITERATIONS = (128_000, 112_000, 96_000, 64_000)           # steps of each of the four phases
IMAGES = {"all_in_one": 15_144, "noise": 5_244, "rain": 5_000, "haze": 5_000}       # number of lines in the released lists
TESTS = {"noise": [f"{name}@{sigma}" for name in ("CBSD68", "Urban100") for sigma in (15, 25, 50)],
         "rain": ["Rain100L"], "haze": ["SOTS_outdoor"]}
TESTS["all_in_one"] = [*TESTS["noise"][:3], *TESTS["rain"], *TESTS["haze"]]

# beginning of a released name -> the name here
RELEASED = {
    "ebd": "embedding",
    "SN1.encoder1": "subnet1.encoders.0",
    "SN1.encoder2": "subnet1.encoders.1",
    "SN1.encoder3": "subnet1.encoders.2",
    "SN1.decoder1": "subnet1.decoders.0",
    "SN1.decoder2": "subnet1.decoders.1",
    "SN1.decoder3": "subnet1.decoders.2",
    "SN1.skipatt1": "subnet1.skips.0",
    "SN1.skipatt2": "subnet1.skips.1",
    "SN1.down1.down.1": "subnet1.downs.0.conv",
    "SN1.down2.down.1": "subnet1.downs.1.conv",
    "SN1.up1.up.1": "subnet1.ups.0.conv",
    "SN1.up2.up.1": "subnet1.ups.1.conv",
    "SN2.encoder1": "subnet2.encoders.0",
    "SN2.encoder2": "subnet2.encoders.1",
    "SN2.decoder1": "subnet2.decoders.0",
    "SN2.decoder2": "subnet2.decoders.1",
    "SN2.skipatt1": "subnet2.skips.0",
    "SN2.down1.down.1": "subnet2.downs.0.conv",
    "SN2.up1.up.1": "subnet2.ups.0.conv",
    "SN3.PAG1.body.4": "subnet3.0.tail",
    "SN3.PAG2.body.4": "subnet3.1.tail",
    "SN3.PAG3.body.4": "subnet3.2.tail",
    "SN3.PAG4.body.4": "subnet3.3.tail",
    "SN3.PAG1.body": "subnet3.0.blocks",
    "SN3.PAG2.body": "subnet3.1.blocks",
    "SN3.PAG3.body": "subnet3.2.blocks",
    "SN3.PAG4.body": "subnet3.3.blocks",
    "PRU1": "pru1",
    "PRU2": "pru2",
    "PRU3": "pru3",
    "usau_1": "usau1",
    "usau_2": "usau2",
    "usau_3": "usau3",
    "channel_comp1": "merge2",
    "channel_comp2": "merge3",
}
ATTENTION = {"PA.conv_du.0": "attention.squeeze", "PA.conv_du.2": "attention.excite"}
USAU = {"conv1": "from_feature", "conv_in": "from_image", "conv_out": "to_image", "conv2": "onward",
        "var_est.0": "uncertainty", "var_map.0": "to_log_scale", "att_map.0": "attention"}
SUBNETS = {theirs: ours for theirs, ours in RELEASED.items() if ours.startswith("subnet")}
RELEASED |= names.inside({theirs: ours for theirs, ours in SUBNETS.items() if ".skips." in ours}, ATTENTION)
RELEASED |= names.inside({f"{theirs}.*": f"{ours}.*" for theirs, ours in SUBNETS.items()}, ATTENTION)
RELEASED |= names.inside({f"PRU{number}": f"pru{number}" for number in (1, 2, 3)}, {"fr.0": "squeeze", "fr.2": "excite"})
RELEASED |= names.inside({f"usau_{number}": f"usau{number}" for number in (1, 2, 3)}, USAU)


class AllInOneRestoration(Method):
    """DSRIR as a method: predicts 'image' (B, 3, H, W), and 'restored' and 'log_scale', lists of three; the final one is first."""

    multiple_of = 8
    unused = ("usau3.onward", "usau3.attention")
    maps = ("log_scale",)

    def __init__(self, channels: int = 32):
        super().__init__(DSRIR(channels))

    def predict(self, x: Tensor) -> Prediction:
        """Return image, and restored and log_scale of subnets 3, 2, 1, for (B, 3, H, W) in [0, 1]."""
        restored, log_scale = self.network(x)
        return {"image": restored[0], "restored": restored, "log_scale": log_scale}


def add_arguments(group) -> None:
    """Add the flags that the network depends on."""
    group.add_argument("--channels", type=SIZE, default=32, help="width of the first subnet, a multiple of 16; the paper's is 32")


def add_training_arguments(group) -> None:
    """Add the flags that only training needs."""
    group.add_argument("--mode", default="all_in_one", choices=list(IMAGES),
                       help="train on the list train_<mode>.csv, which tool.make_lists writes, with the schedule for its length")


def recipe(args) -> dict:
    """Return the list of --mode, the schedule for its length, and its test sets; raises UserError if training needs a missing list."""
    tests = [name for name in TESTS[args.mode] if (Path(args.dir_data) / name.partition("@")[0]).is_dir()]
    changes, images = {"val_epochs": 5 if args.mode == "all_in_one" else 10}, IMAGES[args.mode]
    if not args.data_train:
        places = [Path("datasets/train"), Path(args.dir_data) / "train"]
        found = next((path for place in places if (path := place / f"train_{args.mode}.csv").is_file()), None)
        if found:
            changes["data_train"], images = str(found), max(_lines(found), 1)
        elif not (args.test_only or args.list or args.explain):
            raise UserError(f"there is no list train_{args.mode}.csv in {' or '.join(map(str, places))}; write it with "
                            "python -m tool.make_lists, or give other data with --data_train")
    changes["epoch_chg"] = borders(images, args.batch_size)
    changes["epochs"] = int(changes["epoch_chg"].rpartition("-")[2])
    return changes | ({"data_test": "+".join(tests)} if tests and not args.data_test else {})


def _lines(path: Path) -> int:
    with open(path, encoding="utf-8", errors="replace") as file:
        return sum(bool(line.strip()) for line in file)


def borders(images: int, batch_size: str) -> str:
    """Return the epochs at which the phases end, for example `135-238-314-347`, so that each phase has its number of steps."""
    sizes = [int(size) for size in batch_size.split("-") if is_whole(size, 1)]
    sizes = (sizes or [1]) * (len(ITERATIONS) if len(sizes) == 1 else 1)
    ends, end = [], 0
    for steps, size in zip(ITERATIONS, sizes):
        end += max(steps * size // images, 1)
        ends.append(str(end))
    return "-".join(ends)


def build(args) -> Method:
    """Return the method for --channels; raises UserError unless it is a multiple of 16."""
    if args.channels % 16:
        raise UserError(f"--channels must be a multiple of 16 for this model, not {args.channels}")
    return AllInOneRestoration(args.channels)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a released state_dict with the names of this network; unknown names stay."""
    return names.renamed(state, RELEASED)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict of this network with the released names."""
    return names.renamed(state, RELEASED, back=True)
