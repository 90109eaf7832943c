"""spandrel: networks that the package spandrel recognises by their weights, --pre_train FILE (NAFNet, SCUNet, DRUNet, SwinIR, others)."""
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

from contract import Prediction, Stage
from model import names, weights
from model.method import Method
from runtime.arguments import number
from runtime.errors import UserError, short

RECIPE = dict(loss="1*L1", optimizer="ADAMW", lr=1e-4, weight_decay=1e-4, schedule="cosine", lr_min=1e-6, batch_size="8",
              patch_size="128", epochs=100, test_every=1000)
TINY = dict(pre_train="tiny.pth")         # the tests write this file with a class of spandrel
FROM_ARGUMENTS = False                    # the weights decide what the network is
NOISE = 15.0                              # level that the package gives to networks that take one


class Recognised(Method):
    """A network that spandrel recognised, as a method: predicts 'image', (B, 3, H, W), not clipped.

    found: spandrel's description of the network. noise_level: on the scale 0-255, for networks that take one as a fourth channel.
    """

    same_graph = False                    # it may skip layers at random

    def __init__(self, found, noise_level: float = NOISE):
        super().__init__(found.model)
        need = found.size_requirements
        self.kind, self.apply_to, self.noise_level = found.architecture.name, found._call_fn, noise_level
        inside = getattr(found.model, "padder_size", 1)           # NAFNet and KBNet pad with zeros themselves; ours is a reflection
        self.multiple_of, self.least_side, self.square = max(need.multiple_of, inside), max(need.minimum, 1), need.square
        self.takes_noise = _takes_noise(found)

    def stages(self, args) -> list[Stage]:
        """Return the flags' stages; raises UserError for crops that are too small for the network."""
        for stage in args.stages:
            if stage.patch_size < self.least_side:
                raise UserError(f"--patch_size {stage.patch_size}: this {self.kind} needs sides from {self.least_side} pixels")
        return super().stages(args)

    def predict(self, x: Tensor) -> Prediction:
        """Return image for (B, 3, H, W) in [0, 1] with sides that the network takes."""
        if self.takes_noise:
            level = torch.full_like(x[:, :1], self.noise_level / 255)
            return {"image": self.network(torch.cat([x, level], 1))}
        return {"image": self.apply_to(self.network, x)}

    def restore(self, x: Tensor) -> Tensor:
        """Return the restored images for (B, 3, H, W) in [0, 1] of any size; a network for squares gets a padded square."""
        if not self.square:
            return super().restore(x)
        height, width = x.shape[-2:]
        side = -(-max(height, width, self.least_side) // self.multiple_of) * self.multiple_of
        part = functional.pad(x, (0, min(side - width, width - 1), 0, min(side - height, height - 1)), mode="reflect")
        part = functional.pad(part, (0, side - part.shape[-1], 0, side - part.shape[-2]), mode="replicate")
        return super().restore(part)[..., :height, :width]

    def shown(self, x: Tensor) -> dict[str, Tensor]:
        """Return no other predictions, because there are none."""
        return {}


def add_arguments(group) -> None:
    """Add the flags that the network depends on."""
    group.add_argument("--noise_level", type=number(float, 0, 255), default=NOISE, metavar="SIGMA",
                       help="noise level on the scale 0-255, for networks that take one as input: DRUNet and FDnCNN")


def build(args) -> Method:
    """Return the method whose network the file --pre_train contains; raises UserError without a file or for other networks."""
    path = getattr(args, "pre_train", "")
    if not path:
        raise UserError("the model spandrel needs --pre_train FILE, because spandrel recognises a network by its weights")
    found = _found(path)
    if args.noise_level != NOISE and not _takes_noise(found):
        raise UserError(f"--noise_level {args.noise_level:g} has no effect: {path} is a {found.architecture.name}, which takes none")
    method = Recognised(found, args.noise_level)
    _try(method, path)
    return method


def _try(method: Recognised, path: str) -> None:
    """Apply a network once to a small image; raises UserError if it fails, because spandrel guesses what the weights do not tell."""
    x = torch.linspace(0, 1, 3 * 40 * 48).reshape(1, 3, 40, 48)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            method.eval().restore(x)
    except MemoryError:
        raise
    except Exception as error:            # the layers raise many types of errors
        raise UserError(f"{path} is a {method.kind} for spandrel, but it does not run: {type(error).__name__}: "
                        f"{short(error, 200)}") from error
    method.train()


def _found(path: str):
    """Return spandrel's description of the network in a file; raises UserError unless it maps three channels to three of equal size."""
    spandrel = _package()
    for state in names.variants(weights.read(path).state):
        try:
            with weights.bounded(state, f"{path}: the weights"):
                found = spandrel.ModelLoader().load_from_state_dict(state)
        except (MemoryError, UserError):
            raise
        except spandrel.UnsupportedModelError:
            continue
        except Exception as error:        # a file with some of the names of a network makes spandrel raise many types of errors
            raise UserError(f"{path} resembles a network that spandrel {spandrel.__version__} knows, but it cannot be loaded: "
                            f"{type(error).__name__}: {short(error, 200)}") from error
        if not isinstance(found, spandrel.ImageModelDescriptor):
            raise UserError(f"{path} is a {found.architecture.name}, which needs a mask beside the image; --model spandrel takes networks "
                            "that need the image only")
        if (found.scale, found.input_channels, found.output_channels) != (1, 3, 3):
            raise UserError(f"{path} is a {found.architecture.name} of scale {found.scale} with {found.input_channels} channels in and "
                            f"{found.output_channels} out; --model spandrel takes networks of scale 1 with 3 channels in and out")
        return found
    raise UserError(f"{path} is of no network that spandrel {spandrel.__version__} knows; --model external trains and tests any network "
                    "whose code you have")


def _package() -> ModuleType:
    """Return the package spandrel; raises UserError with the command that installs it if it is missing."""
    try:
        import spandrel
    except ImportError as error:
        raise UserError(f"the model spandrel needs the package of this name: pip install spandrel ({short(error)})") from error
    return spandrel


def _takes_noise(found) -> bool:
    """Return whether a network takes the noise level as a fourth channel, which spandrel's own call fixes."""
    return found.architecture.id == "DRUNet" or getattr(found.model, "mode", "") == "FDnCNN"


def from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights as the network has them, because spandrel renames those of some networks; unknown weights stay."""
    spandrel = _package()
    try:
        return spandrel.ModelLoader().load_from_state_dict(state).model.state_dict()
    except Exception:                     # these weights do not fit, which the caller reports
        return state
