"""The one training loop: data -> method -> loss -> optimiser, the same for every model."""
import contextlib
import copy
import math
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

import utility
from contract import Batch, Run, Stage, collate
from loss import Loss, listed
from model import norm, weights
from model.method import Method
from report import plots
from runtime import VERSION, experiment, files, process
from runtime.errors import Failure, Interrupted, Stopped, UserError
from tester import evaluate

PROGRESS = ("epoch", "step", "seen", "steps", "skipped", "best", "last_loss")     # of the state, beside all tensors
OFTEN = 60                                # seconds: what shorter epochs without a test come to is not written each time
PATIENCE = 50                             # steps in a row that may be skipped before the run gives up


class Step(nn.Module):
    """Method and loss as one module, so that DDP sees which parameters a loss really reaches."""

    def __init__(self, method: Method, loss: Loss):
        super().__init__()
        self.method, self.loss = method, loss

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        prediction = self.method(batch)
        return self.loss(prediction, batch)


class Trainer:
    """Trains a method on a run, tests it and keeps experiment/<save> up to date; `state` is where to go on."""

    def __init__(self, args, method: Method, run: Run, folder: Path, state: dict | None = None):
        self.args, self.run, self.folder = args, run, folder
        if not args.test_only:
            method.prepare(args)
        self.device = process.device()
        self.method = method.to(self.device, memory_format=torch.channels_last)     # a third faster in convolutions
        if process.world() > 1:
            self.method = norm.share(self.method, self.device)
        self.average = copy.deepcopy(method.network).requires_grad_(False) if args.ema else None
        self.optimizer = utility.make_optimizer(args, list(method.parameters()))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=args.precision == "half")
        self.epoch, self.step, self.seen = 0, 0, []       # whole epochs; steps of the next one, and their losses
        self.steps, self.skipped = 0, 0
        self.best, self.last_loss = -math.inf, math.inf
        self.saved = time.monotonic()
        # a stage that cannot work is known here, before the first one is trained or anything is written
        self.stages = [] if args.test_only else method.stages(args)
        self.loaders = [run.train(stage) for stage in self.stages]
        for stage, loader in zip(self.stages, self.loaders):
            self._rehearse(stage, loader)
        self.random = None
        if state:
            self._take_up(state)

    def fit(self) -> dict:
        """Train all stages, then test the best weights; return the test numbers by data set."""
        self._announce()
        if self.random:
            process.set_random_state(self.random)
        with process.signals():
            end = 0
            for stage in self.stages:
                loader = self.loaders.pop(0)                       # its processes end with the stage
                end += stage.epochs
                if self.epoch < end:
                    self.enter(stage)
                while self.epoch < end:
                    self.train_epoch(loader)
                    self._end_epoch(last=self.epoch + 1 == self.args.epochs)
            best = self.folder / "model" / "model_best.pt"
            process.barrier()
            weights.load_weights(self.method, best, self.args.model)
            try:
                return self.test(str(best))
            except Interrupted:
                self._stop()

    def test(self, weights: str, epoch: int | None = None) -> dict[str, dict]:
        """Test the network as it stands on the run's test sets (see evaluation.py)."""
        return evaluate(self.method, self.run.test, self.args, self.folder, weights, epoch)

    @torch.no_grad()
    def _rehearse(self, stage: Stage, loader: DataLoader) -> None:
        """Compute a stage's loss once on the first image, so that what cannot work is said before anything is written."""
        if stage.patch_size % self.method.multiple_of:
            raise UserError(f"--patch_size {stage.patch_size}: the model {self.args.model} needs a multiple of {self.method.multiple_of}")
        batch = collate([loader.dataset[(0, 0, 0)]]).to(self.device)
        self.method.enter(stage)
        Loss(stage.loss, self.args).to(self.device)(self.method.eval()(batch), batch)

    def enter(self, stage: Stage) -> None:
        """Set up a stage: what is frozen, the loss, and DDP around both where there are several processes."""
        self.method.enter(stage)
        self.compute = Step(self.method, Loss(stage.loss, self.args).to(self.device))
        if process.world() > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            self.compute = DistributedDataParallel(self.compute, device_ids=devices, find_unused_parameters=True)

    def train_epoch(self, loader: DataLoader) -> None:
        """Train what is left of an epoch; save the state now and then, and when a signal asks for the end."""
        draws, start = loader.batch_sampler, time.perf_counter()
        draws.epoch, draws.start, steps = self.epoch + 1, self.step, loader.batch_sampler.steps
        self.method.train()
        bar = tqdm(loader, f"epoch {self.epoch + 1}", steps, initial=self.step, unit="step", disable=process.quiet(), leave=False)
        for batch in bar if self.step < steps else ():
            begun = time.perf_counter()
            rate = utility.learning_rate(self.args, self.epoch + self.step / steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            values = self.train_step(batch.to(self.device))
            end = values.pop("end")
            self.step += 1
            self.seen += [values] if not self.skipped else []
            bar.set_postfix(loss=f"{values['loss']:.4g}", refresh=False)
            if self.step % self.args.print_every == 0 and self.seen:
                recent = utility.means(self.seen[-self.args.print_every:])
                process.log().record("train", epoch=self.epoch + 1, step=self.step, lr=rate, losses=recent)
                process.log().say(f"[epoch {self.epoch + 1}, step {self.step}/{steps}] {listed(recent)}")
            if end:
                self._save_state()
                self._stop()
            if self._due():
                self._save_state()
            process.step_took(time.perf_counter() - begun)
        self.mark = process.log().lengths()                       # an epoch whose test is stopped is logged when it is resumed
        draws.start, rate = 0, utility.learning_rate(self.args, self.epoch + (steps - 1) / steps)
        losses, seconds = utility.means(self.seen), time.perf_counter() - start
        process.log().record("epoch", epoch=self.epoch + 1, lr=rate, losses=losses)
        process.log().time("epoch", epoch=self.epoch + 1, seconds=round(seconds, 3), steps=steps)
        process.log().say(f"epoch {self.epoch + 1}/{self.args.epochs}: {listed(losses)}, learning rate {rate:.3g}",
                          f", {seconds:.1f} s, {steps / seconds:.2f} steps/s")

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Make one step on this process's share of a batch; return total and terms, means over all processes.

        `end` is the signal that asked a process to end, the same for all of them, 0 for none.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        chunks = list(batch.chunks(self.args.split_batch))
        for chunk in chunks:
            last = chunk is chunks[-1] or process.world() == 1
            with contextlib.nullcontext() if last else self.compute.no_sync():
                with process.autocast(self.args.precision):
                    total, parts = self.compute(chunk)
                share = len(chunk) / len(batch)
                self.scaler.scale(total * share).backward()
            for name, value in {"loss": total.detach(), **parts}.items():
                sums[name] = sums.get(name, 0) + value.float() * share
        shared = torch.stack([*sums.values(), torch.tensor(float(process.asked_to_end()), device=self.device)])
        values = dict(zip([*sums, "end"], process.mean(shared).tolist()))
        if math.isfinite(values["loss"]) and values["loss"] <= self.args.skip_threshold * (abs(self.last_loss) or math.inf):
            self.scaler.unscale_(self.optimizer)
            if self.args.gclip:
                nn.utils.clip_grad_value_(self.method.parameters(), self.args.gclip)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.steps, self.skipped = self.steps + 1, 0
            if self.average:
                utility.update_average(self.average, self.method.network, self.args.ema, self.steps)
        else:
            self._skip(values["loss"])
        return values

    def _skip(self, loss: float) -> None:
        self.skipped += 1
        if self.skipped == 1:
            process.log().say(f"a step of epoch {self.epoch + 1} is skipped: its loss is {loss:.4g}")
        if self.skipped == PATIENCE:
            raise Failure(f"{PATIENCE} steps in a row had a loss that is not finite or beyond --skip_threshold; "
                          "the newest good weights are kept; try a lower --lr, --gclip, or another --precision")

    def _end_epoch(self, last: bool) -> None:
        """Test when it is time, save the weights and the state, draw the curves; the epoch counts from then on."""
        losses, number = utility.means(self.seen), self.epoch + 1
        score, tested = self.best, last or number % self.args.val_epochs == 0
        with self._averaged():
            if tested:
                try:
                    results = self.test(f"epoch {number}", number)
                except Interrupted:
                    results = None
            if tested and results:
                found = next((r["psnr"] for r in results.values() if "psnr" in r), -losses.get("loss", math.inf))
                score = number if self.run.blind else found
            keep = tested or time.monotonic() - self.saved > OFTEN
            if keep and process.rank() == 0:
                note = {"epoch": number, "score": score, "data_train": self.args.data_train, "data_range": self.args.data_range}
                content = weights.model_content(self.method, self.args, note)
        if tested and results is None:
            self._save_state(self.mark)
            self._stop()
        self.best, improved = max(self.best, score), tested and score > self.best
        self.epoch, self.step, self.seen, self.last_loss = number, 0, [], losses.get("loss", self.last_loss)
        if keep and process.rank() == 0:
            folder, kept = self.folder / "model", [str(number)] * (tested and self.args.save_models)
            for name in ["latest"] + ["best"] * improved + kept:
                files.write_tensors(folder / f"model_{name}.pt", content)
            for name in kept:
                files.write_tensors(folder / f"state_{name}.pt", self._state())
            self._save_state()
            plots.curves(self.folder)

    def _due(self) -> bool:
        """Return whether --save_every asks for the state now; the first process decides for itself, it alone writes."""
        every = self.args.save_every
        if every.endswith("m"):
            return 0 < float(every[:-1]) * 60 <= time.monotonic() - self.saved
        return int(every) > 0 and self.steps % int(every) == 0

    def _save_state(self, log: dict[str, int] | None = None) -> None:
        if process.rank() == 0:
            experiment.save_state(self.folder / "model", self._state() | ({"log": log} if log else {}))
        self.saved = time.monotonic()

    def _stop(self) -> None:
        """End the run, whose state is saved, as a signal asked."""
        name = signal.Signals(process.asked_to_end() or signal.SIGTERM)
        process.log().time("stop", signal=name.name, epoch=self.epoch + 1, step=self.step)
        raise Stopped(f"stopped by {name.name} in epoch {self.epoch + 1} after step {self.step}; the state is saved, "
                      f"--resume auto --save {self.args.save} goes on from there", 128 + name)

    @contextlib.contextmanager
    def _averaged(self):
        """Within the block the method's network is the moving average, where there is one."""
        trained = self.method.network
        self.method.network = self.average or trained
        try:
            yield
        finally:
            self.method.network = trained

    def _state(self) -> dict:
        return {"format": experiment.STATE_FORMAT, "version": VERSION, "log": process.log().lengths(),
                "progress": {name: getattr(self, name) for name in PROGRESS}, "random": process.random_state(),
                "network": self.method.network.state_dict(), "side": self.method.side_state(),
                "average": self.average.state_dict() if self.average else {},
                "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def _take_up(self, state: dict) -> None:
        if state["progress"]["epoch"] > self.args.epochs:
            raise UserError(f"{self.folder} has been trained to epoch {state['progress']['epoch']} already, "
                            f"beyond --epochs {self.args.epochs}")
        for name in PROGRESS:
            setattr(self, name, state["progress"].get(name, getattr(self, name)))     # an older version had not all of them
        try:
            self.method.network.load_state_dict(state["network"])
            self.method.load_side_state(state["side"])
            if self.average:
                self.average.load_state_dict(state["average"] or state["network"])
            settings = [{key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups]
            self.optimizer.load_state_dict(state["optimizer"])
            for group, flags in zip(self.optimizer.param_groups, settings):
                group.update(flags)                               # what the command line says now, not what it said then
            self.scaler.load_state_dict(state["scaler"] or self.scaler.state_dict())
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(f"the state in {self.folder} does not fit these flags: a training goes on with the model, the width "
                            "and the optimizer that it began with") from error
        self.random = state["random"]

    def _announce(self) -> None:
        fresh, start = not (self.epoch or self.step), 0           # a log that goes on has had these lines
        process.log().say(f"{self.args.model}: {sum(p.numel() for p in self.method.network.parameters()):,} parameters, on {self.device}"
                          f" x {process.world()}, {self.args.precision}; {len(self.loaders[0].dataset)} training images of "
                          f"{self.args.data_train}", keep=fresh)
        for number, (stage, loader) in enumerate(zip(self.stages, self.loaders), 1):
            text = (f"stage {number}{' ' + stage.name if stage.name else ''}: epochs {start + 1}-{start + stage.epochs}, "
                    f"{len(loader)} steps each, patch {stage.patch_size}, batch {stage.batch_size}, loss {stage.loss}"
                    + (f", frozen: {', '.join(stage.frozen)}" if stage.frozen else "") if stage.epochs else
                    f"stage {number}: no epoch of {self.args.epochs}, left out")
            process.log().say(text, keep=fresh)
            start += stage.epochs
        if not fresh:
            process.log().say(f"going on after epoch {self.epoch}" + (f", step {self.step}" if self.step else ""), keep=False)
            process.log().time("resume", epoch=self.epoch, step=self.step)
