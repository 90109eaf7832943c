"""ResNet: a ResNet-18 encoder (He et al., CVPR 2016), transposed convolutions and added skips; a backbone of Rain2Avoid."""
from torch import Tensor

from contract import Prediction
from model import names
from model.method import Method
from model.resnet.network import ResNet
from runtime.arguments import SIZE

RECIPE = dict(loss="1*MSE", optimizer="ADAM", lr=1e-3, schedule="cosine", epochs=100, test_every=1000, batch_size="16", patch_size="64",
              data_train="", data_test="")
TINY = dict(channels=4)                   # a small network, for the tests

# beginning of a released name -> the name here
BLOCKS = {"down2.1": "encoders.0", "down3": "encoders.1", "down4": "encoders.2", "down5.0": "encoders.3"}
RELEASED = BLOCKS | {
    "down1.0": "head",
    "down1.1": "norm",
    "up1.main.0": "decoders.0",
    "up2.main.0": "decoders.1",
    "up3.main.0": "decoders.2",
    "up4.main.0": "decoders.3",
    "up5.main.0": "tail",
} | names.inside({f"{theirs}.*": f"{ours}.*" for theirs, ours in BLOCKS.items()},
                 {"bn1": "norm1", "bn2": "norm2", "downsample": "shortcut"})
RELEASED_TWICE = ("resnet18.", "resnet.")               # the encoder a second time, and a classifier that is not used


class Deraining(Method):
    """ResNet as a method: predicts the clean 'image' (B, 3, H, W)."""

    multiple_of = 32

    def __init__(self, channels: int = 64):
        super().__init__(ResNet(channels))

    def predict(self, x: Tensor) -> Prediction:
        """Return image for (B, 3, H, W) in [0, 1]."""
        return {"image": self.network(x)}


def add_arguments(group) -> None:
    """Add the flags that the network depends on."""
    group.add_argument("--channels", type=SIZE, default=64, help="width of the first layer; the others follow from it; released: 64")


def build(args) -> Method:
    """Return the method for --channels."""
    return Deraining(args.channels)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a released state_dict with the names of this network, each tensor once; unknown names stay."""
    once = {key: value for key, value in state.items() if not key.startswith(RELEASED_TWICE)}
    return names.renamed(once, RELEASED)
