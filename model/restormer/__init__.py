"""Restormer: efficient transformer for high-resolution image restoration, attention across channels (arXiv 2111.09881)."""
import re

from torch import Tensor

from contract import Prediction
from model.method import Method
from model.restormer.network import Restormer
from runtime.arguments import SIZE
from runtime.errors import UserError

RECIPE = dict(loss="1*L1", optimizer="ADAMW", lr=3e-4, weight_decay=1e-4, schedule="cosine", lr_min=1e-6, batch_size="8",
              patch_size="128", epochs=300, test_every=1000)
TINY = dict(channels=4, blocks="1-1-1-1") # a small network, for the tests

# released key prefix -> ours, and what then changes inside
RELEASED = {
    "patch_embed.proj": "embedding",
    "encoder_level1": "body.encoders.0",
    "encoder_level2": "body.encoders.1",
    "encoder_level3": "body.encoders.2",
    "latent": "body.encoders.3",
    "down1_2.body.0": "body.downs.0.conv",
    "down2_3.body.0": "body.downs.1.conv",
    "down3_4.body.0": "body.downs.2.conv",
    "up2_1.body.0": "body.ups.0.conv",
    "up3_2.body.0": "body.ups.1.conv",
    "up4_3.body.0": "body.ups.2.conv",
    "reduce_chan_level2": "body.merges.1",
    "reduce_chan_level3": "body.merges.2",
    "decoder_level1": "body.decoders.0",
    "decoder_level2": "body.decoders.1",
    "decoder_level3": "body.decoders.2",
    "refinement": "refinement",
}
RELEASED_BLOCK = {".norm1.body.": ".norm1.", ".norm2.body.": ".norm2.", ".attn.": ".attention.", ".qkv_dwconv.": ".local.",
                  ".ffn.": ".feedforward.", ".dwconv.": ".local.", ".project_in.": ".enter.", ".project_out.": ".out."}


class Restoration(Method):
    """Restormer as a method: 'image' (B, 3, H, W)."""

    multiple_of = 8

    def __init__(self, channels: int = 48, blocks: tuple[int, ...] = (4, 6, 6, 8)):
        super().__init__(Restormer(channels, blocks))

    def predict(self, x: Tensor) -> Prediction:
        """Return image for (B, 3, H, W) in [0, 1]."""
        return {"image": self.network(x)}


def add_arguments(group, channels: int = 48) -> None:
    """Add the network's own flags, with the default width."""
    group.add_argument("--channels", type=SIZE, default=channels, help=f"width of the finest level, even; the paper's is {channels}")
    group.add_argument("--blocks", default="4-6-6-8", metavar="a-b-c-d", help="transformer blocks of the levels, finest first")


def build(args) -> Method:
    """Return the method for --channels and --blocks; UserError for values that make no network."""
    return Restoration(*size(args))


def size(args) -> tuple[int, tuple[int, ...]]:
    """Return --channels and the numbers in --blocks; UserError for an odd width or anything but four numbers from 1 to 99."""
    if args.channels % 2:
        raise UserError(f"--channels must be even for this model, which halves it between levels, not {args.channels}")
    if not re.fullmatch("[1-9][0-9]?(-[1-9][0-9]?){3}", args.blocks):
        raise UserError(f"--blocks needs four numbers from 1 to 99, as 4-6-6-8, not '{args.blocks}'")
    return args.channels, tuple(map(int, args.blocks.split("-")))


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a released state_dict to ours; a key that is not known keeps its name."""
    return {renamed(key, RELEASED, RELEASED_BLOCK): value for key, value in state.items()}


def renamed(key: str, prefixes: dict[str, str], inner: dict[str, str]) -> str:
    """Return the key with its prefix replaced, then every text of `inner`, in order; the same key for an unknown prefix."""
    prefix = next((prefix for prefix in prefixes if key.startswith(f"{prefix}.")), None)
    if prefix is None:
        return key
    rest = key[len(prefix):]
    for theirs, ours in inner.items():
        rest = rest.replace(theirs, ours)
    return prefixes[prefix] + rest
