"""The flags of losses that compare the prediction with what other networks compute."""
from runtime.arguments import SIZE, Code


def add_arguments(parser) -> None:
    """Add the flags about a teacher and about losses on features to a parser."""
    add = parser.add_argument_group("distillation").add_argument
    add("--teacher", default="", metavar="FILE",
        help="model file of a teacher, of any model; its answer is the target 'teacher', as in --loss '1*L1+0.5*L1:image:teacher'")
    add("--teacher_arch", action=Code, default="", metavar="FILE.py:CLASS",
        help="code of the network of a teacher whose model needs --arch; the file runs as your own code, and no file can state it")
    add("--teacher_features", default="", metavar="A+B=C",
        help="modules whose outputs are the predictions feature_1, feature_2, and in the teacher teacher_feature_1, teacher_feature_2; "
             "B=C if the module has another name in the teacher")
    add = parser.add_argument_group("losses on features of pretrained networks (SCR, HCR, PCL, POCL, LPISL, UBS)").add_argument
    add("--weights_dir", default="", metavar="DIR",
        help="directory of ImageNet weights with torchvision's file names; default: download at first use")
    add("--vgg_weights", default="", metavar="FILE", help="file of VGG weights with torchvision's keys, in single or half precision")
    add("--vgg", type=int, default=0, choices=(0, 16, 19), help="depth of the VGG; 0: the depth in the paper of each loss")
    add("--num_of_SegClass", type=SIZE, default=21, help="number of classes of the segmentation in UBS")
