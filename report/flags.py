"""The flags of the result page and of experiment trackers."""
from argparse import BooleanOptionalAction


def add_arguments(parser) -> None:
    """Add the group of flags about reports."""
    add = parser.add_argument_group("report").add_argument
    add("--report", action=BooleanOptionalAction, default=True,
        help="write report.html after a final test: numbers, curves, and every image to look at before and after")
    add("--logger", default="off", choices=("off", "tensorboard", "wandb"),
        help="curves and an example of every test, beside the log: to experiment/<save>/tensorboard or to Weights & Biases")
