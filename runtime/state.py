"""The full state of a training as stored in state.pt; a training that resumes from it gives identical results."""
import math

import torch

from runtime import VERSION, check, experiment, files, process
from runtime.errors import UserError, short

# attributes of the Trainer that are stored
PROGRESS = ("epoch", "step", "seen", "steps", "skipped", "missed", "best", "chosen", "last_loss", "rate", "rollbacks")


def collect(trainer) -> dict:
    """Return the state of a Trainer: progress, lengths of the logs, random state, weights, optimiser, gradient scaler."""
    return {"format": experiment.STATE_FORMAT, "version": VERSION, "log": process.log().lengths(),
            "progress": {name: getattr(trainer, name) for name in PROGRESS}, "random": process.random_state(),
            "threads": process.threads(), "auto": {"precision": trainer.args.precision, "parts": trainer.parts},
            "measure": _measure(trainer),
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
    if trainer.args.precision == "auto" and state.get("auto", {}).get("precision") in ("single", "bf16"):    # chosen at the start
        trainer.args.precision = state["auto"]["precision"]
    if "auto" in state and trainer.args.split_batch == "auto" and len(state["auto"]["parts"]) == len(trainer.stages):
        trainer.parts = state["auto"]["parts"]
    trainer.random = state["random"]
    if reason := _other_best(trainer, state):
        trainer.best, trainer.chosen = -math.inf, ""
        ended = state["progress"]["epoch"] == trainer.args.epochs
        what = "model_best.pt stays as it is, although" if ended else "the best epoch is chosen anew, because"
        process.log().say(f"{what} {reason}", keep=False)


def _measure(trainer) -> str:
    """Return what chooses the best epoch: the number, the first test set that can have it, its images and the protocol."""
    given, sets = trainer.args.flags, trainer.run.test
    first = next((name for name, images in sets.items() if any("image" in item.images for item in images.items)), "the training")
    return f"{given['best']} of {first}{' ' * bool(given['data_range'])}{given['data_range']} by the protocol {given['protocol']}"


def _other_best(trainer, state: dict) -> str:
    """Return why the best number of a state does not belong to model_best.pt, or to this command line; '' if it does."""
    now = _measure(trainer)
    before = str(state.get("measure", now))               # older states lack it
    if before != now:
        return f"it was that by {short(before)}, and is now that by {now}"
    if trainer.args.resume.isdecimal() and trainer.args.resume != "0":
        best = trainer.folder / "model" / "model_best.pt"
        try:
            later = files.read_tensors(best).get("note", {}).get("epoch", 0)
        except UserError as error:
            return str(error)
        return f"{best} is that of a later epoch, {later}" if later > state["progress"]["epoch"] else ""
    return ""


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
