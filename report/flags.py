"""The flags of the result page and of experiment trackers."""
from argparse import BooleanOptionalAction


def add_arguments(parser) -> None:
    """Add the group of flags about the result page and trackers."""
    add = parser.add_argument_group("report").add_argument
    add("--report", action=BooleanOptionalAction, default=True,
        help="write report.html after a final test: numbers, curves, and a before-and-after view of the images")
    add("--logger", default="off", choices=("off", "tensorboard", "wandb"),
        help="also write the numbers of the log and an example of every test to experiment/<save>/tensorboard or to Weights & Biases")
