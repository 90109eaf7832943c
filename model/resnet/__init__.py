"""ResNet: a ResNet-18 encoder (He et al., CVPR 2016) and transposed convolutions with added skips, a backbone of Rain2Avoid."""
from torch import Tensor

from contract import Prediction
from model.method import Method
from model.resnet.network import ResNet
from runtime.arguments import SIZE

RECIPE = dict(loss="1*MSE", optimizer="ADAM", lr=1e-3, schedule="cosine", epochs=100, test_every=1000, batch_size="16", patch_size="64",
              data_train="", data_test="")
TINY = dict(channels=4)                   # a small network, for the tests

# released key prefix -> ours
RELEASED = {
    "down1.0": "head",
    "down1.1": "norm",
    "down2.1": "encoders.0",
    "down3": "encoders.1",
    "down4": "encoders.2",
    "down5.0": "encoders.3",
    "up1.main.0": "decoders.0",
    "up2.main.0": "decoders.1",
    "up3.main.0": "decoders.2",
    "up4.main.0": "decoders.3",
    "up5.main.0": "tail",
}
RELEASED_BLOCK = {"bn1": "norm1", "bn2": "norm2", "downsample": "shortcut"}
RELEASED_TWICE = ("resnet18.", "resnet.")               # the encoder's other names, and a classifier that nothing uses


class Deraining(Method):
    """ResNet as a method: predicts the clean 'image' (B, 3, H, W)."""

    multiple_of = 32

    def __init__(self, channels: int = 64):
        super().__init__(ResNet(channels))

    def predict(self, x: Tensor) -> Prediction:
        """Return image for (B, 3, H, W) in [0, 1]."""
        return {"image": self.network(x)}


def add_arguments(group) -> None:
    """Add ResNet's own flags."""
    group.add_argument("--channels", type=SIZE, default=64, help="width of the first layer, the others follow; the released one is 64")


def build(args) -> Method:
    """Return the method for --channels."""
    return Deraining(args.channels)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a released state_dict to ours, each once; a key that is not known keeps its name."""
    return {_rename(key): value for key, value in state.items() if not key.startswith(RELEASED_TWICE)}


def _rename(key: str) -> str:
    for released, ours in RELEASED.items():
        if key.startswith(f"{released}."):
            inner = key.removeprefix(f"{released}.").split(".")
            return ".".join([ours, *(RELEASED_BLOCK.get(part, part) for part in inner)])
    return key
