"""The flags of losses that compare features of pretrained networks."""
from runtime.arguments import SIZE


def add_arguments(parser) -> None:
    """Add the flags about losses on features to a parser."""
    add = parser.add_argument_group("losses on features of pretrained networks (SCR, HCR, PCL, POCL, LPISL, UBS)").add_argument
    add("--weights_dir", default="", metavar="DIR",
        help="directory of ImageNet weights with torchvision's file names; default: download at first use")
    add("--vgg_weights", default="", metavar="FILE", help="file of VGG weights with torchvision's keys, in single or half precision")
    add("--vgg", type=int, default=0, choices=(0, 16, 19), help="depth of the VGG; 0: the depth in the paper of each loss")
    add("--num_of_SegClass", type=SIZE, default=21, help="number of classes of the segmentation in UBS")
