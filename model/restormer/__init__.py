"""Restormer: efficient transformer for high-resolution image restoration, with attention across channels (arXiv 2111.09881)."""
import re

from torch import Tensor

from contract import Prediction
from model import names
from model.method import Method
from model.restormer.network import Restormer
from runtime.arguments import SIZE
from runtime.errors import UserError

RECIPE = dict(loss="1*L1", optimizer="ADAMW", lr=3e-4, weight_decay=1e-4, schedule="cosine", lr_min=1e-6, batch_size="8",
              patch_size="128", epochs=300, test_every=1000)
TEMPLATES = {
    # the paper's recipe for all tasks: larger crops and smaller batches in six stages, on 8 GPUs
    "restormer_paper": dict(RECIPE, schedule="hold_cosine", hold=92.0, gclip_norm=0.01, epoch_chg="92-156-204-240-276-300",
                            patch_size="128-160-192-256-320-384", batch_size="64-40-32-16-8-8"),
}
TINY = dict(channels=4, blocks="1-1-1-1")                 # a small network, for the tests

# beginning of a released name -> the name here
LEVELS = {
    "encoder_level1": "body.encoders.0",
    "encoder_level2": "body.encoders.1",
    "encoder_level3": "body.encoders.2",
    "latent": "body.encoders.3",
    "decoder_level1": "body.decoders.0",
    "decoder_level2": "body.decoders.1",
    "decoder_level3": "body.decoders.2",
    "refinement": "refinement",
}
OUTSIDE = LEVELS | {
    "patch_embed.proj": "embedding",
    "down1_2.body.0": "body.downs.0.conv",
    "down2_3.body.0": "body.downs.1.conv",
    "down3_4.body.0": "body.downs.2.conv",
    "up2_1.body.0": "body.ups.0.conv",
    "up3_2.body.0": "body.ups.1.conv",
    "up4_3.body.0": "body.ups.2.conv",
    "reduce_chan_level2": "body.merges.1",
    "reduce_chan_level3": "body.merges.2",
}
BLOCK = {"norm1.body": "norm1", "norm2.body": "norm2", "attn": "attention", "attn.qkv_dwconv": "attention.local",
         "attn.project_out": "attention.out", "ffn": "feedforward", "ffn.project_in": "feedforward.enter",
         "ffn.dwconv": "feedforward.local", "ffn.project_out": "feedforward.out"}
RELEASED = OUTSIDE | names.inside({f"{theirs}.*": f"{ours}.*" for theirs, ours in LEVELS.items()}, BLOCK)


class Restoration(Method):
    """Restormer as a method: predicts the restored 'image' (B, 3, H, W)."""

    multiple_of = 8

    def __init__(self, channels: int = 48, blocks: tuple[int, ...] = (4, 6, 6, 8)):
        super().__init__(Restormer(channels, blocks))

    def predict(self, x: Tensor) -> Prediction:
        """Return image for (B, 3, H, W) in [0, 1]."""
        return {"image": self.network(x)}


def add_arguments(group, channels: int = 48) -> None:
    """Add the flags that the network depends on; `channels` is the default width."""
    group.add_argument("--channels", type=SIZE, default=channels, help=f"width of the finest level, even; the paper's is {channels}")
    group.add_argument("--blocks", default="4-6-6-8", metavar="a-b-c-d", help="number of transformer blocks per level, finest first")


def build(args) -> Method:
    """Return the method for --channels and --blocks; raises UserError for invalid values."""
    return Restoration(*size(args))


def size(args) -> tuple[int, tuple[int, ...]]:
    """Return --channels and the numbers in --blocks; raises UserError for an odd width, or unless --blocks is four numbers 1 to 99."""
    if args.channels % 2:
        raise UserError(f"--channels must be even for this model, which halves it between levels, not {args.channels}")
    if not re.fullmatch("[1-9][0-9]?(-[1-9][0-9]?){3}", args.blocks):
        raise UserError(f"--blocks needs four numbers from 1 to 99, for example 4-6-6-8, not '{args.blocks}'")
    return args.channels, tuple(map(int, args.blocks.split("-")))


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a released state_dict with the names of this network; unknown names stay."""
    return names.renamed(state, RELEASED)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict of this network with the released names."""
    return names.renamed(state, RELEASED, back=True)
