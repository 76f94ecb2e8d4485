"""One training run: the steps, the validation, the best weights, and the place that a checkpoint holds."""

from __future__ import annotations

import math
import pathlib
import signal
import time
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError, Interrupted, RunError, WeightsError
from pipelines.progress import Progress
from pipelines.training import checkpoint, randomness
from pipelines.training.averaging import BestEpochs
from pipelines.training.batches import Batch, BatchLoader
from pipelines.training.distributed import World
from pipelines.training.options import TrainOptions, learning_rate_at, step_factor
from pipelines.training.signals import SignalGuard
from pipelines.training.state import RunState
from pipelines.training.step import Carried, LossFn, Step, moved, shapes

__all__ = ["Run"]

_READ_EVERY = 10  # steps between two looks at the losses on an accelerator, each of which waits for it


class Run:
    """One run: the model set up by Fabric, its optimizer, and its place."""

    def __init__(
        self,
        world: World,
        guard: SignalGuard,
        model: nn.Module,
        loss_fn: LossFn,
        options: TrainOptions,
        base: float,
        path: pathlib.Path,
        progress: Progress,
        *,
        double: bool,
    ) -> None:
        self.world, self.guard, self.options, self.base, self.path = world, guard, options, base, path
        self.progress, self.model, self._double = progress, model, double
        self.state = RunState(threads=torch.get_num_threads())
        self.best = BestEpochs(options.average)
        self.fingerprint: dict[str, Any] = {}
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not parameters:
            raise ConfigError("the model has no weights to train", where="model", found=type(model).__name__)
        model.to(world.device, torch.float64 if double else None)
        # A loss scale divides the gradient inside the fused step, where it could not be clipped.
        self.optimizer = torch.optim.Adam(
            parameters,
            lr=base,
            weight_decay=options.weight_decay,
            decoupled_weight_decay=options.decoupled,
            fused=True if world.scaler is None else None,
        )
        self.module, self._stepper = world.fabric.setup(Step(model, loss_fn), self.optimizer)
        self._pending: list[Tensor] = []
        self._read_every = 1 if world.device.type == "cpu" else _READ_EVERY
        self._last_save = self._last_tick = time.monotonic()
        self._save_wanted = self._stop = False
        self._rate = base

    def begin(self, fingerprint: dict[str, Any], *, resume: bool) -> None:
        """Take up the run of the checkpoint, or write the first one, which shows that the disk takes it."""
        self.fingerprint = fingerprint | {"model": shapes(self.model)}
        if resume:
            self._load()
        else:
            self.save()

    def fit(self, train_batches: BatchLoader, val_batches: BatchLoader | None) -> None:
        """Train epoch after epoch until the last one, the last step, or the end of patience."""
        self._last_tick = time.monotonic()
        while not self.state.finished:
            self._rate = rate = learning_rate_at(self.state.epoch, self.options, self.base)
            self._train_epoch(train_batches)
            self._end_epoch(rate, self._validate(val_batches))
            self.save()
            # Also after the last epoch: who asked for a stop must not see exit code 0.
            if self.world.any(self.guard.received > 0):
                self._leave()

    def load_best(self) -> None:
        """Give the model the weights of the best epoch."""
        if weights := self.best.weights():
            self.model.load_state_dict(weights)
        self.model.eval()

    def save(self) -> None:
        """Write the checkpoint: process 0 writes, the others learn whether it could."""
        self._read_losses()
        self._tick()
        generators = self.world.gather(randomness.capture())
        error: Exception | None = None
        if self.world.rank == 0:
            try:
                checkpoint.write_checkpoint(self.path, self._content(generators))
            except RunError as failure:
                error = failure
        self.world.raise_together(error)
        self._last_save, self._save_wanted = time.monotonic(), False

    def _content(self, generators: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "progress": self.state.plain(),
            "model": self.model.state_dict(),
            "best": self.best.plain(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.world.scaler.state_dict() if self.world.scaler is not None else {},
            "random": generators,
        }

    def _load(self) -> None:
        saved = checkpoint.read_checkpoint(self.path)
        checkpoint.compare_fingerprints(self.path, saved["fingerprint"], self.fingerprint)
        try:
            self.state = RunState.from_plain(saved["progress"])
            self.model.load_state_dict(saved["model"])
            self.best.restore(saved["best"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.world.scaler is not None:
                self.world.scaler.load_state_dict(saved["scaler"])
            randomness.restore(saved["random"][self.world.rank])
        except (RuntimeError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            found = str(error).splitlines()[0]
            raise WeightsError(
                "the checkpoint does not fit its own description", where=self.path, found=found
            ) from error
        where = "finished" if self.state.finished else f"epoch {self.state.epoch}, batch {self.state.position}"
        self.progress.say(f"resumed {self.path} at step {self.state.step} ({where})")
        threads = torch.get_num_threads()
        if threads != self.state.threads and not self.state.finished:
            self.progress.say(f"note: {threads} threads now, {self.state.threads} before: the last digits may differ")

    def _train_epoch(self, batches: BatchLoader) -> None:
        state, total = self.state, batches.batches
        label = f"epoch {state.epoch}/{self.options.epochs}"
        with self.progress.bar(label, total, done=state.position, closing=False) as bar:
            # A run that was stopped while validating has no batch left here and goes on with the validation.
            if self._epoch_is_over(total):
                return
            self.module.train()
            for batch in batches.epoch(state.epoch, state.position):
                self._step(batch)
                bar.advance(loss=self._mean_loss)
                self._between_steps()
                if self._epoch_is_over(total):
                    break
        self._read_losses()

    def _epoch_is_over(self, total: int) -> bool:
        return self.state.position >= total or 0 < self.options.max_steps <= self.state.step

    def _step(self, batch: Batch) -> None:
        total, report = self._forward(batch)
        self.world.sum_(report)
        divisor = torch.where(report[1] > 0, report[1], 1.0).to(total.dtype)
        self._stepper.zero_grad(set_to_none=True)
        self.world.fabric.backward(total * (batch.weight * self.world.size) / divisor)
        if self.options.clip_norm is not None:
            self.world.fabric.clip_gradients(
                self.module, self._stepper, max_norm=self.options.clip_norm, error_if_nonfinite=False
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate * step_factor(self.state.step + 1, self.options)
        self._stepper.step()
        self._pending.append(report)
        self.state.step += 1
        self.state.position += 1

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """This process's sum of the loss, and its report to all: sum, count, is a stop asked for, is a save due."""
        total, count = self.module(Carried(moved(batch.data, self.world.device, double=self._double)))
        exact = torch.float32 if self.world.device.type == "mps" else torch.float64
        share = torch.stack((total.detach().to(exact), count.to(exact)))
        if self.world.size == 1:
            return total, share
        flags = (float(self.guard.received > 0), float(self._save_is_due(self.state.step + 1)))
        return total, torch.cat((share * batch.weight, torch.tensor(flags, dtype=exact, device=share.device)))

    def _between_steps(self) -> None:
        if len(self._pending) >= self._read_every:
            self._read_losses()
        if self.world.size == 1:
            self._stop, self._save_wanted = self.guard.received > 0, self._save_is_due(self.state.step)
        if self._stop:
            self.save()
            self._leave()
        if self._save_wanted:
            self.save()

    def _save_is_due(self, step: int) -> bool:
        minutes, steps = self.options.checkpoint_minutes, self.options.checkpoint_steps
        late = 0 < minutes * 60 <= time.monotonic() - self._last_save
        return late or (steps > 0 and step % steps == 0)

    def _read_losses(self) -> None:
        """Add the losses of the last steps up; here, and not at every step, an accelerator is waited for."""
        if not self._pending:
            return
        rows = torch.stack(self._pending).tolist()
        first = self.state.step - len(rows) + 1
        self._pending.clear()
        for step, (total, count, *flags) in enumerate(rows, first):
            if not math.isfinite(total):
                raise self._not_finite(f"the training loss at step {step}", total)
            self.state.loss_sum += total
            self.state.loss_count += count
            if flags:
                self._stop, self._save_wanted = self._stop or flags[0] > 0, self._save_wanted or flags[1] > 0

    def _mean_loss(self) -> float:
        return self.state.loss_sum / max(self.state.loss_count, 1.0)

    def _not_finite(self, what: str, value: float) -> RunError:
        rate = self.optimizer.param_groups[0]["lr"]
        return RunError(
            f"{what} (epoch {self.state.epoch}, step size {rate:g}) is {value}. "
            f"The last checkpoint is kept: {self.path}. "
            "Cure: a smaller learning rate or a clip norm; check the input for extreme values."
        )

    def _validate(self, batches: BatchLoader | None) -> float | None:
        """Sum of the loss over the whole set divided by the number of values, without a trace in the generators."""
        if batches is None:
            return None
        sums: list[Tensor] = []
        with torch.no_grad(), randomness.isolated():
            self.module.eval()
            for number, batch in enumerate(batches.epoch(0)):
                sums.append(self._forward(batch)[1][:2])
                if self._asked_to_stop(number):
                    break
        if self._stop:
            self.save()
            self._leave()
        total, count = self.world.sum_(torch.stack(sums).sum(0)).tolist()
        if not math.isfinite(total) or count <= 0:
            raise self._not_finite("the validation loss", total / count if count > 0 else math.nan)
        return total / count

    def _asked_to_stop(self, number: int) -> bool:
        if self.world.size == 1 or number % _READ_EVERY == 0:
            self._stop = self.world.any(self.guard.received > 0)
        return self._stop

    def _end_epoch(self, rate: float, value: float | None) -> None:
        state, options = self.state, self.options
        self._tick()
        judged = self._mean_loss() if value is None else value
        # As in the released code of the papers, an equal loss counts as a better one.
        if value is None or judged <= state.best_value:
            state.best_value, state.best_epoch, state.waited = judged, state.epoch, 0
        else:
            state.waited += 1
        if value is not None:
            self.best.offer(judged, self.model)
        state.history.append(
            {
                "epoch": state.epoch,
                "learning_rate": rate,
                "train_loss": self._mean_loss(),
                "val_loss": value,
                "steps": state.step,
                "seconds": state.epoch_seconds,
            }
        )
        self._say_epoch(state.history[-1], best=state.waited == 0)
        state.stopped_early = 0 < options.patience <= state.waited
        reached = state.epoch >= options.epochs or 0 < options.max_steps <= state.step
        state.finished = reached or state.stopped_early
        state.epoch += 1
        state.position, state.loss_sum, state.loss_count, state.epoch_seconds = 0, 0.0, 0.0, 0.0

    def _say_epoch(self, record: dict[str, Any], *, best: bool) -> None:
        validation = "" if record["val_loss"] is None else f", validation {record['val_loss']:.4g}"
        self.progress.say(
            f"epoch {record['epoch']}/{self.options.epochs}: training {record['train_loss']:.4g}{validation}"
            f"{' (best)' if best else ''}, step size {record['learning_rate']:.3g}, {record['seconds']:.1f} s"
        )

    def _tick(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self._last_tick
        self.state.epoch_seconds += now - self._last_tick
        self._last_tick = now

    def _leave(self) -> NoReturn:
        """Leave every process with the signal that one of them got; the state has been saved."""
        signum = max(self.world.gather(self.guard.received))
        raise Interrupted(
            f"stopped by {signal.Signals(signum).name} after step {self.state.step}; "
            f"the state is saved in {self.path}. To continue to the same result: the same command with --resume.",
            signum,
        )
