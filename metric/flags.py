"""The flags that specify how results are measured."""


def add_arguments(parser) -> None:
    """Add the flags about measures to a parser."""
    add = parser.add_argument_group("measures").add_argument
    add("--protocol", default="default", metavar="A+B",
        help="protocols of the measurement; --list shows all; see --best")
    add("--metrics", default="", metavar="A+B",
        help="further measures: those that --list shows, or any measure of the package pyiqa (lpips, niqe and others) if it is installed")
    add("--best", default="psnr", metavar="NAME",
        help="the number that selects the best model, on the first test set that has it: psnr, psnr_y, ssim, or one of --metrics")
