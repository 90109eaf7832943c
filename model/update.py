"""The end of a training step: gradient norm, clipping, optimiser and moving average, without a wait for the device (but for SGD and
RMSPROP).

Whether a step is bad, so that it must change nothing, is a number on the device: 1 if it is, else 0.
"""
from typing import Any

import torch
from torch import Tensor, nn

# optimisers whose step is one kernel, which can also skip it; that of SGD fails where a parameter has its first gradient later than others
FUSED = ("ADAM", "ADAMW")


def make_optimizer(args, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimiser that --optimizer names: SGD, ADAM, ADAMW or RMSPROP."""
    options: dict[str, Any] = dict(lr=args.lr, weight_decay=args.weight_decay)
    if args.optimizer in FUSED and all(parameter.is_floating_point() for parameter in parameters):       # not for complex numbers
        options["fused"] = True
    if args.optimizer == "SGD":
        return torch.optim.SGD(parameters, momentum=args.momentum, **options)
    if args.optimizer == "RMSPROP":
        return torch.optim.RMSprop(parameters, eps=args.epsilon, momentum=args.momentum, **options)
    adam = {"ADAM": torch.optim.Adam, "ADAMW": torch.optim.AdamW}[args.optimizer]
    return adam(parameters, betas=args.betas, eps=args.epsilon, **options)


class Gradient:
    """The gradients of all parameters that have one, and their norms.

    names: those of the parameters. norm: the norm over all parameters, () on the device. first: the number in `names` of the
    first gradient whose norm is not finite, the length of `names` if there is none, () on the device.
    """

    def __init__(self, module: nn.Module, device: torch.device):
        found = {name: parameter for name, parameter in module.named_parameters() if parameter.grad is not None}
        self.names, self.parameters = [*found], [*found.values()]
        if not found:
            self.norm = self.first = torch.zeros((), device=device)
            return
        norms = torch.stack(torch._foreach_norm([parameter.grad for parameter in self.parameters]))
        self.norm = torch.linalg.vector_norm(norms)
        self.first = torch.cat((~norms.isfinite(), norms.new_ones(1).bool())).float().argmax().float()

    def clip(self, args) -> None:
        """Clip the gradients as --gclip (each element) and --gclip_norm (the norm over all parameters) require."""
        norm = self.norm
        if args.gclip:
            nn.utils.clip_grad_value_(self.parameters, args.gclip)
            norm = nn.utils.get_total_norm([parameter.grad for parameter in self.parameters]) if args.gclip_norm else norm
        if args.gclip_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, args.gclip_norm, norm)


def step(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, bad: Tensor) -> None:
    """Make the optimiser's step, unless the step is bad or the scaler finds that a gradient is not finite."""
    def tell(optimizer: Any, *_: Any) -> None:           # a fused optimiser skips its step if found_inf is not 0
        optimizer.found_inf = torch.maximum(bad, getattr(optimizer, "found_inf", bad))

    if optimizer.defaults.get("fused"):
        hook = optimizer.register_step_pre_hook(tell)    # called by the scaler's step after it has set its own found_inf
        scaler.step(optimizer)
        hook.remove()
        vars(optimizer).pop("found_inf", None)
    elif not bad.item():
        scaler.step(optimizer)
    scaler.update()


class Average:
    """A moving average of a network's weights; a bad step does not change it. `steps`: the number of steps made before."""

    def __init__(self, network: nn.Module, average: nn.Module, decay: float, steps: int):
        self.decay = decay
        self.steps = torch.tensor(float(steps), dtype=torch.float64, device=next(network.parameters()).device)
        pairs = list(zip([*average.parameters(), *average.buffers()], [*network.parameters(), *network.buffers()]))
        self.means = [mean for mean, _ in pairs if mean.is_floating_point()]
        self.values = [value for mean, value in pairs if mean.is_floating_point()]
        self.others = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, bad: Tensor) -> None:
        """Move the average towards the weights; in the first steps with a smaller decay."""
        self.steps += 1 - bad
        rate = (1 - ((1 + self.steps) / (10 + self.steps)).clamp(max=self.decay)) * (1 - bad)
        change = torch._foreach_sub(self.values, self.means)
        torch._foreach_mul_(change, rate.float())
        torch._foreach_add_(self.means, change)
        for mean, value in self.others:
            mean.copy_(value)
