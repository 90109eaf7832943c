"""Training for one picture's sake: the Trainer's step, but no tests, weights or states; what is kept is what the run's `done` makes."""
import signal

from tqdm import tqdm

import utility
from runtime import process
from runtime.errors import Stopped
from trainer import Trainer


class Brief(Trainer):
    """Trains the network of a run that is not kept; ends early when the loss stays where it is for --plateau epochs."""

    def fit(self) -> None:
        """Train all stages with one progress bar; Stopped when a signal asks for the end."""
        steps = [loader.batch_sampler.steps for loader in self.loaders]
        total = sum(stage.epochs * count for stage, count in zip(self.stages, steps))
        with process.signals(), tqdm(desc=self.run.name, total=total, unit="step", disable=process.quiet(), leave=False) as bar:
            for stage, loader, count in zip(self.stages, self.loaders, steps):
                self.enter(stage)
                self.method.train()
                losses: list[float] = []
                for _ in range(stage.epochs):
                    losses.append(self._epoch(loader, count, bar))
                    if self._at_rest(losses):
                        break
        if self.average:
            self.method.network = self.average

    def _epoch(self, loader, steps: int, bar: tqdm) -> float:
        """Train an epoch and return its mean loss."""
        loader.batch_sampler.epoch, losses = self.epoch + 1, []
        for number, batch in enumerate(loader):
            for group in self.optimizer.param_groups:
                group["lr"] = utility.learning_rate(self.args, self.epoch + number / steps)
            values = self.train_step(batch.to(self.device))
            losses.append(values["loss"])
            bar.update()
            if values["end"]:
                name = signal.Signals(process.asked_to_end() or signal.SIGTERM)
                raise Stopped(f"stopped by {name.name} at {self.run.name}; what was finished before is kept, the same command goes on "
                              "from there", 128 + name)
        bar.set_postfix(loss=f"{losses[-1]:.4g}", refresh=False)
        self.epoch, self.last_loss = self.epoch + 1, sum(losses) / len(losses)
        return self.last_loss

    def _at_rest(self, losses: list[float]) -> bool:
        """Return whether the mean loss of the last --plateau epochs is no 1 % below that of as many before."""
        count = self.args.plateau
        if not count or len(losses) < 2 * count:
            return False
        return sum(losses[-count:]) > 0.99 * sum(losses[-2 * count:-count])
