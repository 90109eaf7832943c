"""Programs that other software runs: a method as ONNX and torch.export program, for any batch, height and width."""
import contextlib
import importlib
import inspect
import io
import json
import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from model import tiling
from model.method import Method
from runtime.errors import Failure, UserError

OPSET = 18
LONGEST = 32768                           # largest batch size, height and width that an exported file is made for
PYTHON = (IndexError, KeyError, TypeError, AttributeError, AssertionError)       # errors of plain code, whose texts say little
AXES = {0: "batch", 2: "height", 3: "width"}
# float32 in a file of float16: statistics, norms, and the sums and divisions of which they are made
EXACT = ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "ReduceMean", "ReduceSum", "ReduceL2", "GlobalAveragePool",
         "Softmax", "Pow", "Sqrt", "Reciprocal", "Div", "Clip", "Expand")
Run = Callable[[Tensor], Tensor]


class Predicted(nn.Module):
    """The network as an exported module: (B, 3, H, W) in [0, 1] to restored images, for the sizes that the network takes."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, image: Tensor) -> Tensor:
        found = self.method.predict(image)["image"]
        assert isinstance(found, Tensor)
        return found


class Restored(Predicted):
    """The same for any size, with padding and cropping inside.

    Equals `method.restore` for sides of at least `smallest(method)` pixels, for which padding by reflection is always possible.
    """

    def forward(self, image: Tensor) -> Tensor:
        multiple, sides = self.method.multiple_of, image.shape[-2:]
        if multiple == 1:
            return super().forward(image)
        x = image                         # reflected by index, because F.pad adds conditions on the sizes that the exporter cannot prove
        for axis, side in zip((-2, -1), sides):
            position = torch.arange((side + multiple - 1) // multiple * multiple, device=image.device)
            x = x.index_select(axis, side - 1 - (side - 1 - position).abs())
        x = super().forward(x)
        for axis, side in zip((-2, -1), sides):
            x = x.index_select(axis, torch.arange(side, device=image.device))
        return x


def smallest(method: Method) -> int:
    """Return the smallest height and width in pixels that the exported network accepts."""
    multiple = method.multiple_of
    return max(multiple, (method.least_side - 1) // multiple * multiple) + 1


def least_unit(method: Method) -> int:
    """Return a length in pixels, of which the images for tracing and checking have at least three."""
    return max(method.multiple_of, 8, -(-smallest(method) // 3))


def in_words(content: bytes) -> str:
    """Return the size of a file in words."""
    return f"{len(content) / 1e6:.1f} MB" if len(content) >= 1e6 else f"{len(content) / 1e3:.0f} kB"


def need(*packages: str) -> None:
    """Raise UserError with the pip command when one of these packages is missing."""
    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"--onnx needs the package {name}: pip install {' '.join(packages)}") from error


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


def traced(method: Method, name: str, padded: bool = True) -> torch.export.ExportedProgram:
    """Return the method as a program for any batch size, height and width, or without padding only for the sizes that the network takes.

    Failure when that is impossible, UserError for an old torch.
    """
    if "prefer_deferred_runtime_asserts_over_guards" not in inspect.signature(torch.export.export).parameters:
        raise UserError(f"torch {torch.__version__} is too old for this export; use 2.9 or newer")
    unit = least_unit(method)
    example = torch.rand(2, 3, 4 * unit + 3, 5 * unit + 5)
    if padded:
        sizes = {axis: torch.export.Dim(name, min=1 if name == "batch" else smallest(method), max=LONGEST) for axis, name in AXES.items()}
    else:
        step = method.multiple_of
        example = tiling.extended(example, step)
        least = -(-method.least_side // step)
        sizes = {axis: torch.export.Dim(name, min=1, max=LONGEST) if name == "batch" else
                 step * torch.export.Dim(name, min=least, max=LONGEST // step) for axis, name in AXES.items()}
    try:
        with torch.no_grad(), no_output():
            return torch.export.export((Restored if padded else Predicted)(method).eval(), (example,), dynamic_shapes={"image": sizes},
                                       prefer_deferred_runtime_asserts_over_guards=True)
    except Exception as error:            # the exporter raises many types of exceptions
        raise cannot(name, error, type(method.network).__name__) from error


def cannot(name: str, error: BaseException, network: str = "") -> Failure:
    """Return a Failure with the first line of the innermost cause of an exporter's error; `network` is the name of the class."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines or [type(error).__name__])[0]
    if network and (isinstance(error, PYTHON) or text.startswith("Specializations")):
        text = (f"the class {network} computes with the height and width of its input in a way that the exporter cannot follow "
                f"({type(error).__name__}: {text})")
    return Failure(f"the model {name} cannot be exported: {text}")


def as_onnx(program: torch.export.ExportedProgram, facts: dict[str, str], half: bool = False) -> tuple[bytes, Callable[[Path], Run]]:
    """Return the bytes of an ONNX file and a function that opens it in onnxruntime; Failure when ONNX cannot express the program."""
    try:
        with no_output():
            written = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["input"], output_names=["image"],
                                        opset_version=OPSET)
            assert written
            proto = written.model_proto
            proto = halved(proto) if half else proto
    except Exception as error:            # see traced
        raise cannot(facts["model"], error) from error
    name_axes(proto.graph)
    for key, value in facts.items():
        proto.metadata_props.add(key=f"unweather.{key}", value=value)

    def opened(path: Path) -> Run:
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])

    return proto.SerializeToString(), opened


def halved(proto):
    """Return an ONNX model that computes in float16, except EXACT and what float16 has no operator for; input and output stay float32."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel
    graph = OnnxModel(convert_float_to_float16(proto, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *EXACT]))
    graph.remove_cascaded_cast_nodes()    # between two float32 operators: a norm keeps its range and precision
    graph.topological_sort()
    del graph.model.graph.value_info[:]   # types and sizes of intermediate results, which are optional and no longer true
    return graph.model


def name_axes(graph) -> None:
    """Name the axes of an ONNX graph's input, in all sizes that the graph states: batch, height, width."""
    sizes = graph.input[0].type.tensor_type.shape.dim
    names = {sizes[axis].dim_param: name for axis, name in AXES.items()}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), size.dim_param)


def as_torch(program: torch.export.ExportedProgram, facts: dict[str, str]) -> tuple[bytes, Callable[[Path], Run]]:
    """Return the bytes of a torch.export file and a function that opens it."""
    buffer = io.BytesIO()
    with no_output():
        torch.export.save(program, buffer, extra_files={"unweather.json": json.dumps(facts)})

    def opened(path: Path) -> Run:
        with no_output(), open(path, "rb") as file:
            return torch.export.load(io.BytesIO(file.read())).module()

    return buffer.getvalue(), opened
