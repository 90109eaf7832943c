"""A frozen teacher: its answers, and features of both networks by the name of a module, become parts of the prediction."""
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from contract import Batch, Prediction
from loss.spec import parse
from model import weights
from model.method import Method
from runtime.errors import UserError

ANSWER, FEATURE, TAUGHT = "teacher", "feature_{}", "teacher_feature_{}"


class Teacher:
    """The network of a model file, frozen and in evaluation mode, beside the method that is trained.

    features: `NAME` of a module in both networks, or `NAME=NAME_IN_TEACHER`, joined by +. arch: the code of the network, if its model
    needs --arch. Raises UserError for a file of
    another program and for a module that does not exist.
    """

    def __init__(self, path: str, features: str, method: Method, device: torch.device, arch: str = ""):
        self.method = _loaded(path, arch).requires_grad_(False).to(device, memory_format=torch.channels_last)
        pairs = [name.strip().partition("=") for name in features.split("+")] if features else []
        self.own = [_module(method.network, name, "the model") for name, _, _ in pairs]
        self.taught = [_module(self.method.network, other or name, path) for name, _, other in pairs]

    def join(self, method: nn.Module, batch: Batch) -> Prediction:
        """Return the method's prediction for a batch with `teacher`, and `feature_N` and `teacher_feature_N` for the N-th feature.

        Raises UserError if the shapes of two features differ.
        """
        with _outputs(self.own, FEATURE) as own:
            prediction = dict(method(batch))
        with torch.no_grad(), _outputs(self.taught, TAUGHT) as taught:
            prediction[ANSWER] = self.method.restore(batch.input)
        for (mine, ours), theirs in zip(own.items(), taught.values(), strict=True):
            if ours.shape != theirs.shape:
                raise UserError(f"--teacher_features: {mine} has the shape {tuple(ours.shape)} and the teacher's {tuple(theirs.shape)}; "
                                "name modules of equal width and level")
        return prediction | own | taught


def _loaded(path: str, arch: str) -> Method:
    try:
        return weights.load(path, {"arch": arch} if arch else {})
    except UserError as error:            # the file's own flag has another name here
        raise UserError(str(error).replace("--arch ", "--teacher_arch ")) from error


def make(args, method: Method, device: torch.device) -> Teacher | None:
    """Return the teacher that --teacher names, None without one; raises UserError if no loss uses it."""
    if not args.teacher:
        if args.teacher_features or args.teacher_arch:
            raise UserError(f"--teacher_{'features' if args.teacher_features else 'arch'} needs a teacher: --teacher FILE")
        return None
    used = {key for stage in method.stages(args) for part in parse(stage.loss) for key in (part.prediction, part.target)}
    if not any(key == ANSWER or key.startswith(TAUGHT.format("")) for key in used):
        raise UserError(f"--teacher {args.teacher} has no effect, because --loss does not name it; for example "
                        f"--loss '1*L1+0.5*L1:image:{ANSWER}'")
    return Teacher(args.teacher, args.teacher_features, method, device, args.teacher_arch)


def _module(network: nn.Module, name: str, owner: str) -> nn.Module:
    """Return a submodule by its name."""
    known = dict(network.named_modules())
    if name not in known or not name:
        first = ", ".join(list(dict(network.named_children()))[:8])
        raise UserError(f"--teacher_features: {owner} has no module '{name}'; its outermost modules are {first}")
    return known[name]


@contextmanager
def _outputs(modules: list[nn.Module], key: str) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of modules by `key` with their number from 1 while the block runs."""
    found: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, given: tuple, output: object) -> None:
        if not isinstance(output, Tensor):
            raise UserError(f"--teacher_features: the module of {name} returns no single tensor; name another module")
        found[name] = output

    handles = [module.register_forward_hook(partial(keep, key.format(number))) for number, module in enumerate(modules, 1)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
