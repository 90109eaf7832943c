"""DnCNN: seventeen convolutions (Zhang et al., TIP 2017) that output the image, not its noise; a backbone of Rain2Avoid."""
from torch import Tensor

from contract import Prediction
from model import names
from model.dncnn.network import LAYERS, DnCNN
from model.method import Method
from runtime.arguments import SIZE

RECIPE = dict(loss="1*MSE", optimizer="ADAM", lr=1e-3, schedule="cosine", epochs=100, test_every=1000, batch_size="16", patch_size="64",
              data_train="", data_test="")
TINY = dict(channels=4)                   # a small network, for the tests

# beginning of a released name -> the name here; the release numbers convolutions, norms and ReLUs in one sequence
RELEASED = {
    "dncnn.0": "head",
    **{f"dncnn.{3 * layer + 2}": f"layers.{layer}.conv" for layer in range(LAYERS)},
    **{f"dncnn.{3 * layer + 3}": f"layers.{layer}.norm" for layer in range(LAYERS)},
    "dncnn.47": "tail",
}


class Deraining(Method):
    """DnCNN as a method: predicts the clean 'image' (B, 3, H, W)."""

    def __init__(self, channels: int = 64):
        super().__init__(DnCNN(channels))

    def predict(self, x: Tensor) -> Prediction:
        """Return image for (B, 3, H, W) in [0, 1]."""
        return {"image": self.network(x)}


def add_arguments(group) -> None:
    """Add the flags that the network depends on."""
    group.add_argument("--channels", type=SIZE, default=64, help="width of the network; the released network has 64")


def build(args) -> Method:
    """Return the method for --channels."""
    return Deraining(args.channels)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a released state_dict with the names of this network; unknown names stay."""
    return names.renamed(state, RELEASED)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict of this network with the released names."""
    return names.renamed(state, RELEASED, back=True)
