"""The flags of losses that compare features of pretrained networks."""
from runtime.arguments import SIZE


def add_arguments(parser) -> None:
    """Add the group of flags about losses on features."""
    add = parser.add_argument_group("losses that look at features (SCR, HCR, PCL, POCL, LPISL, UBS)").add_argument
    add("--weights_dir", default="", metavar="DIR",
        help="where ImageNet weights are, under torchvision's file names; default: downloaded at first use")
    add("--vgg_weights", default="", metavar="FILE", help="VGG's weights, torchvision's keys, half precision is fine")
    add("--vgg", type=int, default=0, choices=(0, 16, 19), help="which VGG; 0: the one of each loss's paper")
    add("--num_of_SegClass", type=SIZE, default=21, help="classes of the segmentation in UBS")
