"""What the Trainer sees of a model: a network, and how a batch becomes a prediction."""
from torch import Tensor, nn

from contract import Batch, Prediction, Stage
from model import tiling
from runtime.errors import UserError


class Method(nn.Module):
    """A network plus how a batch becomes a prediction; subclasses define `predict`, the rest has defaults."""

    multiple_of = 1                       # height and width that the network needs; `restore` pads to it
    least_side = 1                        # the smallest height and width that it takes; likewise
    unused: tuple[str, ...] = ()          # parts that a released network holds but nothing depends on: kept, never trained
    maps: tuple[str, ...] = ()            # predictions that are no pictures but maps of numbers

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network            # what is saved, shipped and tested

    def stages(self, args) -> list[Stage]:
        """Return the training plan: the stages that the flags describe (see option.py)."""
        return list(args.stages)

    def prepare(self, args) -> None:
        """Get ready for training: load or make what only that needs (teachers, say); UserError when it cannot be had."""

    def enter(self, stage: Stage) -> None:
        """Prepare for a stage: freeze the parts of network or method that it names, thaw the others."""
        frozen = tuple(f"{part}." for part in (*stage.frozen, *self.unused))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.removeprefix("network.").startswith(frozen))

    def predict(self, x: Tensor) -> Prediction:
        """Return the network's named outputs for (B, 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Prediction:
        """Return the prediction for a batch, with what else the loss needs."""
        return self.predict(batch.input)

    def restore(self, x: Tensor) -> Tensor:
        """Return the restored images for (B, 3, H, W) in [0, 1] of any size, the same size out."""
        return tiling.padded(x, lambda part: self.check(self.predict(part), part), self.multiple_of, self.least_side)

    def check(self, prediction: Prediction, x: Tensor) -> Tensor:
        """Return the 'image' of a prediction for x, (B, 3, H, W); UserError when it has none or one of another shape or kind."""
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
                            "it must have the input's size and three channels; a network that needs sides which are multiples of N "
                            f"says so by multiple_of, which is {self.multiple_of} here")
        if not image.is_floating_point():
            raise UserError(f"the model {name}: the predicted 'image' has the type {image.dtype}; it must have a floating-point type")
        return image

    def shown(self, x: Tensor) -> dict[str, Tensor]:
        """Return what else the network shows for (B, 3, H, W), of the same size: `mask`, `steps_1`, … (see `maps`)."""
        found: dict[str, Tensor] = {}
        for name, value in self.predict(tiling.extended(x, self.multiple_of, self.least_side)).items():
            parts = {name: value} if isinstance(value, Tensor) else {f"{name}_{n}": part for n, part in enumerate(value, 1)}
            found |= {key: part[..., :x.shape[-2], :x.shape[-1]] for key, part in parts.items() if part.shape[1] == 3 and key != "image"}
        return found

    def side_state(self) -> dict[str, Tensor]:
        """Return the state of trained helpers that are not the network."""
        return {}

    def load_side_state(self, state: dict[str, Tensor]) -> None:
        """Take up the state that `side_state` gave."""


def _kind(value: object) -> str:
    """Return what a value is, in words: 'a Tensor', 'a tuple'."""
    return f"a{'n' if type(value).__name__[0] in 'aeiou' else ''} {type(value).__name__}" if value is not None else "None"
