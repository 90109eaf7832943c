"""External: any PyTorch network in a file of yours that maps images to images, --arch FILE.py:CLASS."""
import argparse
import inspect
import json
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from contract import Prediction
from model.external import code
from model.method import Method
from runtime.arguments import SIZE, Code
from runtime.errors import ENDING, UserError, about, short

RECIPE = dict(loss="1*L1", optimizer="ADAMW", lr=2e-4, weight_decay=1e-4, schedule="cosine", lr_min=1e-6, batch_size="16",
              patch_size="128", epochs=200, test_every=1000)
EXAMPLE = f"{Path(__file__).with_name('example.py')}:Example"
TINY = dict(arch=EXAMPLE, arch_args='{"width": 4}', multiple=2)       # a small network, for the tests
FROM_ARGUMENTS = False                    # the code is named by the user, never by a file
SIDE = 64                                 # pixels of the image on which a network is tried


class External(Method):
    """A foreign network as a method: predicts 'image', (B, 3, H, W); arch and output are the flags of these names."""

    same_graph = False                    # it may skip layers at random

    def __init__(self, network: nn.Module, arch: str, output: str = "", multiple: int = 1):
        super().__init__(network)
        self.arch, self.output, self.multiple_of = arch, output, multiple

    def prepare(self, args) -> None:
        """Raise UserError if there is nothing to train."""
        if not any(parameter.requires_grad for parameter in self.network.parameters()):
            raise UserError(f"--arch {self.arch}: the network has no parameter that can be trained")

    def predict(self, x: Tensor) -> Prediction:
        """Return image for (B, 3, H, W) in [0, 1]; raises UserError with file and line if the network fails."""
        try:
            result = self.network(x)
        except (MemoryError, UserError, *ENDING):
            raise
        except BaseException as error:          # the network may do anything
            if isinstance(error, RuntimeError) and "memory" in str(error):        # the Restorer and main handle this
                raise
            raise UserError(f"--arch {self.arch}: the network fails for an input of {tuple(x.shape)}: {_about(self.arch, error)}; "
                            f"{self._hint()}") from error
        return {"image": self._chosen(result)}

    def check(self, prediction: Prediction, x: Tensor) -> Tensor:
        """Return the image; raises UserError if it has not the shape of x."""
        image = prediction["image"]
        if isinstance(image, Tensor) and image.shape != x.shape:
            raise UserError(f"--arch {self.arch}: the network returns the shape {tuple(image.shape)} for an input of {tuple(x.shape)}, "
                            f"which it must keep; {self._hint()}")
        return super().check(prediction, x)

    def _hint(self) -> str:
        return f"if it needs sides that are multiples of N, add --multiple N (it is {self.multiple_of} now)"

    def _chosen(self, result: object) -> Tensor:
        """Return the part of the network's result that --output names."""
        parts = {"": result}
        if isinstance(result, (tuple, list, dict)):
            parts = {str(key): part for key, part in (result.items() if isinstance(result, dict) else enumerate(result))}
        known = [key for key, part in parts.items() if isinstance(part, Tensor)]
        if self.output in known:
            return parts[self.output]
        listed = ", ".join(known[:9])
        advice = {0: ", which holds no tensor"}.get(len(known), f"; the part that is the image is named by --output: {listed}")
        raise UserError(f"--arch {self.arch}: the network returns a {type(result).__name__}"
                        + ("; leave out --output" if known == [""] else advice))


def add_arguments(group) -> None:
    """Add the flags that the network depends on."""
    group.add_argument("--arch", action=Code, default="", metavar="FILE.py:CLASS",
                       help="the class of the network, an nn.Module from (B, 3, H, W) in [0, 1] to the same; the file runs as your own "
                            "code with all your rights, so name only code that you trust; model files and args.json never set this flag")
    group.add_argument("--arch_args", type=_object, default="{}", metavar="JSON",
                       help="keyword arguments of the class, as in '{\"dim\": 48}'; model files store them")
    group.add_argument("--output", type=_part, default="", metavar="N",
                       help="which part of the network's result is the image: the number in a tuple or list (from 0), or the key in a dict")
    group.add_argument("--multiple", type=SIZE, default=1, metavar="N", help="images are padded to sides that are multiples of N")


def _object(text: str) -> str:
    """Check an argparse value and return it: a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"'{short(text)}' is not a JSON object of keyword arguments, as in '{{\"dim\": 48}}'")
    return text


def _part(text: str) -> str:
    """Check an argparse value and return it: '', a whole number or a key."""
    if not re.fullmatch(r"([0-9]{1,4}|[^\W\d][\w./-]{0,99})?", text):
        raise argparse.ArgumentTypeError(f"'{short(text)}' is not a number from 0 or a key")
    return text


def build(args) -> Method:
    """Return the method for --arch, whose network was tried on a small image; raises UserError if it does not do what it must."""
    arch = getattr(args, "arch", "")
    if not arch:
        raise UserError("the network of the model external is code that you name: add --arch FILE.py:CLASS to every command that uses it "
                        "(from Python: arch=\"FILE.py:CLASS\"); model files and args.json never name code that is run")
    method = External(_network(arch, args.arch_args), arch, args.output, args.multiple)
    _try(method)
    return method


def _network(arch: str, arguments: str) -> nn.Module:
    """Return a new network of a class."""
    made = code.load(arch)
    try:
        network = made(**json.loads(arguments))
    except (MemoryError, UserError, *ENDING):
        raise
    except BaseException as error:              # the class may do anything
        raise UserError(f"--arch {arch}: the network cannot be built with --arch_args '{short(arguments)}': "
                        f"{_about(arch, error)}{_signature(made)}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"--arch {arch}: this gives a {type(network).__name__}, not an nn.Module")
    return network


def _about(arch: str, error: BaseException) -> str:
    return about(error, code.within(Path(arch.rpartition(":")[0])))


def _signature(made: object) -> str:
    try:
        return f"; it takes {', '.join(map(str, inspect.signature(made).parameters.values())) or 'no arguments'}"  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""


def _try(method: External) -> None:
    """Apply a network once to an image with unequal sides, without a trace in it or in the random numbers."""
    side = -(-SIDE // method.multiple_of) * method.multiple_of
    x = torch.linspace(0, 1, 3 * side * (side + method.multiple_of)).reshape(1, 3, side, -1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        method.eval().check(method.predict(x), x)
    method.train()
    other = next((key for key, value in method.network.state_dict().items() if not isinstance(value, Tensor)), "")
    if other:
        raise UserError(f"--arch {method.arch}: '{other}' in the network's state is not a tensor, so it cannot be saved")


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state unchanged, because a foreign network keeps its names."""
    return state
