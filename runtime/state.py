"""The full state of a training as stored in state.pt; a training that resumes from it gives identical results."""
import torch

from runtime import VERSION, check, experiment, process
from runtime.errors import UserError

# attributes of the Trainer that are stored
PROGRESS = ("epoch", "step", "seen", "steps", "skipped", "missed", "best", "chosen", "last_loss", "rate", "rollbacks")


def collect(trainer) -> dict:
    """Return the state of a Trainer: progress, lengths of the logs, random state, weights, optimiser, gradient scaler."""
    return {"format": experiment.STATE_FORMAT, "version": VERSION, "log": process.log().lengths(),
            "progress": {name: getattr(trainer, name) for name in PROGRESS}, "random": process.random_state(),
            "threads": process.threads(), "auto": {"precision": trainer.args.precision, "parts": trainer.parts},
            "network": trainer.method.network.state_dict(), "side": trainer.method.side_state(),
            "average": trainer.average.state_dict() if trainer.average else {},
            "optimizer": trainer.optimizer.state_dict(), "scaler": trainer.scaler.state_dict()}


def restore(trainer, state: dict) -> None:
    """Load a state into a Trainer; raises UserError if it does not fit the model, width, optimiser or number of epochs."""
    if state["progress"]["epoch"] > trainer.args.epochs:
        raise UserError(f"{trainer.folder} is already trained to epoch {state['progress']['epoch']}, "
                        f"which is beyond --epochs {trainer.args.epochs}")
    for name in PROGRESS:
        setattr(trainer, name, state["progress"].get(name, getattr(trainer, name)))     # an older state may lack some
    try:
        trainer.method.network.load_state_dict(state["network"])
        trainer.method.load_side_state(state["side"])
        if trainer.average:
            trainer.average.load_state_dict(state["average"] or state["network"])
        _load_optimizer(trainer.optimizer, state["optimizer"])
        trainer.scaler.load_state_dict(state["scaler"] or trainer.scaler.state_dict())
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"the state in {trainer.folder} does not fit these flags; use the model, the width and the optimizer "
                        "with which the training began") from error
    process.set_threads(**state.get("threads", process.threads()))        # older states lack it
    if "auto" in state and trainer.args.precision == "auto":             # what was chosen at the start
        trainer.args.precision = state["auto"]["precision"]
    if "auto" in state and trainer.args.split_batch == "auto" and len(state["auto"]["parts"]) == len(trainer.stages):
        trainer.parts = state["auto"]["parts"]
    trainer.random = state["random"]


def _load_optimizer(optimizer: torch.optim.Optimizer, stored: dict) -> None:
    """Load the values of an optimiser, with the settings of this command line instead of the stored ones, in the layout of the weights.

    A fused optimiser, which computes on the memory as it is, requires the same layout for a weight and its values.
    """
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    groups = [{**group, **flags} for group, flags in zip(stored["param_groups"], settings, strict=True)]
    optimizer.load_state_dict({**stored, "param_groups": groups})
    check.moments(optimizer)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)
