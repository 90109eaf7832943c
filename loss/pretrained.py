"""Networks pretrained on ImageNet for losses on features: torchvision's weights, downloaded, or read from a directory or file."""
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from runtime import process
from runtime.errors import UserError
from runtime.files import read_tensors

Network = TypeVar("Network", bound=nn.Module)
WIDTHS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}      # VGG: number of convolutions before each of the five poolings


class Missing(UserError):
    """A network or package that a loss needs is missing; the text completes the sentence 'the loss X needs'."""


class VGG(nn.Module):
    """The convolutions of VGG-16 or VGG-19 up to relu5_1, with torchvision's names (Simonyan and Zisserman, 2015)."""

    def __init__(self, depth: int):
        super().__init__()
        self.features, self.names = nn.Sequential(), {}
        inputs = 3
        for block, (count, width) in enumerate(zip(WIDTHS[depth], (64, 128, 256, 512, 512)), 1):
            for number in range(1, count + 1 if block < 5 else 2):
                self.features.extend((nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()))
                self.names[len(self.features) - 1] = f"relu{block}_{number}"
                inputs = width
            self.features.append(nn.MaxPool2d(2))

    def forward(self, x: Tensor, layers: tuple[str, ...]) -> list[Tensor]:
        """Return the features of (B, 3, H, W) in [0, 1] after the named layers, ordered by depth."""
        found = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if self.names.get(place) in layers:
                found.append(x)
            if len(found) == len(layers):
                break
        return found


def vgg(args, depth: int) -> VGG:
    """Return the frozen VGG of that depth (--vgg overrides it), which all losses share in memory."""
    return _vgg(args.vgg or depth, args.vgg_weights, args.weights_dir)


@functools.lru_cache
def _vgg(depth: int, file: str, folder: str) -> VGG:
    return _filled(lambda: VGG(depth), f"vgg{depth}", file, folder)


def alexnet(args) -> dict[str, Tensor]:
    """Return the weights of AlexNet's convolutions, `features.N.weight` and `.bias`."""
    from torchvision import models
    with torch.device("meta"):
        needed = models.alexnet().state_dict()
    return _fitting("alexnet", "", args.weights_dir, {key: value for key, value in needed.items() if key.startswith("features.")})


def resnet101(folder: str) -> nn.Module:
    """Return torchvision's ResNet-101, frozen; `folder` is --weights_dir."""
    from torchvision import models
    return _filled(models.resnet101, "resnet101", "", folder)


def _filled(make: Callable[[], Network], name: str, file: str, folder: str) -> Network:
    """Return the network with its weights, frozen and in eval mode; UserError if the weights do not fit."""
    with torch.device("meta"):            # no time, memory or random numbers are used for weights that are replaced
        network = make()
    network.load_state_dict(_fitting(name, file, folder, network.state_dict()), assign=True)
    return network.requires_grad_(False).eval()


def _fitting(name: str, file: str, folder: str, needed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the needed keys in float32; UserError if one is missing or has another shape."""
    state = _weights(name, file, folder)
    wrong = next((key for key in needed if getattr(state.get(key), "shape", None) != needed[key].shape), None)
    if wrong:
        raise UserError(f"{file or f'the file of {name}'} does not contain the weights of {name}: '{wrong}' is missing or has another "
                        "shape; torchvision's keys are required, and --vgg is the depth of the VGG in a --vgg_weights file")
    return {key: state[key].float() if state[key].is_floating_point() else state[key] for key in needed}


def _weights(name: str, file: str, folder: str) -> dict[str, Tensor]:
    from torchvision import models
    entry = models.get_model_weights(name)["IMAGENET1K_V1"]
    wanted = entry.url.rpartition("/")[2]
    if file:
        return read_tensors(file)
    if folder:
        if not (Path(folder) / wanted).is_file():
            raise Missing(f"{wanted}, which --weights_dir {folder} does not contain; download it from {entry.url} into that directory")
        return read_tensors(Path(folder) / wanted)
    cached = Path(torch.hub.get_dir(), "checkpoints", wanted)
    try:
        if process.local_rank() > 0:
            process.barrier()                                     # the first process of a machine downloads for its other processes
        state = (read_tensors(cached) if cached.is_file() else
                 entry.get_state_dict(progress=not process.quiet(), check_hash=True, map_location="cpu", weights_only=True))
        if process.local_rank() == 0:
            process.barrier()
        return state
    except (OSError, RuntimeError) as error:
        cause = getattr(error, "reason", None) or error
        raise Missing(f"torchvision's ImageNet weights {wanted}, which could not be downloaded ({cause}); download them from {entry.url} "
                      f"into {torch.hub.get_dir()}/checkpoints, or specify their directory with --weights_dir"
                      + (", or the file with --vgg_weights" if name.startswith("vgg") else "")) from error
