"""The network of the stored files of the model external; it must stay as it is."""
from torch import Tensor, nn


class Net(nn.Module):
    """(B, 3, H, W) in [0, 1] to the same."""

    def __init__(self, width: int):
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.tail(self.head(x).relu())
