"""NAFNet: a U-shaped network without activation functions, for any restoration task (Chen et al., ECCV 2022)."""
import re

from torch import Tensor

from contract import Prediction
from model import names
from model.method import Method
from model.nafnet.network import NAFNet
from runtime.arguments import COUNT, SIZE
from runtime.errors import UserError

RECIPE = dict(loss="1*PSNR", optimizer="ADAMW", lr=1e-3, betas="0.9 0.9", weight_decay=1e-3, gclip_norm=0.01, schedule="cosine",
              lr_min=1e-7, batch_size="32", patch_size="256", epochs=200, test_every=1000)
NOISY = "+".join(f"{photos}@{sigma}" for photos in ("BSD400", "WED") for sigma in (15, 25, 50))
TEMPLATES = {
    # two CPU cores train it in three minutes
    "demo": dict(channels=16, blocks="1-1-1/2/1-1-1", data_train="DemoSnow", data_test="DemoSnow", save="demo", loss="1*L1", lr=2e-3,
                 warmup=0.2, epochs=4, test_every=550, val_epochs=2, batch_size="16", patch_size="32", n_threads=0,
                 save_results=True, save_gt=True),
    "nafnet_paper": dict(RECIPE, channels=32, blocks="1-1-1-28/1/1-1-1-1", tlc=256),                       # GoPro
    "nafnet_small": dict(RECIPE, channels=16, blocks="1-1-2-4/4/1-1-1-1", loss="1*L1+0.1*FFT", patch_size="64", batch_size="16",
                         epochs=100, ema=0.999),
    # noise, rain and haze by one network, with the data, crops and tests of PromptIR (NeurIPS 2023)
    "aio3": dict(RECIPE, loss="1*L1+0.1*FFT", lr=2e-4, betas="0.9 0.999", weight_decay=1e-2, gclip_norm=0.0, warmup=15.0, epochs=150,
                 patch_size="128", balanced=True, data_train=f"{NOISY}+RainTrainL+RESIDE_OTS", data_test="AIO3",
                 protocol="promptir"),
}
TINY = dict(channels=4, blocks="1-1/1/1-1")               # a small network, for the tests

# beginning of a released name -> the name here
RELEASED = {"intro": "head", "ending": "tail", "middle_blks": "middle", "ups.*.0": "ups.*"} | names.inside(
    {"encoders.*.*": "encoders.*.*", "middle_blks.*": "middle.*", "decoders.*.*": "decoders.*.*"},
    {"conv1": "enter1", "conv2": "local", "conv3": "out1", "conv4": "enter2", "conv5": "out2", "sca.1": "attention.mix",
     "beta": "scale1", "gamma": "scale2"})


class Restoration(Method):
    """NAFNet as a method: predicts the restored 'image' (B, 3, H, W)."""

    def __init__(self, channels: int, encoder: tuple[int, ...], middle: int, decoder: tuple[int, ...], window: int = 0):
        super().__init__(NAFNet(channels, encoder, middle, decoder, window))
        self.multiple_of, self.windowed = 2 ** len(encoder), window

    def predict(self, x: Tensor) -> Prediction:
        """Return image for (B, 3, H, W) in [0, 1]."""
        return {"image": self.network(x)}


def add_arguments(group) -> None:
    """Add the flags that the network depends on."""
    group.add_argument("--channels", type=SIZE, default=32, help="width of the finest level; the paper's are 32 and 64")
    group.add_argument("--blocks", default="1-1-1-28/1/1-1-1-1", metavar="a-b-c-d/m/d-c-b-a",
                       help="number of blocks of the encoder's levels, the middle and the decoder's levels; of the paper: "
                            "1-1-1-28/1/1-1-1-1 (GoPro, REDS), 2-2-4-8/12/2-2-2-2 (SIDD)")
    group.add_argument("--tlc", type=COUNT, default=0, metavar="SIDE",
                       help="at test, take the means of channel attention over windows of 1.5 times this training patch, as for the "
                            "paper's GoPro results (256); 0: over the whole image")


def build(args) -> Method:
    """Return the method for --channels, --blocks and --tlc; raises UserError for an invalid --blocks."""
    encoder, middle, decoder = blocks(args.blocks)
    return Restoration(args.channels, encoder, middle, decoder, args.tlc * 3 // 2)


def blocks(text: str) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """Return the numbers in --blocks: encoder, middle, decoder; raises UserError for any other form."""
    counts = "(?:[0-9]{1,2}-){0,5}[0-9]{1,2}"
    found = re.fullmatch(f"({counts})/([0-9]{{1,2}})/({counts})", text)
    if not found or found[1].count("-") != found[3].count("-"):
        raise UserError(f"--blocks needs the blocks of the encoder, the middle and the decoder, with equally many levels for encoder "
                        f"and decoder (1 to 6) and at most 99 blocks each, for example 1-1-1-28/1/1-1-1-1, not '{text}'")
    encoder, decoder = (tuple(map(int, part.split("-"))) for part in (found[1], found[3]))
    return encoder, int(found[2]), decoder


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a released state_dict with the names of this network; unknown names stay."""
    return names.renamed(state, RELEASED)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict of this network with the released names."""
    return names.renamed(state, RELEASED, back=True)
