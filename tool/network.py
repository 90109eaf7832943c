"""The flag --model of the tools that read model files: released files do not state their model, so the command does."""
import argparse

import model
from model import weights
from runtime.arguments import Parser


def parse(parser: Parser, argv: list[str] | None) -> argparse.Namespace:
    """Parse a command line that may have --model and, after it, the flags of that model's network.

    The result has `network`: {'model': name, flag: value} with the typed flags, {} without --model. It is what `weights.load` takes.
    A flag that the tool itself has keeps the tool's meaning.
    """
    parser.add_argument("--model", default="", metavar="NAME",
                        help="model of files that do not state it, such as released ones; flags of its network, as --channels, may follow")
    first = Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--model", default="")
    name = str(first.given(argv, others=True).get("model", "")).lower()
    own = {}
    if name:
        group = parser.add_argument_group(f"flags of the network {name}")
        own = {flag: action for flag, action in {**weights.known(name), **model.code_flags(name)}.items()
               if not set(action.option_strings) & set(parser._option_string_actions)}
        for action in own.values():
            group._add_action(action)
    args = parser.parse_args(argv)
    typed = {flag: value for flag, value in parser.given(argv).items() if flag in own} if name else {}
    args.network = {"model": name, **typed} if name else {}
    return args
