"""DRSformer: sparse transformer for deraining, with attention across the most similar channels (arXiv 2303.11950)."""
from torch import Tensor

from contract import Prediction
from model import names, restormer
from model.drsformer.network import DRSformer
from model.method import Method

RECIPE = dict(loss="1*L1", optimizer="ADAMW", lr=3e-4, weight_decay=1e-4, schedule="cosine", lr_min=1e-6, batch_size="8",
              patch_size="128", epochs=300, test_every=1000)
TEMPLATES = {                             # the released configuration for Rain200H, on 4 GPUs
    "drsformer_paper": dict(RECIPE, channels=48, schedule="hold_cosine", hold=92.0, gclip_norm=0.01, batch_size="16"),
}
TINY = dict(channels=4, blocks="1-1-1-1")                 # a small network, for the tests

# beginning of a released name -> the name here
LEVELS = {theirs: ours for theirs, ours in restormer.LEVELS.items() if theirs != "refinement"}
BLOCK = restormer.BLOCK | {
    "attn.attn1": "attention.shares.0",
    "attn.attn2": "attention.shares.1",
    "attn.attn3": "attention.shares.2",
    "attn.attn4": "attention.shares.3",
    "ffn.dwconv3x3": "feedforward.local3",
    "ffn.dwconv5x5": "feedforward.local5",
    "ffn.dwconv3x3_1": "feedforward.across3",
    "ffn.dwconv5x5_1": "feedforward.across5",
}
MIXTURE = {
    "layers.0.ca_fc.0": "squeeze",
    "layers.0.ca_fc.2": "excite",
    "layers.1.preprocess.op.0": "enter",
    "layers.1._ops.*._ops.*.op": "steps.*.experts.*",
    "layers.1._ops.*._out.0": "steps.*.out",
}
RELEASED = (restormer.OUTSIDE | names.inside({f"{theirs}.*": f"{ours}.*" for theirs, ours in LEVELS.items()}, BLOCK)
            | names.inside({"encoder_level0": "before", "refinement": "after"}, MIXTURE))


class Deraining(Method):
    """DRSformer as a method: predicts the derained 'image' (B, 3, H, W)."""

    multiple_of = 8

    def __init__(self, channels: int = 32, blocks: tuple[int, ...] = (4, 6, 6, 8)):
        super().__init__(DRSformer(channels, blocks))

    def predict(self, x: Tensor) -> Prediction:
        """Return image for (B, 3, H, W) in [0, 1]."""
        return {"image": self.network(x)}


def add_arguments(group) -> None:
    """Add the flags that the network depends on."""
    restormer.add_arguments(group, channels=32)


def build(args) -> Method:
    """Return the method for --channels and --blocks; raises UserError for invalid values."""
    return Deraining(*restormer.size(args))


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a released state_dict with the names of this network; unknown names stay."""
    return names.renamed(state, RELEASED)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict of this network with the released names."""
    return names.renamed(state, RELEASED, back=True)
