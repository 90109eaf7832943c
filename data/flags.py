"""The flags that specify which images a run reads, and how."""
from argparse import BooleanOptionalAction

from runtime.arguments import number


def add_arguments(parser) -> None:
    """Add the flags about data to a parser."""
    add = parser.add_argument_group("data").add_argument
    add("--dir_data", default="dataset", metavar="DIR", help="directory of the data sets")
    add("--dir_demo", default="", metavar="PATH",
        help="folder of images to restore, with subfolders, or one image or video, with --data_test Demo (or Folder, or video)")
    add("--data_train", default="DIV2K", metavar="A+B",
        help="data sets to train on; any folder in --dir_data that contains input/ and target/ is a data set")
    add("--data_test", default="", metavar="A+B",
        help="data sets or benchmarks to test on (--list shows both); default: the data sets of --data_train")
    add("--train_dir", default="", metavar="DIR", help="directory that the paths of a CSV list are relative to; default: --dir_data")
    add("--data_range", default="", metavar="a-b/c-d",
        help="positions of the images for training / for testing; a-b with --test_only; names in natural order: 1, 2, 10, 11")
    add("--audit", action=BooleanOptionalAction, default=True,
        help="before training, search for training images that show a scene of a test set (cached after the first search)")
    add("--exclude_leaks", action=BooleanOptionalAction, default=False, help="leave out training images that show a scene of a test set")
    add("--ext", default="sep", choices=("sep", "sep_reset", "img"),
        help="sep, sep_reset: decode each image once into <dir_data>/bin, checked at every start; img: decode it each time")
    add("--scale", default="1", help="from EDSR; only 1 is possible, because restoration keeps the image size")
    add("--patch_size", default="64", metavar="N", help="side of the training patches in pixels")
    add("--rgb_range", type=number(float, 1e-6), default=255.0,
        help="networks that use this flag compute with levels from 0 to this value; all other code uses levels from 0 to 1")
    add("--n_colors", type=int, default=3, choices=(3,), help="number of colour channels")
    add("--augment", default="all", choices=("all", "mirror"), help="all: the 8 flips and rotations; mirror: only left-right flips")
    add("--no_augment", action="store_true", help="disable flips and rotations")
    add("--balanced", action=BooleanOptionalAction, default=False,
        help="draw a data set for each sample, then one of its images; --test_every 0 then counts the smallest set")
    add("--sigma", default="", metavar="a-b",
        help="range of noise levels for the clean photos of a list, those in folders such as BSD400 or WED")
    add("--n_threads", type=number(int, 0, 256), default=2,
        help="number of worker processes that load data; results do not depend on it")
