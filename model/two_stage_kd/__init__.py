"""Two-stage knowledge learning: one network for haze, snow and rain, taught by one teacher each (Chen et al., CVPR 2022)."""
from torch import Tensor

from flags import SIZE
from model.method import Method, Prediction
from model.two_stage_kd.network import MSBDN
from utility import UserError

RECIPE = dict(optimizer="ADAM", lr=2e-4, schedule="cosine", warmup=3.0, lr_min=1e-6, epochs=250, batch_size="32", patch_size="224",
              loss="1*L1")

# released key prefix -> ours
RELEASED = {
    "conv_input": "head",
    "dense0": "blocks",
    "conv2x": "encoders.0.down",
    "conv1": "encoders.0.mix.dense",
    "fusion1": "encoders.0.mix.fuse",
    "dense1": "encoders.0.blocks",
    "conv4x": "encoders.1.down",
    "conv2": "encoders.1.mix.dense",
    "fusion2": "encoders.1.mix.fuse",
    "dense2": "encoders.1.blocks",
    "conv8x": "encoders.2.down",
    "conv3": "encoders.2.mix.dense",
    "fusion3": "encoders.2.mix.fuse",
    "dense3": "encoders.2.blocks",
    "conv16x": "encoders.3.down",
    "conv4": "encoders.3.mix.dense",
    "fusion4": "encoders.3.mix.fuse",
    "dehaze": "bottleneck",
    "convd16x": "decoders.0.up",
    "dense_4": "decoders.0.blocks",
    "conv_4": "decoders.0.mix.dense",
    "fusion_4": "decoders.0.mix.fuse",
    "convd8x": "decoders.1.up",
    "dense_3": "decoders.1.blocks",
    "conv_3": "decoders.1.mix.dense",
    "fusion_3": "decoders.1.mix.fuse",
    "convd4x": "decoders.2.up",
    "dense_2": "decoders.2.blocks",
    "conv_2": "decoders.2.mix.dense",
    "fusion_2": "decoders.2.mix.fuse",
    "convd2x": "decoders.3.up",
    "dense_1": "decoders.3.blocks",
    "conv_1": "decoders.3.mix.dense",
    "fusion_1": "decoders.3.mix.fuse",
    "conv_output": "tail",
}
RELEASED_CONV = {"conv2d": ""}            # "" is left out
RELEASED_BLOCK = {"conv2d": "", "relu": "act"}
RELEASED_DENSE = {"dense_layers": "layers", "conv": "", "conv_1x1": "merge"}
RELEASED_FUSE = {"conv": "0", "deconv": "0", "act": "1"}
RELEASED_FUSE_DOWN = {**RELEASED_FUSE, "up_convs": "go", "down_convs": "back"}
RELEASED_FUSE_UP = {**RELEASED_FUSE, "down_convs": "go", "up_convs": "back"}


class Restorer(Method):
    """MSBDN-RDFF as a method: predicts the clean 'image', (B, 3, H, W) in [0, 1], and the four 'features' to learn from."""

    multiple_of = 16
    least_side = 32                       # at 16 the bottleneck would be one pixel, which has nothing to mirror

    def __init__(self, channels: int = 16, blocks: int = 18):
        super().__init__(MSBDN(channels, blocks))

    def predict(self, x: Tensor) -> Prediction:
        """Return image and features for (B, 3, H, W) in [0, 1]."""
        image, features = self.network(x)
        return {"image": image, "features": features}


def add_arguments(group) -> None:
    """Add the network's own flags."""
    group.add_argument("--channels", type=SIZE, default=16, help="width of the network, a multiple of 4; the paper's is 16")
    group.add_argument("--blocks", type=SIZE, default=18, help="residual blocks of the bottleneck; the paper's are 18")


def build(args) -> Method:
    """Return the method for --channels and --blocks."""
    if args.channels % 4:
        raise UserError(f"--channels {args.channels} is not a multiple of 4, which this network needs")
    return Restorer(args.channels, args.blocks)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a released state_dict to ours; a key that is not known keeps its name."""
    return {_rename(key): value for key, value in state.items()}


def _rename(key: str) -> str:
    first, *rest = key.split(".")
    prefix = RELEASED.get(first)
    if not prefix:
        return key
    inner = _inner(prefix)
    parts = (inner.get(part, part.removeprefix("res") if prefix == "bottleneck" else part) for part in rest)
    return ".".join([prefix, *(part for part in parts if part)])


def _inner(prefix: str) -> dict[str, str]:
    """Return the names inside the part of the network that `prefix` is."""
    kind = prefix.rpartition(".")[2]
    if kind == "fuse":
        return RELEASED_FUSE_DOWN if prefix.startswith("encoders") else RELEASED_FUSE_UP
    return {"dense": RELEASED_DENSE, "blocks": RELEASED_BLOCK, "bottleneck": RELEASED_BLOCK}.get(kind, RELEASED_CONV)
