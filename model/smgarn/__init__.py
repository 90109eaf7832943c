"""SMGARN: snow mask guided adaptive residual network for image snow removal (Cheng et al., TCSVT 2022)."""
from torch import Tensor

from contract import Prediction
from model import names
from model.method import Method
from model.smgarn.network import SMGARN
from runtime.arguments import SIZE

RECIPE = dict(loss="1*L1+1*L1:mask", optimizer="ADAM", lr=1e-4, gamma=0.5, decay="100-200-300-400-500-600-700-800-900",
              epochs=300, test_every=1000, batch_size="16", patch_size="64")
TINY = dict(channels=4)                   # a small network, for the tests

TEMPLATES = {                             # two CPU cores train it in three to four minutes
    "smgarn_small": dict(channels=16, data_train="DemoSnow", data_test="DemoSnow", save="smgarn_small", lr=2e-3, schedule="cosine",
                         warmup=0.2, epochs=4, test_every=350, val_epochs=2, batch_size="16", patch_size="32", n_threads=0,
                         save_results=True, save_gt=True),
}

# beginning of a released name -> the name here
UNITS = {
    "Stage_II.fusion.ru_1": "fusion.image_unit1",
    "Stage_II.fusion.ru_2": "fusion.mask_unit1",
    "Stage_II.fusion.ru": "fusion.unit1",
    "Stage_II.fusion.ru_1_1": "fusion.image_unit2",
    "Stage_II.fusion.ru_2_1": "fusion.mask_unit2",
    "Stage_II.fusion.ru_": "fusion.unit2",
}
RELEASED = UNITS | {
    "Stage_I.head": "mask_net.head",
    "Stage_I.g_mp1.smblock": "mask_net.block.attention",
    "Stage_I.g_mp1.conv3": "mask_net.block.tail",
    "Stage_I.g_mp1.norm": "mask_net.block.norm",
    "Stage_I.conv_out1": "mask_net.to_feature",
    "Stage_I.conv_out2": "mask_net.to_mask",
    "Stage_II.fusion.conv_1": "fusion.from_image",
    "Stage_II.fusion.conv_2": "fusion.from_mask",
    "Stage_II.fusion.conv_1_2": "fusion.difference1",
    "Stage_II.fusion.conv_2_2": "fusion.difference2",
    "Stage_II.fusion.conv_tail_1": "fusion.tail.0",
    "Stage_II.fusion.conv_tail_2": "fusion.tail.2",
    "Stage_II.recon": "blocks",
    "Stage_II.tail": "tail",
    **names.inside(UNITS, {"conv1": "spatial", "conv2": "expand", "conv3": "reduce"}),
    **names.inside({"Stage_I.g_mp1.smblock": "mask_net.block.attention"}, {
        "conv_head": "head", "conv_self": "self_pixel", "conv1": "middle", "conv1_1": "cross_pixel1", "conv1_2": "cross_pixel2",
        "conv_tail": "tail"}),
    **names.inside({"Stage_II.recon.*": "blocks.*"}, {
        "conv_dl2": "branch1.0", "conv1_1": "branch1.1", "conv_dl3": "branch2.0", "conv1_2": "branch2.1", "conv_dl5": "branch3.0",
        "conv1_3": "branch3.1", "conv2_1": "merge12", "conv2_2": "merge23", "conv_tail": "tail"}),
}


class SnowRemoval(Method):
    """SMGARN as a method: predicts the clean 'image' and the snow 'mask', both (B, 3, H, W) in [0, 1]."""

    def __init__(self, channels: int = 112, rgb_range: float = 255):
        super().__init__(SMGARN(channels))
        self.rgb_range = rgb_range        # the released network works on levels 0-255

    def predict(self, x: Tensor) -> Prediction:
        """Return image and mask for (B, 3, H, W) in [0, 1]."""
        image, mask = self.network(x * self.rgb_range)
        return {"image": image / self.rgb_range, "mask": mask / self.rgb_range}


def add_arguments(group) -> None:
    """Add the flags that the network depends on."""
    group.add_argument("--channels", type=SIZE, default=112, help="width of the network; the paper's is 112")


def build(args) -> Method:
    """Return the method for --channels and --rgb_range."""
    return SnowRemoval(args.channels, args.rgb_range)


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a released state_dict with the names of this network; unknown names stay."""
    return names.renamed(state, RELEASED)


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict of this network with the released names."""
    return names.renamed(state, RELEASED, back=True)
