"""SAPNet's deraining network in plain PyTorch: takes rainy images in [0, 1]; returns the image after each recurrent step."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

REDUCTION = 16                            # the middle layer of the attention has this factor fewer channels
DILATIONS = (1, 2, 4, 8, 16)


def conv(inputs: int, outputs: int, dilation: int = 1) -> nn.Conv2d:
    """Return a 3 × 3 convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)


class ChannelAttention(nn.Module):
    """CRA: scales each channel of (B, C, H, W) by a weight computed from the channel means, by a bottleneck and a direct layer."""

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.excite = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)
        self.direct = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((-2, -1), keepdim=True)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(mean))) + self.direct(mean))


class DilatedUnit(nn.Module):
    """PDU: ReLU(unit(x) + x); `unit` is a dilated convolution, attention and ReLU, applied twice."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.conv1, self.attention1 = conv(channels, channels, dilation), ChannelAttention(channels)
        self.conv2, self.attention2 = conv(channels, channels, dilation), ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.attention1(self.conv1(x)))
        return F.relu(F.relu(self.attention2(self.conv2(y))) + x)


class ConvLSTM(nn.Module):
    """Convolutional LSTM on two feature maps (hidden, cell); each gate is one convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.input_gate, self.forget_gate = conv(2 * channels, channels), conv(2 * channels, channels)
        self.candidate, self.output_gate = conv(2 * channels, channels), conv(2 * channels, channels)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat((x, hidden.to(x.dtype)), dim=1)          # under autocast the cell is float32, the features are not
        cell = (self.forget_gate(both).sigmoid() * cell + self.input_gate(both).sigmoid() * self.candidate(both).tanh())
        return (self.output_gate(both).sigmoid() * cell.tanh()).to(x.dtype), cell


class SAPNet(nn.Module):
    """`steps` passes of one small network; the input of each pass is the rainy image and the result of the previous pass."""

    def __init__(self, channels: int = 32, steps: int = 6, dilated: bool = True):
        super().__init__()
        self.steps = steps
        self.head = conv(6, channels)
        self.memory = ConvLSTM(channels)
        self.units = nn.Sequential(*(DilatedUnit(channels, dilation if dilated else 1) for dilation in DILATIONS))
        self.tail = conv(channels, 3)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the image after every step, each (B, 3, H, W); the last one is the final result."""
        hidden = cell = image.new_zeros(1)
        results = [image]
        for _ in range(self.steps):
            x = F.relu(self.head(torch.cat((image, results[-1]), dim=1)))
            hidden = hidden.expand_as(x)
            hidden, cell = self.memory(x, hidden, cell)
            results.append(image + self.tail(self.units(hidden)))
        return results[1:]
