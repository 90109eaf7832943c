"""python -m tool.zoo [test|train|publish|gallery|pack]: the networks that come with the program (see docs/zoo.md).

This file imports no torch, because `__main__` chooses the number of threads before torch is imported.
"""
import argparse
import sys

from runtime.arguments import Formatter, Parser, number

LONGEST = 2.5                             # hours of a training; longer ones are stages, each with a folder of its own


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag or value."""
    parser = Parser(prog="tool.zoo", description=__doc__.partition("\n")[0], allow_abbrev=False, formatter_class=Formatter)
    parser.add_argument("what", nargs="?", default="test", choices=("test", "train", "publish", "gallery", "pack"),
                        help="test: measure networks on every set that is found; train: train one by zoo/NAME/args.json; publish: put its "
                             "weights into zoo/NAME; gallery: write the pictures of docs/gallery.md; pack: copy the images of the "
                             "trainings to dataset/packed, at most 30 MiB, for a machine without them")
    parser.add_argument("names", nargs="*", metavar="NAME", help="the network; test: any number of them, default: all")
    parser.add_argument("--hours", type=number(float, 0.001, LONGEST), default=2.0, help="time of a training; a tenth is left for tests")
    parser.add_argument("--write", action="store_true", help="test: write the tables to README.md and docs/zoo.md, and the cards")
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if args.what in ("train", "publish") and len(args.names) != 1:
        parser.error(f"{args.what} needs the name of one network, as in python -m tool.zoo {args.what} aio")
    typed = parser.given(argv)
    for flag, what in (("hours", "train"), ("write", "test")):
        if flag in typed and args.what != what:
            parser.error(f"--{flag} belongs to python -m tool.zoo {what}")
    if args.what in ("gallery", "pack") and args.names:
        parser.error(f"{args.what} takes no names, because it is the same for all networks")
    return args


def run(argv: list[str] | None = None) -> None:
    """Test, train or publish networks; raises UserError for wrong input, Failure if a part fails."""
    from tool.zoo import gallery, pack, publish, table, train
    args = parse(argv)
    if args.what == "train":
        print(f"weights and card: {train.run(args.names[0], args.hours)}")
    elif args.what == "publish":
        publish.run(args.names[0])
    elif args.what == "gallery":
        gallery.run()
    elif args.what == "pack":
        pack.run()
    else:
        table.run(args.names, args.write)
