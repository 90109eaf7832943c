"""DnCNN: seventeen plain convolutions (Zhang et al., TIP 2017) that give the image itself, as the backbone of Rain2Avoid does."""
from torch import Tensor

from contract import Prediction
from model.dncnn.network import LAYERS, DnCNN
from model.method import Method
from runtime.arguments import SIZE

RECIPE = dict(loss="1*MSE", optimizer="ADAM", lr=1e-3, schedule="cosine", epochs=100, test_every=1000, batch_size="16", patch_size="64",
              data_train="", data_test="")
TINY = dict(channels=4)                   # a small network, for the tests

# released key prefix -> ours; the release numbers convolutions, norms and ReLUs in one row
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
    """Add DnCNN's own flags."""
    group.add_argument("--channels", type=SIZE, default=64, help="width of the network; the released one is 64")


def build(args) -> Method:
    """Return the method for --channels."""
    return Deraining(args.channels)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a released state_dict to ours; a key that is not known keeps its name."""
    return {_rename(key): value for key, value in state.items()}


def _rename(key: str) -> str:
    prefix, _, kind = key.rpartition(".")
    return f"{RELEASED[prefix]}.{kind}" if prefix in RELEASED else key
