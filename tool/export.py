"""python -m tool.export x.pt --onnx: convert a model file to ONNX or torch.export and compare the result with the original."""
import argparse
import contextlib
import importlib
import inspect
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from model import weights
from model.method import Method
from restore.restorer import Restorer
from runtime import process
from runtime.arguments import Parser
from runtime.errors import Failure, UserError
from runtime.files import temporary
from tool import guarded

LIMIT = 1e-4                              # greatest allowed absolute difference from the original network
OPSET = 18
LONGEST = 32768                           # largest batch size, height and width that an exported file is made for
Run = Callable[[Tensor], Tensor]


class Restored(nn.Module):
    """The exported module: (B, 3, H, W) in [0, 1] to restored images of the same size, with padding and cropping inside.

    Equals `method.restore` for sides of at least `smallest(method)` pixels, for which padding by reflection is always possible.
    """

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, image: Tensor) -> Tensor:
        multiple, sides = self.method.multiple_of, image.shape[-2:]
        if multiple == 1:
            return self.method.predict(image)["image"]
        x = image                         # reflected by index, because F.pad adds conditions on the sizes that the exporter cannot prove
        for axis, side in zip((-2, -1), sides):
            position = torch.arange((side + multiple - 1) // multiple * multiple, device=image.device)
            x = x.index_select(axis, side - 1 - (side - 1 - position).abs())
        x = self.method.predict(x)["image"]
        for axis, side in zip((-2, -1), sides):
            x = x.index_select(axis, torch.arange(side, device=image.device))
        return x


def smallest(method: Method) -> int:
    """Return the smallest height and width in pixels that the exported network accepts."""
    multiple = method.multiple_of
    return max(multiple, (method.least_side - 1) // multiple * multiple) + 1


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag or a wrong output name."""
    parser = Parser(prog="tool.export", description=__doc__, allow_abbrev=False)
    parser.add_argument("file", metavar="FILE", help="a model file, such as experiment/mine/model/model_best.pt")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--onnx", dest="kind", action="store_const", const="onnx", help="write an ONNX file")
    kind.add_argument("--torch", dest="kind", action="store_const", const="pt2", help="write a file for torch.export.load")
    parser.add_argument("--output", default="", metavar="FILE", help="output file; default: FILE with the ending .onnx or .pt2")
    args = parser.parse_args(argv)
    args.output = Path(args.output or Path(args.file).with_suffix(f".{args.kind}"))
    if args.output.suffix != f".{args.kind}":
        raise UserError(f"--output {args.output}: the name must end in .{args.kind}")
    if args.output.is_dir():
        raise UserError(f"--output {args.output} is a folder; give the name of a file")
    if not args.output.parent.is_dir():
        raise UserError(f"--output {args.output}: there is no folder {args.output.parent}")
    return args


def run(argv: list[str] | None = None) -> None:
    """Export a model file, check it and print the greatest difference; Failure and no output file when it exceeds LIMIT."""
    args = arguments(argv)
    if args.kind == "onnx":
        need("onnx", "onnxscript", "onnxruntime")
    stated = weights.describe(args.file)
    with process.session(True, 0):
        method = weights.load(args.file)
    facts = about(stated, method)
    program = traced(method, facts["model"])
    content, run_again = {"onnx": as_onnx, "pt2": as_torch}[args.kind](program, facts)
    with temporary(args.output) as part:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        worst = check(method, run_again(part))
    print(f"{args.output}: {facts['model']}, {len(content) / 1e6:.1f} MB, any batch, height and width from {facts['smallest_side']} "
          f"pixels; greatest difference from the original {worst:.2g}")


def need(*packages: str) -> None:
    """Raise UserError with the pip command when one of these packages is missing."""
    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"--onnx needs the package {name}: pip install {' '.join(packages)}") from error


def about(stated: dict, method: Method) -> dict[str, str]:
    """Return the metadata of an exported file; `stated` holds the arguments that the model file states."""
    return {"model": stated["model"], "input": "(batch, 3, height, width), float32, RGB", "range": "[0, 1], output not clipped",
            "multiple": f"{method.multiple_of}, padded and cropped inside", "smallest_side": str(smallest(method)),
            "arguments": json.dumps({key: value for key, value in stated.items() if key not in ("model", "data_train", "data_range")})}


@contextlib.contextmanager
def no_output():
    """Suppress everything that the exporters print, warn and log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def traced(method: Method, name: str) -> torch.export.ExportedProgram:
    """Return the method as a program for any batch size, height and width; Failure when that is impossible, UserError for an old torch."""
    if "prefer_deferred_runtime_asserts_over_guards" not in inspect.signature(torch.export.export).parameters:
        raise UserError(f"torch {torch.__version__} is too old for this export; use 2.9 or newer")
    least, dim = smallest(method), torch.export.Dim
    sizes = {0: dim("batch", min=1, max=LONGEST), 2: dim("height", min=least, max=LONGEST), 3: dim("width", min=least, max=LONGEST)}
    unit = max(method.multiple_of, 8)
    example = torch.rand(2, 3, 4 * unit + 3, 5 * unit + 5)
    try:
        with torch.no_grad(), no_output():
            return torch.export.export(Restored(method).eval(), (example,), dynamic_shapes={"image": sizes},
                                       prefer_deferred_runtime_asserts_over_guards=True)
    except Exception as error:            # the exporter raises many types of exceptions
        raise cannot(name, error) from error


def cannot(name: str, error: BaseException) -> Failure:
    """Return a Failure with the first line of the innermost cause of an exporter's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return Failure(f"the model {name} cannot be exported: {(lines or [type(error).__name__])[0]}")


def as_onnx(program: torch.export.ExportedProgram, facts: dict[str, str]) -> tuple[bytes, Callable[[Path], Run]]:
    """Return the bytes of an ONNX file and a function that opens it in onnxruntime; Failure when ONNX cannot express the program."""
    import onnxruntime
    try:
        with no_output():
            proto = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["input"], output_names=["image"],
                                      opset_version=OPSET).model_proto
    except Exception as error:            # see traced
        raise cannot(facts["model"], error) from error
    for key, value in facts.items():
        proto.metadata_props.add(key=f"unweather.{key}", value=value)

    def opened(path: Path) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])

    return proto.SerializeToString(), opened


def as_torch(program: torch.export.ExportedProgram, facts: dict[str, str]) -> tuple[bytes, Callable[[Path], Run]]:
    """Return the bytes of a torch.export file and a function that opens it."""
    buffer = io.BytesIO()
    with no_output():
        torch.export.save(program, buffer, extra_files={"unweather.json": json.dumps(facts)})

    def opened(path: Path) -> Run:
        with no_output(), open(path, "rb") as file:
            return torch.export.load(io.BytesIO(file.read())).module()

    return buffer.getvalue(), opened


def check(method: Method, exported: Run) -> float:
    """Return the greatest absolute difference from the Restorer's result over three image sizes; Failure above LIMIT."""
    restorer = Restorer(method)
    unit, random, worst = max(method.multiple_of, 8), torch.Generator().manual_seed(0), 0.0
    for count, height, width in ((1, 4 * unit, 5 * unit), (2, 3 * unit + 1, 4 * unit - 1), (1, 6 * unit + 3, 3 * unit + 5)):
        x = torch.rand(count, 3, height, width, generator=random)
        expected = restorer(x, may_tile=False)
        try:
            found = exported(x)
        except Exception as error:        # the runtimes raise many types of exceptions
            raise Failure(f"the exported file does not run on {count}x3x{height}x{width}: {str(error).partition(chr(10))[0]}") from error
        if found.shape != expected.shape:
            raise Failure(f"the exported file returns {'x'.join(map(str, found.shape))} for an input of {count}x3x{height}x{width}")
        difference = (found - expected).abs().max().item()
        if not difference <= LIMIT:       # also true for NaN
            raise Failure(f"the exported file differs from the original by {difference:.2g} on {count}x3x{height}x{width}, "
                          f"more than {LIMIT:g}; it was not saved")
        worst = max(worst, difference)
    return worst


if __name__ == "__main__":
    sys.exit(guarded("tool.export", run))
