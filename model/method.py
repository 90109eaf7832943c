"""The interface between the Trainer and a model: a network, and how a batch becomes a prediction."""
import torch
from torch import Tensor, nn

from contract import Batch, Prediction, Stage
from model import tiling
from runtime.errors import UserError


class Method(nn.Module):
    """A network plus how a batch becomes a prediction; subclasses must define `predict`; all other methods have defaults."""

    multiple_of = 1                       # height and width must be multiples of this; `restore` pads images to it
    least_side = 1                        # the smallest height and width; `restore` pads images to it
    unused: tuple[str, ...] = ()          # parts of a released network that no output depends on: kept, never trained
    maps: tuple[str, ...] = ()            # names of predictions that are maps of numbers, not images
    same_graph = True                     # the same parameters take part in every step, whatever the batch
    windowed = 0                          # side in pixels of the images above which the network takes means over windows; 0: never
    built_from = ""                       # the model and the arguments that the network was built from, as text

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network            # this part is saved in model files and tested

    def to(self, *args, memory_format: torch.memory_format | None = None, **options):
        """Move or convert as every module; `memory_format` has no effect if weights have five dimensions, because it is for four."""
        if memory_format and not any(value.dim() == 5 for value in self.state_dict().values()):
            options["memory_format"] = memory_format
        return super().to(*args, **options)

    def stages(self, args) -> list[Stage]:
        """Return the stages of the training, by default those that the flags describe (see option.py)."""
        return list(args.stages)

    def prepare(self, args) -> None:
        """Load or create what only training needs, for example teachers; raises UserError when that is not possible."""

    def enter(self, stage: Stage) -> None:
        """Begin a stage: freeze the parts of network and method that `stage.frozen` and `unused` name, make all others trainable."""
        frozen = tuple(f"{part}." for part in (*stage.frozen, *self.unused))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.removeprefix("network.").startswith(frozen))

    def predict(self, x: Tensor) -> Prediction:
        """Return the network's named outputs for (B, 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Prediction:
        """Return the prediction for a batch, with everything that the loss needs."""
        return self.predict(batch.input)

    def restore(self, x: Tensor) -> Tensor:
        """Return the restored images for (B, 3, H, W) in [0, 1]; any size is allowed, and the result has the same size."""
        return tiling.padded(x, lambda part: self.check(self.predict(part), part), self.multiple_of, self.least_side)

    def check(self, prediction: Prediction, x: Tensor) -> Tensor:
        """Return the 'image' of a prediction for x, (B, 3, H, W); raises UserError if it is missing or has a wrong shape or type."""
        name = type(self).__module__.removeprefix("model.")
        if not isinstance(prediction, dict):
            raise UserError(f"the model {name}: predict returned {_kind(prediction)}, not a dictionary with 'image', "
                            'as in {"image": self.network(x)}')
        if "image" not in prediction:
            raise UserError(f"the model {name}: predict returned a dictionary without 'image'; it has: {', '.join(map(str, prediction))}")
        image = prediction["image"]
        if not isinstance(image, Tensor):
            raise UserError(f"the model {name}: the predicted 'image' is {_kind(image)}, not a tensor")
        if image.shape != x.shape:
            raise UserError(f"the model {name}: the predicted 'image' has the shape {tuple(image.shape)} for an input of {tuple(x.shape)}; "
                            "it must have the input's size and three channels; if the network needs sides that are multiples of N, "
                            f"set multiple_of to N (it is {self.multiple_of} now)")
        if not image.is_floating_point():
            raise UserError(f"the model {name}: the predicted 'image' has the type {image.dtype}; it must have a floating-point type")
        return image

    def shown(self, x: Tensor) -> dict[str, Tensor]:
        """Return all other predictions with 3 channels for (B, 3, H, W), by name and of the same size: `mask`, `steps_1`, `steps_2`."""
        found: dict[str, Tensor] = {}
        for name, value in self.predict(tiling.extended(x, self.multiple_of, self.least_side)).items():
            parts = {name: value} if isinstance(value, Tensor) else {f"{name}_{n}": part for n, part in enumerate(value, 1)}
            found |= {key: part[..., :x.shape[-2], :x.shape[-1]] for key, part in parts.items() if part.shape[1] == 3 and key != "image"}
        return found

    def side_state(self) -> dict[str, Tensor]:
        """Return the state of trained modules that are not part of the network."""
        return {}

    def load_side_state(self, state: dict[str, Tensor]) -> None:
        """Restore the state that `side_state` returned."""


def _kind(value: object) -> str:
    """Return the type of a value in words: 'a Tensor', 'a tuple', 'None'."""
    return f"a{'n' if type(value).__name__[0] in 'aeiou' else ''} {type(value).__name__}" if value is not None else "None"
