"""UNet: encoder and decoder with skip connections, as in partial convolution (Liu et al., ECCV 2018); a backbone of Rain2Avoid."""
from torch import Tensor

from contract import Prediction
from model import names
from model.method import Method
from model.unet.network import UNet
from runtime.arguments import SIZE

RECIPE = dict(loss="1*MSE", optimizer="ADAM", lr=1e-3, schedule="cosine", epochs=100, test_every=1000, batch_size="16", patch_size="64",
              data_train="", data_test="")
TINY = dict(channels=4)                   # a small network, for the tests

# beginning of a released name -> the name here
RELEASED = {
    "enc_1.conv": "encoders.0.conv",
    "enc_2.conv": "encoders.1.conv",
    "enc_2.bn": "encoders.1.norm",
    "enc_3.conv": "encoders.2.conv",
    "enc_3.bn": "encoders.2.norm",
    "enc_4.conv": "encoders.3.conv",
    "enc_4.bn": "encoders.3.norm",
    "dec_4.conv": "decoders.0.conv",
    "dec_4.bn": "decoders.0.norm",
    "dec_3.conv": "decoders.1.conv",
    "dec_3.bn": "decoders.1.norm",
    "dec_2.conv": "decoders.2.conv",
    "dec_2.bn": "decoders.2.norm",
    "dec_1.conv": "tail",
}


class Deraining(Method):
    """UNet as a method: predicts the clean 'image' (B, 3, H, W)."""

    multiple_of = 16

    def __init__(self, channels: int = 64):
        super().__init__(UNet(channels))

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
    """Return a released state_dict with the names of this network; unknown names stay."""
    return names.renamed(state, RELEASED)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict of this network with the released names."""
    return names.renamed(state, RELEASED, back=True)
