"""An example of a network for --arch: a small U-shaped network of plain PyTorch that knows nothing of this program."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Example(nn.Module):
    """(B, 3, H, W) in [0, 1] to the same, for even H and W; the last layer starts at zero, so the first answer is the input."""

    def __init__(self, width: int = 16, blocks: int = 2):
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.body = nn.ModuleList(nn.Conv2d(2 * width, 2 * width, 3, padding=1) for _ in range(blocks))
        self.up = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1), nn.PixelShuffle(2))
        self.tail = nn.Conv2d(2 * width, 3, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.gelu(self.head(x))
        coarse = self.down(fine)
        for layer in self.body:
            coarse = coarse + F.gelu(layer(coarse))
        return x + self.tail(torch.cat([fine, self.up(coarse)], 1))
