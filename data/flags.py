"""The flags that say which images a run reads, and how."""
from argparse import BooleanOptionalAction

from runtime.arguments import number


def add_arguments(parser) -> None:
    """Add the group of flags about data."""
    add = parser.add_argument_group("data").add_argument
    add("--dir_data", default="dataset", metavar="DIR", help="where the data sets are")
    add("--dir_demo", default="", metavar="DIR", help="a folder of pictures to restore, with --data_test Demo (or Folder)")
    add("--data_train", default="DIV2K", metavar="A+B",
        help="data sets to train on; any folder of --dir_data with input/ and target/ is one")
    add("--data_test", default="", metavar="A+B", help="data sets to test on; default: those of --data_train")
    add("--train_dir", default="", metavar="DIR", help="where the paths of a CSV list begin; default: --dir_data")
    add("--data_range", default="", metavar="a-b/c-d",
        help="images by position, to train on / to test on; with --test_only a-b alone; names are in natural order: 1, 2, 10, 11")
    add("--audit", action=BooleanOptionalAction, default=True,
        help="before training, look for training images that show a scene of a test set (the first time takes a while; then cached)")
    add("--exclude_leaks", action=BooleanOptionalAction, default=False, help="leave such images out of the training")
    add("--ext", default="sep", choices=("sep", "sep_reset", "img"),
        help="sep, sep_reset: decode once into <dir_data>/bin, checked at every start; img: decode each time")
    add("--scale", default="1", help="kept from EDSR; restoration keeps the size, so only 1")
    add("--patch_size", default="64", metavar="N", help="side of the training crops")
    add("--rgb_range", type=number(float, 1e-6), default=255.0,
        help="range on which a network of that kind computes; images are in [0, 1] elsewhere")
    add("--n_colors", type=int, default=3, choices=(3,), help="colour channels")
    add("--augment", default="all", choices=("all", "mirror"), help="all 8 flips and turns, or mirroring left to right alone")
    add("--no_augment", action="store_true", help="no flips and turns")
    add("--balanced", action=BooleanOptionalAction, default=False,
        help="draw a data set first, then an image of it; --test_every 0 then counts the smallest set")
    add("--sigma", default="", metavar="a-b", help="noise levels drawn for the clean photos of a list, those of BSD400, WED and the like")
    add("--n_threads", type=number(int, 0, 256), default=2, help="processes that load data; changes no number")
