"""SAPNet: segmentation-aware progressive network for perceptual contrastive deraining (Zheng et al., WACV workshops 2022)."""
from argparse import BooleanOptionalAction

from torch import Tensor

from contract import Prediction, Stage
from model import names
from model.method import Method
from model.sapnet.network import SAPNet
from runtime.arguments import COUNT, SIZE, number
from runtime.errors import UserError

TERMS = {"use_contrast": "0.4*PCL", "use_lpis": "1*LPISL", "use_seg_stage1": "0.1*UBS"}
RECIPE = dict(loss="1*SSIM+0.4*PCL+1*LPISL / 1*SSIM+0.4*PCL+1*LPISL+0.1*UBS", epochs=100, epoch_chg="50-100", test_every=1568,
              batch_size="12", patch_size="100", optimizer="ADAM", lr=1e-3, schedule="step", decay="30-50-80", gamma=0.2,
              data_train="RainTrainH", data_test="", no_augment=True)
TINY = dict(channels=16, recurrent_iter=2)                # a small network, for the tests

# beginning of a released name -> the name here
RELEASED = {
    "conv0.0": "head",
    "conv_i.0": "memory.input_gate",
    "conv_f.0": "memory.forget_gate",
    "conv_g.0": "memory.candidate",
    "conv_o.0": "memory.output_gate",
    "conv.0": "tail",
    **{f"res_conv{unit}.{theirs}": f"units.{unit - 1}.{ours}" for unit in range(1, 6) for theirs, ours in (
        ("0", "conv1"), ("1.conv_du.0", "attention1.squeeze"), ("1.conv_du.2", "attention1.excite"), ("1.conv_1_1", "attention1.direct"),
        ("3", "conv2"), ("4.conv_du.0", "attention2.squeeze"), ("4.conv_du.2", "attention2.excite"), ("4.conv_1_1", "attention2.direct"))},
}


class Deraining(Method):
    """SAPNet as a method: predicts 'image' (B, 3, H, W) and 'steps', the list of the images after each recurrent step."""

    def __init__(self, channels: int = 32, steps: int = 6, dilated: bool = True):
        super().__init__(SAPNet(channels, steps, dilated))

    def predict(self, x: Tensor) -> Prediction:
        """Return image and steps for (B, 3, H, W) in [0, 1]."""
        steps = self.network(x)
        return {"image": steps[-1], "steps": steps}

    def stages(self, args) -> list[Stage]:
        """Return the stages that the flags describe; raises UserError for --no-use_stage1 because no stage remains."""
        if not args.use_stage1:
            raise UserError("--no-use_stage1 leaves nothing to train, because stage 1, on synthetic pairs, is the only stage of SAPNet; "
                            "omit the flag, or use --test_only")
        return super().stages(args)


def add_arguments(group) -> None:
    """Add the flags that the network depends on."""
    group.add_argument("--channels", type=SIZE, default=32, help="width of the network, a multiple of 16; the paper's is 32")
    group.add_argument("--recurrent_iter", type=number(int, 1, 100), default=6, help="number of recurrent steps")
    group.add_argument("--use_dilation", action=BooleanOptionalAction, default=True, help="use dilated convolutions")


def add_training_arguments(group) -> None:
    """Add the flags that only training needs; the --use_* flags of loss terms change the default of --loss."""
    group.add_argument("--use_contrast", action=BooleanOptionalAction, default=True, help="add the perceptual contrastive loss, PCL")
    group.add_argument("--use_lpis", action=BooleanOptionalAction, default=True, help="add the perceptual similarity loss, LPISL")
    group.add_argument("--use_seg_stage1", action=BooleanOptionalAction, default=True, help="add the segmentation loss, UBS, from epoch 51")
    group.add_argument("--use_stage1", action=BooleanOptionalAction, default=True, help="train on synthetic pairs, the only stage")
    group.add_argument("--save_freq", type=COUNT, default=0,
                       help="test every N-th epoch and keep its weights; 0: keep only the newest and the best")


def recipe(args) -> dict:
    """Return the defaults that differ from RECIPE because of other flags."""
    stages = [[text for text in spec.split("+") if all(getattr(args, flag) or text != term for flag, term in TERMS.items())]
              for spec in RECIPE["loss"].split(" / ")]
    changes = {"loss": " / ".join(map("+".join, stages))}
    if args.data_train == RECIPE["data_train"] and not args.data_test:
        changes["data_test"] = "Rain100H"
    return changes | (dict(val_epochs=args.save_freq, save_models=True) if args.save_freq else {})


def build(args) -> Method:
    """Return the method for --channels, --recurrent_iter, --use_dilation; raises UserError unless 16 divides the width."""
    if args.channels % 16:
        raise UserError(f"--channels must be a multiple of 16 for this model, not {args.channels}")
    return Deraining(args.channels, args.recurrent_iter, args.use_dilation)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a released state_dict with the names of this network; unknown names stay."""
    return names.renamed(state, RELEASED)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict of this network with the released names."""
    return names.renamed(state, RELEASED, back=True)
