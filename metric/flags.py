"""The flags that say how results are measured."""


def add_arguments(parser) -> None:
    """Add the group of flags about measures."""
    add = parser.add_argument_group("measures").add_argument
    add("--protocol", default="default", metavar="A+B",
        help="how results are measured; --list shows all; the first chooses the best model")
    add("--metrics", default="", metavar="A+B",
        help="further measures: ms_ssim, or any of pyiqa's (lpips, niqe, …) where that is installed")
