"""python -m tool.zoo: test the networks of the zoo and write their table; python -m tool.zoo train NAME --hours 2: train one."""
import argparse
import sys

if __name__ == "__main__":                # before torch is imported
    from runtime import waiting
    waiting.leave_cores_to_others()

from runtime.arguments import Formatter, Parser, number
from tool import guarded
from tool.zoo import publish, table, train


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown one."""
    parser = Parser(prog="tool.zoo", description=__doc__, allow_abbrev=False, formatter_class=Formatter)
    kinds = parser.add_subparsers(dest="what")
    test = kinds.add_parser("test", help="test every network on every set found, and rewrite the table (the default)")
    test.add_argument("names", nargs="*", metavar="NAME", help="networks to test; default: all")
    test.add_argument("--write", action="store_true", help="write the table to README.md and docs/zoo.md")
    once = kinds.add_parser("train", help="train a network by zoo/NAME/args.json")
    once.add_argument("name", metavar="NAME")
    once.add_argument("--hours", type=number(float, 0.001, 2.5), default=2.0, help="time for training and tests, at most 2.5")
    chosen = kinds.add_parser("publish", help="copy the weights and the card of a training to zoo/NAME")
    chosen.add_argument("name", metavar="NAME")
    return parser.parse_args(sys.argv[1:] if argv is None else argv)


def run(argv: list[str] | None = None) -> None:
    """Do what the command line names."""
    args = arguments(argv)
    if args.what == "train":
        print(f"weights and card: {train.run(args.name, args.hours)}")
    elif args.what == "publish":
        publish.run(args.name)
    else:
        table.run(getattr(args, "names", []), getattr(args, "write", False))


if __name__ == "__main__":
    sys.exit(guarded("tool.zoo", run))
