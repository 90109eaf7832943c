"""Two-stage knowledge learning: one network for haze, snow and rain, with one teacher for each weather (Chen et al., CVPR 2022)."""
import dataclasses
import re
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

import loss
from contract import Batch, Prediction, Stage
from model import names, weights
from model.method import Method
from model.two_stage_kd.ckt import Collation
from model.two_stage_kd.network import MSBDN
from runtime import process
from runtime.arguments import SIZE, is_whole
from runtime.errors import UserError
from runtime.files import natural

COLLATION = "1*L1:image:teacher_image+1*L1:projected:teacher_projected+0.05*L1:reconstructed:teacher_feature+0.1*SCR"
RECIPE = dict(loss=f"{COLLATION} / 1*L1+0.2*HCR", epochs=250, epoch_chg="125-250", test_every=0, balanced=True, augment="mirror",
              batch_size="32", patch_size="224", optimizer="ADAM", lr=4e-4, schedule="cosine", warmup=3.0, lr_min=1e-6,
              data_train="", data_test="")
TINY = dict(channels=4, blocks=1)         # a small network, for the tests
TEACHER = dict(loss="1*L1", epoch_chg="250", epochs=250)
SMALL = dict(channels=8, blocks=1, lr=2e-3, batch_size="8", patch_size="48", warmup=0.2, augment="all", n_threads=0, val_epochs=2,
             save_results=True)
TEMPLATES = {
    "kd_teacher": TEACHER,                # a teacher for one weather, in the paper's size
    # the demo of tool.demo_kd: two CPU cores, no VGG terms
    "kd_demo_teacher": TEACHER | SMALL | dict(epochs=2, epoch_chg="2", test_every=220),
    "kd_demo": SMALL | dict(loss=COLLATION.replace("+0.1*SCR", "") + " / 1*L1", epochs=4, epoch_chg="2-4", test_every=180),
}
TAUGHT = {"teacher_image", "projected", "teacher_projected", "reconstructed", "teacher_feature"}      # outputs that need teachers

# beginning of a released name -> the name here
RELEASED = {
    "conv_input.conv2d": "head",
    "dense0": "blocks",
    "conv2x.conv2d": "encoders.0.down",
    "conv1": "encoders.0.mix.dense",
    "fusion1": "encoders.0.mix.fuse",
    "dense1": "encoders.0.blocks",
    "conv4x.conv2d": "encoders.1.down",
    "conv2": "encoders.1.mix.dense",
    "fusion2": "encoders.1.mix.fuse",
    "dense2": "encoders.1.blocks",
    "conv8x.conv2d": "encoders.2.down",
    "conv3": "encoders.2.mix.dense",
    "fusion3": "encoders.2.mix.fuse",
    "dense3": "encoders.2.blocks",
    "conv16x.conv2d": "encoders.3.down",
    "conv4": "encoders.3.mix.dense",
    "fusion4": "encoders.3.mix.fuse",
    "dehaze.res*": "bottleneck.*",
    "convd16x.conv2d": "decoders.0.up",
    "dense_4": "decoders.0.blocks",
    "conv_4": "decoders.0.mix.dense",
    "fusion_4": "decoders.0.mix.fuse",
    "convd8x.conv2d": "decoders.1.up",
    "dense_3": "decoders.1.blocks",
    "conv_3": "decoders.1.mix.dense",
    "fusion_3": "decoders.1.mix.fuse",
    "convd4x.conv2d": "decoders.2.up",
    "dense_2": "decoders.2.blocks",
    "conv_2": "decoders.2.mix.dense",
    "fusion_2": "decoders.2.mix.fuse",
    "convd2x.conv2d": "decoders.3.up",
    "dense_1": "decoders.3.blocks",
    "conv_1": "decoders.3.mix.dense",
    "fusion_1": "decoders.3.mix.fuse",
    "conv_output.conv2d": "tail",
}


def _parts(end: str, parts: dict[str, str], start: str = "") -> dict[str, str]:
    """Return the names inside the parts of the network whose names here begin and end with these texts."""
    return names.inside({theirs: ours for theirs, ours in RELEASED.items() if ours.startswith(start) and ours.endswith(end)}, parts)


RELEASED |= {
    **_parts("blocks", {"*.conv*.conv2d": "*.conv*", "*.relu": "*.act"}),
    **_parts("bottleneck.*", {"conv*.conv2d": "conv*", "relu": "act"}),
    **_parts("dense", {"dense_layers.*.conv": "layers.*", "conv_1x1": "merge"}),
    **_parts("fuse", {"up_convs.*.deconv": "go.*.0", "up_convs.*.act": "go.*.1",
                      "down_convs.*.conv": "back.*.0", "down_convs.*.act": "back.*.1"}, "encoders"),
    **_parts("fuse", {"down_convs.*.conv": "go.*.0", "down_convs.*.act": "go.*.1",
                      "up_convs.*.deconv": "back.*.0", "up_convs.*.act": "back.*.1"}, "decoders"),
}


class AllWeatherRestoration(Method):
    """MSBDN-RDFF as a method: predicts the clean 'image', (B, 3, H, W) in [0, 1], and four 'features' for knowledge transfer."""

    multiple_of = 16
    least_side = 32                       # for 16 the bottleneck would have one pixel, which cannot be padded by reflection

    def __init__(self, channels: int = 16, blocks: int = 18):
        super().__init__(MSBDN(channels, blocks))

        self.projectors, self.teachers, self.collating = None, [], False

    def predict(self, x: Tensor) -> Prediction:
        """Return image and features for (B, 3, H, W) in [0, 1]."""
        image, features = self.network(x)
        return {"image": image, "features": features}

    def prepare(self, args) -> None:
        """Load --teachers, say which one teaches which data set, and create the projectors; raises UserError unless each set has one."""
        if self.teachers or not any(_collating(stage.loss) for stage in args.stages):
            return
        sets = [name for name in args.data_train.split("+") if name]
        for path, name in zip(_in_order(sets, args.teachers), sets):
            network, stated = _teacher(args, path)
            self.teachers.append(network)                                         # a list, so that teachers are not submodules
            process.log().say(f"teacher {path} → data set {name}")
            if stated and _short(name) not in map(_short, stated.split("+")):
                process.log().say(f"warning: the teacher {path} was trained on {stated}, not on {name}; if that is wrong, "
                                  f"name the data set of each teacher, as in --teachers {_short(name)}=FILE")
        self.projectors = Collation(self.network.widths, len(self.teachers))

    def stages(self, args) -> list[Stage]:
        """Return the flags' stages as knowledge collation if the loss needs teachers, else knowledge examination (section 3.1)."""
        return [dataclasses.replace(stage, name="knowledge collation") if _collating(stage.loss) else
                dataclasses.replace(stage, name="knowledge examination" if self.teachers else "", frozen=("projectors",))
                for stage in super().stages(args)]

    def enter(self, stage: Stage) -> None:
        """Begin a stage; the teachers are on the device only in stages that need them, otherwise on the CPU."""
        super().enter(stage)
        self.collating = _collating(stage.loss)
        device = next(self.network.parameters()).device if self.collating else torch.device("cpu")
        for teacher in self.teachers:
            teacher.to(device, memory_format=torch.channels_last)

    def forward(self, batch: Batch) -> Prediction:
        """Return the student's prediction; in knowledge collation also the outputs of each teacher for the images of its weather."""
        student = self.predict(batch.input)
        if not self.collating:
            return student
        order = batch.kind.argsort(stable=True)
        back = order.argsort()
        with torch.no_grad():
            shares = [batch.input[batch.kind == kind] for kind in range(len(self.teachers))]
            images, features = zip(*(self._taught(teacher, share, student) for teacher, share in zip(self.teachers, shares)))
        transferred = self.projectors(features, student["features"])
        return student | {
            "teacher_image": torch.cat(images)[back],
            "teacher_feature": [torch.cat(parts)[back] for parts in zip(*features)],
            "teacher_projected": [theirs[back] for theirs, _, _ in transferred],
            "projected": [ours for _, ours, _ in transferred],
            "reconstructed": [again[back] for _, _, again in transferred]}

    def _taught(self, teacher: MSBDN, share: Tensor, student: Prediction) -> tuple[Tensor, list[Tensor]]:
        """Return a teacher's image and features for the images of its weather in a batch; empty tensors if there are none."""
        if len(share):
            return teacher(share)
        return student["image"][:0].detach(), [feature[:0].detach() for feature in student["features"]]

    def side_state(self) -> dict[str, Tensor]:
        """Return the projectors' state."""
        return self.projectors.state_dict() if self.projectors else {}

    def load_side_state(self, state: dict[str, Tensor]) -> None:
        """Restore the projectors' state that `side_state` returned."""
        if self.projectors and state:
            self.projectors.load_state_dict(state)


def _collating(spec: str) -> bool:
    """Return True if a loss needs teachers."""
    return any({part.prediction, part.target} & TAUGHT for part in loss.parse(spec))


def _short(name: str) -> str:
    """Return the short name of a data set: `rain` for the list meta/train/rain.json."""
    return Path(name).stem


def _in_order(sets: list[str], given: list[str]) -> list[str]:
    """Return one teacher's file for each data set; `given` has FILEs in the order of the sets, or NAME=FILE in any order.

    NAME is a data set as in --data_train, or its short name if no other set has the same. Raises UserError unless each set has one file.
    """
    count = Counter(map(_short, sets))
    known = {_short(name): name for name in sets if count[_short(name)] == 1} | {name: name for name in sets}
    titles = [next((title for title in known if text.startswith(f"{title}=")), "") for text in given]
    wrong = next((text for text, title in zip(given, titles) if "=" in text and not title and not Path(text).is_file()), "")
    if wrong:
        raise UserError(f"--teachers {wrong}: no data set of the training has this name; the names are {', '.join(known)}")
    found = {known[title]: text[len(title) + 1:] for text, title in zip(given, titles) if title}
    if found and not (all(titles) and all(found.values()) and len(found) == len(given)):
        raise UserError(f"--teachers {' '.join(given)}: give one NAME=FILE for each data set ({', '.join(sets)}), or files without names")
    if len(given) != len(sets):
        raise UserError(f"knowledge collation needs one teacher for each data set, but there are {len(given)} --teachers "
                        f"for {len(sets)} sets ({', '.join(sets)}); --template kd_teacher trains one")
    return [found[name] for name in sets] if found else given


def _teacher(args, path: str) -> tuple[MSBDN, str]:
    """Return the frozen network of a teacher, built like the student, and the data sets on which it was trained ('': unknown).

    Raises UserError if the file does not fit.
    """
    method = build(args)
    try:
        stated = weights.describe(path).get("data_train", "")
        weights.load_weights(method, path, args.model)
    except UserError as error:
        raise UserError(f"--teachers: {error}; teachers need the student's --channels and --blocks") from error
    return method.network.requires_grad_(False).eval(), str(stated)


def add_arguments(group) -> None:
    """Add the flags that the network depends on."""
    group.add_argument("--channels", type=SIZE, default=16, help="width of the network, a multiple of 4; the paper's is 16")
    group.add_argument("--blocks", type=SIZE, default=18, help="number of residual blocks in the bottleneck; the paper's is 18")


def add_training_arguments(group) -> None:
    """Add the flags that only training needs."""
    group.add_argument("--teachers", nargs="+", default=[], metavar="FILE",
                       help="model files of the teachers: NAME=FILE for each data set, or FILEs in the order of --data_train")


def command_line(argv: list[str]) -> list[str]:
    """Return the command line with `--teacher`, as the released program spells it, replaced by --teachers."""
    return [re.sub("^--teacher(?==|$)", "--teachers", word) for word in argv]


def recipe(args) -> dict:
    """Return the lists in meta/train and meta/valid unless data is named, and the learning rate for the batch size."""
    first = args.batch_size.split("-")[0]
    changes = {"lr": 2e-4 * int(first) / 16} if is_whole(first) else {}
    for flag, folder in (("data_train", "meta/train"), ("data_test", "meta/valid")):
        lists = sorted(Path(folder).glob("*.json"), key=natural)
        if lists and not (args.data_train or getattr(args, flag)):
            changes[flag] = "+".join(map(str, lists))
    if not (args.data_train or "data_train" in changes or args.test_only or args.list or args.explain):
        raise UserError("there is no JSON list in meta/train; put one list for each weather there, or give data with --data_train")
    return changes


def build(args) -> Method:
    """Return the method for --channels and --blocks; raises UserError unless 4 divides the width."""
    if args.channels % 4:
        raise UserError(f"--channels must be a multiple of 4 for this model, not {args.channels}")
    return AllWeatherRestoration(args.channels, args.blocks)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a released state_dict with the names of this network; unknown names stay."""
    return names.renamed(state, RELEASED)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict of this network with the released names."""
    return names.renamed(state, RELEASED, back=True)
