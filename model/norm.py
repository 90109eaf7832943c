"""Batch normalisation: over the images of all processes, and with statistics that are gathered once and then fixed."""
import torch
import torch.distributed as dist
from torch import Tensor, nn


class Total(torch.autograd.Function):
    """Sums a tensor over all processes; the gradient is the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return Total.forward(ctx, gradient)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d on the CPU whose mean and variance are taken over all processes; (B, C, H, W) has the same shape in each."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            values, world = x.float(), dist.get_world_size()
            mean = Total.apply(values.mean((0, 2, 3))) / world
            values = values - mean[:, None, None]
            variance = Total.apply(values.square().mean((0, 2, 3))) / world
            values = values * (self.weight / (variance + self.eps).sqrt())[:, None, None] + self.bias[:, None, None]
        with torch.no_grad():
            count = world * x.numel() // x.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return values.to(x.dtype)


def share(module: nn.Module, device: torch.device) -> nn.Module:
    """Return the module with every batch norm computed over all processes; parameters and their names do not change."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SharedBatchNorm2d
    return module


def norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms of a module, those that several GPUs share as well."""
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def statistics(module: nn.Module) -> list[Tensor]:
    """Return copies of the running statistics of all batch norms, for `put_back`."""
    return [buffer.clone() for part in norms(module) for buffer in part.buffers()]


def put_back(module: nn.Module, kept: list[Tensor], bad: Tensor) -> None:
    """If `bad` is 1, not 0, set the running statistics of all batch norms to what `statistics` returned: a skipped step changes none."""
    for buffer, value in zip((buffer for part in norms(module) for buffer in part.buffers()), kept):
        buffer.copy_(torch.where(bad > 0, value, buffer))


@torch.no_grad()
def gather(module: nn.Module, x: Tensor) -> None:
    """Replace the running statistics of all batch norms by those of one batch (B, 3, H, W)."""
    found = norms(module)
    if not found:
        return
    kept, training = [part.momentum for part in found], module.training
    for part in found:
        part.momentum = 1.0
    module.train()(x)
    module.train(training)
    for part, momentum in zip(found, kept):
        part.momentum = momentum


def fix(module: nn.Module) -> None:
    """Let all batch norms use their running statistics from now on and not change them, also in training mode."""
    for part in norms(module):
        part.eval()
