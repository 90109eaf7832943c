"""DRSformer's network in plain PyTorch: rainy images in [0, 1] to derained images; it uses Restormer's U shape."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.restormer.network import EXPANSION, Block, ChannelAttention, UShape, conv

KEPT = ((1, 2), (2, 3), (3, 4), (4, 5))   # each attention uses this fraction (numerator, denominator) of a row, its largest logits
STEPS, EXPERTS, HIDDEN = 4, 8, 64


class SparseAttention(ChannelAttention):
    """TKSA: ChannelAttention as a learned weighted sum of four softmaxes, each over the largest logits of a row (see KEPT)."""

    def __init__(self, channels: int, heads: int):
        super().__init__(channels, heads)
        self.shares = nn.ParameterList(nn.Parameter(torch.full((1,), 0.2)) for _ in KEPT)

    def weights(self, logits: Tensor) -> Tensor:
        """Return the weights of the sums over the n channels of each head, from logits; both are (B, heads, n, n)."""
        total, width = 0, logits.shape[-1]
        largest = logits.detach().topk(max(width * KEPT[-1][0] // KEPT[-1][1], 1), dim=-1).values
        for share, (part, whole) in zip(self.shares, KEPT):
            least = largest[..., max(width * part // whole, 1) - 1, None]
            total = total + share * logits.masked_fill(logits < least, -torch.inf).softmax(-1)
        return total


class MixedFeedForward(nn.Module):
    """MSFN: computes 2 * int(2.66 C) features of (B, C, H, W) and filters them with kernels of 3 and 5 pixels, twice.

    Between the two filters the halves of both results are exchanged, so that each second filter gets features of both sizes.
    """

    def __init__(self, channels: int):
        super().__init__()
        inner = int(EXPANSION * channels)
        self.enter = conv(channels, 2 * inner, 1)
        self.local3, self.local5 = conv(2 * inner, 2 * inner, 3, groups=2 * inner), conv(2 * inner, 2 * inner, 5, groups=2 * inner)
        self.across3, self.across5 = conv(2 * inner, inner, 3, groups=inner), conv(2 * inner, inner, 5, groups=inner)
        self.out = conv(2 * inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        first3, second3 = F.relu(self.local3(x)).chunk(2, dim=1)
        first5, second5 = F.relu(self.local5(x)).chunk(2, dim=1)
        near = F.relu(self.across3(torch.cat((first3, first5), dim=1)))
        far = F.relu(self.across5(torch.cat((second3, second5), dim=1)))
        return self.out(torch.cat((near, far), dim=1))


def separable(channels: int, size: int) -> nn.Sequential:
    """Return an expert: two depthwise convolutions of `size` pixels, each followed by a 1 × 1 convolution, with a ReLU between."""
    return nn.Sequential(conv(channels, channels, size, groups=channels), conv(channels, channels, 1), nn.ReLU(),
                         conv(channels, channels, size, groups=channels), conv(channels, channels, 1))


class DilatedConv(nn.Conv2d):
    """A depthwise convolution of (B, C, H, W) with dilation 2; on a CPU it is trained in float32.

    The gradient of its weight in bfloat16 and channels_last is wrong there, in part infinite (oneDNN in torch 2.14, AVX512-bf16).
    """

    def __init__(self, channels: int, size: int):
        super().__init__(channels, channels, size, padding=size - 1, dilation=2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not (x.device.type == "cpu" and torch.is_grad_enabled()):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def dilated(channels: int, size: int) -> nn.Sequential:
    """Return an expert: a depthwise convolution with dilation 2, followed by a 1 × 1 convolution."""
    return nn.Sequential(DilatedConv(channels, size), conv(channels, channels, 1))


class ExpertStep(nn.Module):
    """Applies eight experts to (B, C, H, W), weights them by (B, 8), merges the results and adds them to the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.experts = nn.ModuleList([*(separable(channels, size) for size in (1, 3, 5, 7)),
                                      *(dilated(channels, size) for size in (3, 5, 7)),
                                      nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)])
        self.out = conv(EXPERTS * channels, channels, 1)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        results = [weight[:, None, None, None] * expert(x) for weight, expert in zip(weights.unbind(1), self.experts)]
        return F.relu(F.relu(self.out(torch.cat(results, dim=1))) + x)


class Experts(nn.Module):
    """MEFC: four steps of experts on (B, C, H, W); the weights of all steps are computed from the channel means."""

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze, self.excite = nn.Linear(channels, HIDDEN), nn.Linear(HIDDEN, STEPS * EXPERTS)
        self.enter = conv(channels, channels, 1)
        self.steps = nn.ModuleList(ExpertStep(channels) for _ in range(STEPS))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.excite(F.relu(self.squeeze(x.mean((-2, -1)))))
        weights = logits.unflatten(1, (STEPS, EXPERTS)).softmax(-1)
        x = F.relu(self.enter(x))
        for number, step in enumerate(self.steps):
            x = step(x, weights[:, number])
        return x


class DRSformer(nn.Module):
    """Experts, a U shape with sparse attention, experts; the image is added to the output. `channels` is even."""

    def __init__(self, channels: int = 32, blocks: tuple[int, ...] = (4, 6, 6, 8)):
        super().__init__()
        self.embedding = conv(3, channels)
        self.before = Experts(channels)
        self.body = UShape(channels, blocks, self.block)
        self.after = Experts(2 * channels)
        self.output = conv(2 * channels, 3)

    @staticmethod
    def block(channels: int, heads: int) -> Block:
        """Return one transformer block."""
        return Block(channels, SparseAttention(channels, heads), MixedFeedForward(channels))

    def forward(self, image: Tensor) -> Tensor:
        """Return the derained image for (B, 3, H, W); H and W are multiples of 8."""
        return image + self.output(self.after(self.body(self.before(self.embedding(image)))))
