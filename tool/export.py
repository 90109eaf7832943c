"""python -m tool.export x.pt --onnx: write a model file as ONNX, torch.export or safetensors, and compare the result with the original."""
import argparse
import json
import sys
from pathlib import Path

from model import weights
from model.method import Method
from restore import agreement, programs
from runtime import process, zoo
from runtime.arguments import Parser
from runtime.errors import UserError
from runtime.files import check_output, temporary, write_bytes
from tool import card, guarded, network, portable

ENDINGS = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag or a wrong output name."""
    parser = Parser(prog="tool.export", description=__doc__, allow_abbrev=False)
    parser.add_argument("file", metavar="FILE", help="a model file, such as experiment/mine/model/model_best.pt, or zoo:NAME")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--onnx", dest="kind", action="store_const", const="onnx", help="write an ONNX file")
    kind.add_argument("--torch", dest="kind", action="store_const", const="torch", help="write a file for torch.export.load")
    kind.add_argument("--safetensors", dest="kind", action="store_const", const="safetensors",
                      help="write the weights, under the names of the released files where there are such, and the arguments")
    parser.add_argument("--half", action="store_true", help="with --onnx and --safetensors: store, and in ONNX compute, in float16")
    parser.add_argument("--card", action="store_true",
                        help="with --safetensors: write a folder as model hubs expect it, with the weights and a model card (README.md)")
    parser.add_argument("--output", default="", metavar="FILE",
                        help="output file; default: FILE with the ending .onnx, .pt2 or .safetensors, with --card a folder named FILE "
                             "without its ending")
    args = network.parse(parser, argv)
    if args.half and args.kind == "torch":
        parser.error("--half does not apply to --torch, whose file keeps the types of the weights")
    if args.card and args.kind != "safetensors":
        parser.error("--card needs --safetensors")
    if not Path(args.file).name:
        raise UserError(f"FILE '{args.file}' is not the name of a model file")
    ending = "" if args.card else ENDINGS[args.kind]
    file = Path(zoo.located(args.file))
    typed = bool(args.output)
    args.output = Path(args.output or Path(args.file.removeprefix(zoo.PREFIX)).with_suffix(ending))
    check_output(args.output, "--output", folder=args.card)
    if not args.output.parent.is_dir():
        raise UserError(f"--output {args.output}: there is no folder {args.output.parent}")
    if args.card:
        if args.output.exists() or args.output.is_symlink():
            raise UserError(f"--output {args.output} exists; with --card give the name of a new folder")
    elif args.output.suffix != ending:
        raise UserError(f"--output {args.output}: the name must end in {ending}")
    elif args.output.exists() and file.exists() and args.output.samefile(file):
        raise UserError(f"the output would replace {args.file}; give another name with --output")
    elif args.output.exists() and not typed:
        raise UserError(f"{args.output} exists; --output {args.output} replaces it, another name keeps it")
    return args


def run(argv: list[str] | None = None) -> None:
    """Export a model file, check it and print the difference; Failure and no output file when it is too large."""
    args = arguments(argv)
    if args.kind == "onnx":
        programs.need("onnx", "onnxscript", "onnxruntime")
    flags, note = weights.network_flags(args.file, args.network), weights.read(args.file).note
    with process.session(True, 0):
        method = weights.load(args.file, args.network)
    if args.kind == "safetensors":
        write = portable.write_folder if args.card else portable.write_file
        print(f"{args.output}: {write(card.Source(Path(zoo.located(args.file)), method, flags, note), args.output, args.half)}")
    else:
        print(f"{args.output}: {write_program(method, about(flags, method), args)}")


def write_program(method: Method, facts: dict[str, str], args: argparse.Namespace) -> str:
    """Write an ONNX or torch.export file that passes the check, and return a description of it."""
    program = programs.traced(method, facts["model"])
    content, opened = programs.as_onnx(program, facts, args.half) if args.kind == "onnx" else programs.as_torch(program, facts)
    with temporary(args.output) as part:
        write_bytes(part, content)
        differences = agreement.check(method, opened(part), args.half)
    return (f"{facts['model']}, {programs.in_words(content)}, any batch, height and width from {facts['smallest_side']} pixels; "
            f"{differences}")


def about(flags: dict, method: Method) -> dict[str, str]:
    """Return the metadata of an exported file; `flags` holds the arguments that the network was built from."""
    return {"model": flags["model"], "input": "(batch, 3, height, width), float32, RGB", "range": "[0, 1], output not clipped",
            "multiple": f"{method.multiple_of}, padded and cropped inside", "smallest_side": str(programs.smallest(method)),
            "arguments": json.dumps({key: flags[key] for key in weights.known(flags["model"])})}


if __name__ == "__main__":
    sys.exit(guarded("tool.export", run))
