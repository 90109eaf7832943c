"""The computation of a training step: prediction and loss."""
from torch import Tensor, nn

from contract import Batch
from loss import Loss
from model.method import Method
from model.teacher import Teacher


class Step(nn.Module):
    """Method and loss as one module, so that DDP can determine which parameters receive a gradient from the loss."""

    def __init__(self, method: Method, loss: Loss, taught: Teacher | None):
        super().__init__()
        self.method, self.loss, self.taught = method, loss, taught

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its terms."""
        prediction = self.taught.join(self.method, batch) if self.taught else self.method(batch)
        return self.loss(prediction, batch)
