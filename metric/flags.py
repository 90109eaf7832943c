"""The flags that say how results are measured."""


def add_arguments(parser) -> None:
    """Add the group of flags about measures."""
    add = parser.add_argument_group("measures").add_argument
    add("--protocol", default="default", metavar="A+B",
        help="how results are measured; --list shows all; see --best")
    add("--metrics", default="", metavar="A+B",
        help="further measures: those that --list shows, or any of the package pyiqa (lpips, niqe and others) where it is installed")
    add("--best", default="psnr", metavar="NAME",
        help="the number that chooses the best model, on the first test set that has it: psnr, psnr_y, ssim, or one of --metrics")
