"""The training loop of all models: data -> method -> loss -> optimiser."""
import copy
import math
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import tester
import utility
from contract import Batch, Run, Stage, collate, plan_of
from data import quarantine
from loss import Loss, listed
from model import auto, detect, norm, step, teacher, update, weights
from model.method import Method
from model.step import Step
from report import plots
from runtime import experiment, files, process, state
from runtime.errors import Diverged, Failure, Interrupted, Stopped
from runtime.late import Late
from runtime.pace import Pace

SAVE_INTERVAL = 60                        # minimum seconds between saves of untested epochs
MAX_SKIPPED = 50                          # number of consecutive skipped steps after which a training fails


class Trainer:
    """Trains a method for a run; continues from the state `earlier` if one is given.

    A run with `kept` is logged, tested after its epochs and saved in experiment/<save>. Of any other run only the trained
    method is used, by the run's `done`.
    """

    def __init__(self, args, method: Method, run: Run, folder: Path, earlier: dict | None = None):
        self.args, self.run, self.folder = args, run, folder
        method.prepare(args)
        self.device = process.device()
        self.method = method.to(self.device, memory_format=torch.channels_last)     # makes convolutions a third faster
        if process.world() > 1:
            self.method = norm.share(self.method, self.device)
        self.teacher = teacher.make(args, self.method, self.device)
        self.average = copy.deepcopy(method.network).requires_grad_(False) if args.ema else None
        self.optimizer = update.make_optimizer(args, list(self.method.parameters()))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=args.precision == "half")
        self.epoch, self.step, self.seen, self.dropped = 0, 0, [], 0       # finished epochs; of the current one: steps, losses, lost losses
        self.steps, self.skipped, self.missed = 0, 0, 0   # all steps made; skipped ones: in a row up to now, in all
        self.rate, self.rollbacks = 1.0, 0                # factor of the learning rate, which each return to an earlier state halves
        self.best, self.chosen, self.last_loss = -math.inf, "", math.inf           # chosen: the best epoch and its number in words
        # every stage is tried here, before anything is trained or written
        self.stages = method.stages(args)
        self.loaders = [run.train(stage) for stage in self.stages]
        first = [collate([loader.dataset[(0, 0, 0)]]).to(self.device) for loader in self.loaders]
        self.reaches_all = [step.attempt(self.method, self.teacher, stage, image, args) for stage, image in zip(self.stages, first)]
        self.plan = [(stage.epochs, len(loader)) for stage, loader in zip(self.stages, self.loaders)]
        self.random, self.saved = None, time.monotonic()
        self.detector = detect.Detector(self.method.network) if args.detect else None
        self.parts: list[int] = []        # with --split_batch auto: in how many parts each stage computes a batch
        if earlier:
            state.restore(self, earlier)
        self._choose(first)
        self.saved_steps, self.must_end = self.steps, False
        self.averaging = update.Average(method.network, self.average, args.ema, self.steps) if self.average else None
        self.late = Late(1 if self.device.type == "cuda" and not self.detector else 0)

    def fit(self) -> None:
        """Train all stages; after SIGTERM or SIGINT save the state, if the run is kept, and raise Stopped."""
        if self.run.kept:
            self._log_plan()
        if self.random:
            process.set_random_state(self.random)
        end, plan = 0, [(epochs * count, stage.batch_size * stage.patch_size ** 2)
                        for (epochs, count), stage in zip(self.plan, self.stages)]
        with Pace(self.run.name, plan, self._steps_done(), self.run.kept, self.args.epochs, self._quicker()) as self.pace:
            for stage in self.stages:
                loader = self.loaders.pop(0)                       # frees the worker processes after the stage
                end, history = end + stage.epochs, []
                if self.epoch < end:
                    self.enter(stage)
                if self.epoch == end - stage.epochs and not self.step:
                    self.last_loss = math.inf                      # the loss of another stage is no measure for this one
                while self.epoch < end and not utility.has_plateaued(history, self.run.plateau):
                    self.train_epoch(loader)
                    self._end_epoch(last=self.epoch + 1 == self.args.epochs)
                    history.append(self.last_loss)
                end = min(end, self.epoch)                         # earlier than planned after a plateau
        if self.average and not self.run.kept:
            self.method.network = self.average

    def _quicker(self) -> tuple[str, ...]:
        """Return flags with which a step takes less time."""
        width, slow = getattr(self.args, "channels", 0) // 2, self.args.precision == "single" and process.has_bf16()
        return (*([f"--channels {width}"] if width else []), *(["--precision bf16"] if slow else []))

    def _steps_done(self) -> int:
        """Return the number of steps of the plan before the current one, skipped ones as well."""
        counts = [count for epochs, count in self.plan for _ in range(epochs)]
        return sum(counts[:self.epoch]) + self.step

    def _step(self, stage: Stage) -> Step:
        """Set up a stage: freeze parts and build the loss."""
        self.method.enter(stage)
        return Step(self.method, Loss(stage.loss, self.args).to(self.device), self.teacher)

    def _choose(self, first: list[Batch]) -> None:
        """Choose what `auto` leaves open: the precision, and in how many parts each stage, with its first image, computes its batches."""
        if self.args.split_batch == "auto" and not self.parts:
            self.parts = [auto.parts(self._step(stage), stage, image) for stage, image in zip(self.stages, first)]
        if self.args.precision == "auto":
            number = next((place for place, stage in enumerate(self.stages) if stage.epochs), 0)
            split = self.parts[number] if self.parts else self.args.split_batch
            self.args.precision = auto.precision(self.args, self._step(self.stages[number]), self.loaders[number], split)

    def enter(self, stage: Stage) -> None:
        """Set up a stage: freeze parts, build the loss, compile both and share them between several processes, if that is required."""
        made, number = self._step(stage), self.stages.index(stage)
        self.compute: nn.Module = step.Compiled(made) if self.args.compile else made
        if process.world() > 1:
            self.compute = step.shared(self.compute, self.method, self.reaches_all[number])
        self.split = self.parts[number] if self.parts else self.args.split_batch

    def train_epoch(self, loader: DataLoader) -> None:
        """Train the remaining steps of an epoch; save the state as --save_every requires; after SIGTERM or SIGINT save it and stop."""
        draws, start = loader.batch_sampler, time.perf_counter()
        draws.epoch, draws.start, steps = self.epoch + 1, self.step, loader.batch_sampler.steps
        self.method.train()
        self.run.before_epoch(self.method, self.epoch)
        self.pace.restart()
        for batch in quarantine.watched(loader, self.folder) if self.step < steps else ():
            begun = time.perf_counter()
            rate = self.rate * utility.learning_rate(self.args, self.epoch + self.step / steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.train_step(batch.to(self.device))
            self.step += 1
            spoken, where = self.step % self.args.print_every == 0, f"epoch {self.epoch + 1}, step {self.step}/{steps}"
            due = self._take(0 if spoken or self.step == steps else None)
            self.pace.step(where, self.seen[-1]["loss"] if self.seen else math.nan)
            if self.run.kept and spoken and self.seen:
                recent = utility.means(self.seen[-self.args.print_every:])
                process.log().record("train", epoch=self.epoch + 1, step=self.step, lr=rate, losses=recent)
                process.log().say(f"[{where}] {listed(recent)}")
                self.pace.spoke()
            if due or self.must_end:
                self._take(0)
            if self.must_end:
                detect.check(self.method, self.optimizer)
                self.save_state()
                self.stop()
            if due:
                self.save_state()
            process.step_took(time.perf_counter() - begun)
        if not self.seen and (not self.scaler.is_enabled() or (self.steps == 0 and self.epoch + 1 == self.args.epochs)):
            raise Diverged(f"all {steps} steps of epoch {self.epoch + 1} were skipped; {detect.ADVICE}")
        detect.check(self.method, self.optimizer)
        draws.start = 0
        if self.run.kept:
            self._log_epoch(steps, time.perf_counter() - start)

    def _log_epoch(self, steps: int, seconds: float) -> None:
        self.mark = process.log().lengths()        # after a stopped test the logs are cut to this; resuming logs the epoch
        losses, rate = utility.means(self.seen), self.rate * utility.learning_rate(self.args, self.epoch + (steps - 1) / steps)
        process.log().record("epoch", epoch=self.epoch + 1, lr=rate, losses=losses)
        process.log().time("epoch", epoch=self.epoch + 1, seconds=round(seconds, 3), steps=steps)
        skipped, self.dropped = steps - len(self.seen) - self.dropped, 0
        missed = f", {skipped} of {steps} steps skipped" if skipped else ""
        process.log().say(f"epoch {self.epoch + 1}/{self.args.epochs}: {listed(losses) or 'no step'}, learning rate {rate:.3g}{missed}",
                          f", {seconds:.1f} s, {steps / seconds:.2f} steps/s")
        if self.missed and self.epoch + 1 == self.args.epochs:
            process.log().say(f"{self.missed} of {sum(epochs * count for epochs, count in self.plan)} steps of the training were skipped")

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """Make one step on this process's part of a batch; return the loss and its terms, averaged over all processes, on the device.

        The step changes nothing if the loss or the gradient is not finite, or the loss is too high. The program does not wait for
        the device here; `_take` receives the numbers of the step.
        """
        self.optimizer.zero_grad(set_to_none=True)
        if self.detector:
            self.detector.reset()
        statistics = norm.statistics(self.method)
        sums = step.backward(self.compute, batch, self.split, self.args.precision, self.scaler)
        notices = torch.tensor([process.asked_to_end(), self._time_to_save()], dtype=torch.float32).to(self.device, non_blocking=True)
        shared = process.mean(torch.cat((torch.stack([*sums.values()]), notices)))
        self.scaler.unscale_(self.optimizer)
        gradient, most = update.Gradient(self.method, self.device), self.args.skip_threshold * (abs(self.last_loss) or math.inf)
        bad = 1 - (shared[0].isfinite() & (shared[0] <= most) & gradient.norm.isfinite()).float()
        gradient.clip(self.args)
        update.step(self.optimizer, self.scaler, bad)
        norm.put_back(self.method, statistics, bad)
        if self.averaging:
            self.averaging.update(bad)
        self.late.put(([*sums], gradient.names, most), torch.cat((shared, torch.stack((bad, gradient.first)))))
        return dict(zip(sums, shared))

    def _take(self, lag: int | None = None) -> bool:
        """Receive the numbers of all steps but the last `lag` ones; return whether the state must be saved. Equal in all processes."""
        taken, due = self.late.take(lag), False
        for (names, parameters, most), numbers in taken:
            values, (end, save, bad, first) = dict(zip(names, numbers)), numbers[len(names):]
            if bad:
                where = [*parameters, "its norm"][int(first)]
                self._skip(detect.bad_loss(values, most, self.detector) or f"its gradient is not finite, in {where}")
            else:
                self.steps, self.skipped = self.steps + 1, 0
                if self.seen and self.seen[0].keys() != values.keys():           # continued with another --loss
                    self.seen, self.dropped = [], self.dropped + len(self.seen)
                self.seen.append(values)
            self.must_end, due = self.must_end or end > 0, due or save > 0
        every = self.args.save_every
        return due or (bool(taken) and not every.endswith("m") and int(every) > 0 and self.steps % int(every) == 0)

    def _skip(self, trouble: str) -> None:
        """Count a skipped step; raises Diverged if there are too many in a row, or if the training is destroyed."""
        self.skipped, self.missed = self.skipped + 1, self.missed + 1
        if self.skipped == 1:
            process.log().say(f"a step of epoch {self.epoch + 1} is skipped because {trouble}")
        detect.check(self.method, self.optimizer)
        if self.skipped == MAX_SKIPPED:
            raise Diverged(f"{MAX_SKIPPED} consecutive steps were skipped; {detect.ADVICE}")

    def _end_epoch(self, last: bool) -> None:
        """Test if --val_epochs requires it, count the epoch as finished, save the weights and the state, and draw the curves."""
        losses, number = utility.means(self.seen), self.epoch + 1
        if not self.run.kept:
            self.epoch, self.step, self.seen, self.last_loss = number, 0, [], losses.get("loss", self.last_loss)
            return
        score, words, tested = self.best, "", last or number % self.args.val_epochs == 0
        if tested and time.monotonic() - self.saved > SAVE_INTERVAL:      # a process may be killed in a long test
            self.save_state(self.mark)
        with utility.replaced(self.method, self.average):
            if tested:
                try:
                    results = tester.test(self.method, self.run.test, self.args, self.folder, f"epoch {number}", number)
                except Interrupted:
                    results = None
                except Failure as error:
                    raise Diverged(f"{error}; {detect.ADVICE}") from error
            if tested and results:
                score, words = tester.judge(results, self.args.best, losses.get("loss", math.inf), number if self.run.blind else 0)
            keep = tested or time.monotonic() - self.saved > SAVE_INTERVAL
            if keep and process.rank() == 0:
                note = {"epoch": number, "score": score, "chosen_by": words, "data_train": self.args.data_train,
                        "data_range": self.args.flags["data_range"]}
                content = weights.model_content(self.method, self.args, note)
        if tested and results is None:
            self.save_state(self.mark)
            self.stop()
        self.best, improved = max(self.best, score), tested and score > self.best
        self.chosen = f"epoch {number}, {words}" if improved else self.chosen
        if tested and self.chosen:
            process.log().say(f"best so far: {self.chosen}")
        self.epoch, self.step, self.seen, self.last_loss = number, 0, [], losses.get("loss", self.last_loss)
        if keep and process.rank() == 0:
            folder, kept = self.folder / "model", [str(number)] * (tested and self.args.save_models)
            for name in ["latest"] + ["best"] * improved + kept:
                files.write_tensors(folder / f"model_{name}.pt", content)
            for name in kept:
                files.write_tensors(folder / f"state_{name}.pt", state.collect(self))
            self.save_state()
            plots.curves(self.folder)

    def _time_to_save(self) -> bool:
        """Return whether --save_every states a time that has passed; if any process says so, all of them save, and the first one writes."""
        every = self.args.save_every
        return every.endswith("m") and 0 < float(every[:-1]) * 60 <= time.monotonic() - self.saved

    def save_state(self, log: dict[str, int] | None = None) -> None:
        """Save the state, unless a value is not finite, or steps are skipped and the saved state has these weights already.

        So the state before the saved one always has other weights, from which a step could be made.
        """
        same = self.skipped and self.steps == self.saved_steps and self.epoch < self.args.epochs
        if process.rank() == 0 and self.run.kept and not same and not detect.broken(self.method, self.optimizer):
            experiment.save_state(self.folder / "model", state.collect(self) | ({"log": log} if log else {}))
            self.saved_steps = self.steps
        self.saved = time.monotonic()

    def stop(self) -> None:
        """Raise Stopped after SIGTERM or SIGINT; the state must be saved already."""
        name = signal.Signals(process.asked_to_end() or signal.SIGTERM)
        if not self.run.kept:
            raise Stopped(f"stopped by {name.name} at {self.run.name}; finished images are kept, "
                          "and the same command continues with the next one", 128 + name)
        process.log().time("stop", signal=name.name, epoch=self.epoch + 1, step=self.step)
        raise Stopped(f"stopped by {name.name} in epoch {self.epoch + 1} after step {self.step}; the state is saved, "
                      f"--resume auto --save {self.args.save} continues from there", 128 + name)

    def _log_plan(self) -> None:
        fresh = not (self.epoch or self.step)                     # a resumed log already has these lines
        process.log().say(f"{self.args.model}: {sum(p.numel() for p in self.method.network.parameters()):,} parameters, on {self.device}"
                          f" x {process.world()}, {self.args.precision}; {len(self.loaders[0].dataset)} training images of "
                          f"{self.args.data_train}", keep=fresh)
        for text in plan_of(self.stages, [len(loader) for loader in self.loaders]):
            process.log().say(text, keep=fresh)
        if not fresh:
            process.log().say(f"resuming after epoch {self.epoch}" + (f", step {self.step}" if self.step else ""), keep=False)
            process.log().time("resume", epoch=self.epoch, step=self.step)
