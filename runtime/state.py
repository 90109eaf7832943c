"""The full state of a training, as state.pt holds it: from it the training continues exactly."""
from runtime import VERSION, experiment, process
from runtime.errors import UserError

PROGRESS = ("epoch", "step", "seen", "steps", "skipped", "best", "last_loss")     # of the Trainer, beside all tensors


def collect(trainer) -> dict:
    """Return the state of a Trainer: progress, lengths of the logs, random numbers, weights, optimiser."""
    return {"format": experiment.STATE_FORMAT, "version": VERSION, "log": process.log().lengths(),
            "progress": {name: getattr(trainer, name) for name in PROGRESS}, "random": process.random_state(),
            "network": trainer.method.network.state_dict(), "side": trainer.method.side_state(),
            "average": trainer.average.state_dict() if trainer.average else {},
            "optimizer": trainer.optimizer.state_dict(), "scaler": trainer.scaler.state_dict()}


def restore(trainer, state: dict) -> None:
    """Set a Trainer to a state; UserError when the state does not fit its model, width, optimiser or number of epochs."""
    if state["progress"]["epoch"] > trainer.args.epochs:
        raise UserError(f"{trainer.folder} has been trained to epoch {state['progress']['epoch']} already, "
                        f"beyond --epochs {trainer.args.epochs}")
    for name in PROGRESS:
        setattr(trainer, name, state["progress"].get(name, getattr(trainer, name)))     # an older version may lack some
    try:
        trainer.method.network.load_state_dict(state["network"])
        trainer.method.load_side_state(state["side"])
        if trainer.average:
            trainer.average.load_state_dict(state["average"] or state["network"])
        settings = [{key: value for key, value in group.items() if key != "params"} for group in trainer.optimizer.param_groups]
        trainer.optimizer.load_state_dict(state["optimizer"])
        for group, flags in zip(trainer.optimizer.param_groups, settings):
            group.update(flags)                       # the settings of this command line, not those of the one before
        trainer.scaler.load_state_dict(state["scaler"] or trainer.scaler.state_dict())
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"the state in {trainer.folder} does not fit these flags: a training continues with the model, the width "
                        "and the optimizer that it began with") from error
    trainer.random = state["random"]
