"""The training loop, and the folder in which a run keeps everything it did.

    config.json              the configuration
    metrics.jsonl            one line per epoch; without validation, all that it would say is null. train_loss is the
                             mean of the steps' losses per valid pixel, also where what is minimised is their sum
    checkpoint.safetensors   everything that is needed to go on exactly
    checkpoint.previous.safetensors   the one before, for when the newest is damaged
    best.safetensors         the weights with the best validation mean IU
    learning_curve.png, overlays.png

A run that was stopped and resumed equals one that was not, to the bit: the order and augmentation of the data are
functions of the seed and the epoch's number, and all other state is in the checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minifcn import optim, random
from minifcn.array import Array, module_of
from minifcn.autograd import Tensor
from minifcn.data import (
    Batch,
    Dataset,
    Loader,
    Skipping,
    class_weights,
    open_dataset,
    some_samples,
)
from minifcn.kernels.precision import matmul_precision
from minifcn.nn import Module, synchronize_batch_norm
from minifcn.training.checkpoint import (
    BEST,
    CHECKPOINT,
    ModelCard,
    find_weights,
    load_model,
    save_checkpoint,
    save_weights,
)
from minifcn.training.config import TrainConfig
from minifcn.training.diagnostics import FirstSteps, LabelCensus, broken_values, explain_nan
from minifcn.training.distributed import FailedElsewhere, World
from minifcn.training.files import clear_drafts, replacing, sync_folder
from minifcn.training.inference import choose_device, predict
from minifcn.training.interrupt import interrupted, polite_interrupt, saying
from minifcn.training.pictures import SHEET_ROWS, learning_curve, overlay_sheet
from minifcn.training.recipes import in_other_words, step_pixels
from minifcn.training.recovery import PREVIOUS, Pace, check_untrained, has_checkpoint, restore
from minifcn.training.shares import Share, evaluate_together, shares, sum_gradients
from minifcn.weights import load

CONFIG, METRICS = "config.json", "metrics.jsonl"
_CURVE, _OVERLAYS = "learning_curve.png", "overlays.png"
# on resuming; everything else would make it another run
MAY_CHANGE = ("epochs", "val_every", "workers", "device", "bad_images", "checkpoint_every")
# what a line of metrics.jsonl says of the validation images: null where they were not looked at
_VALIDATION = (
    "val_loss",
    "pixel_accuracy",
    "mean_accuracy",
    "mean_iu",
    "frequency_weighted_iu",
    "per_class_iu",
)

Record = dict[str, Any]


@dataclass(frozen=True)
class TrainResult:
    """What a finished run came to.

    Args:
        folder: the run's folder.
        mean_iu: the best validation mean IU; nan if the validation images have no valid pixel.
        epoch: the epoch of the best weights, counted from 1.
        records: the lines of metrics.jsonl.
    """

    folder: Path
    mean_iu: float
    epoch: int
    records: tuple[Record, ...]


def train(
    config: TrainConfig | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    say: Callable[[str], None] = print,
    world: World | None = None,
) -> TrainResult:
    """Train a network and keep everything in a folder; the command `minifcn train`.

    Args:
        config: what to compute; the defaults where it is None, or on resuming the run's own configuration.
        out: the run's folder, new or empty; None takes the next free `runs/<model>-<n>`.
        resume: go on with the run in `out` from where it stopped.
        say: is given each line of the report.
        world: the processes that train together, as `find_world` finds them; None for this one alone.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: for a configuration, data or folder that cannot be used.
        FloatingPointError: where the loss or a gradient is no longer a number; says which operation made it.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP, with a message that says what was saved and how to go on.
    """
    world = world or World()
    with world.ending():
        if not resume:
            return Trainer(config or TrainConfig(), out, say=say, world=world).fit()
        if out is None:
            raise ValueError("train: a run to resume is needed; give its folder")
        return Trainer.resume(out, config, say=say, world=world).fit()


def read_config(folder: str | os.PathLike[str]) -> TrainConfig:
    """The configuration of the run in a folder.

    Raises:
        FileNotFoundError: where the folder holds no run.
        ValueError: for a configuration that cannot be read.
    """
    file = Path(folder) / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"train: {folder} holds no run (no {CONFIG}); the folder of a run is needed")
    return TrainConfig.from_json(file.read_text(encoding="utf-8", errors="replace"))


def check_same_run(folder: str | os.PathLike[str], stored: TrainConfig, config: TrainConfig) -> None:
    """Refuse to go on with a run under a configuration that would make it another one.

    Args:
        folder: the run's, for the message.
        stored: its configuration.
        config: the one to go on with.

    Raises:
        ValueError: where they differ in anything but MAY_CHANGE.
    """
    for name, value in asdict(stored).items():
        if name not in MAY_CHANGE and getattr(config, name) != value:
            raise ValueError(
                f"train: the run in {folder} has {option(name)} {value!r}, not {getattr(config, name)!r}; "
                f"only {', '.join(map(option, MAY_CHANGE))} can change on resuming, other changes need a new run"
            )


def option(name: str) -> str:
    """An entry of TrainConfig as the command line has it.

    >>> option("val_every")
    '--val-every'
    """
    return f"--{name.replace('_', '-')}"


def go_on(folder: Path) -> str:
    """The command that goes on with a run or with stages."""
    return f"python -m minifcn train --resume {shlex.quote(str(folder))}"


class Trainer:
    """One training run: network, optimizer, data and folder.

    Args:
        config: what to compute.
        out: the run's folder, new or empty; None takes the next free `runs/<model>-<n>`.
        say: is given each line of the report.
        world: the processes that train together; None for this one alone. Rank 0 writes and speaks.

    Attributes:
        whole: the folder that is to be resumed where this run is a part of something larger; None for its own.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: for a configuration, data or folder that cannot be used.
    """

    whole: Path | None = None

    def __init__(
        self,
        config: TrainConfig,
        out: str | os.PathLike[str] | None = None,
        *,
        say: Callable[[str], None] = print,
        world: World | None = None,
    ) -> None:
        self.world = world or World()
        if out is not None:
            self.world.first(lambda: _check_new(Path(out)))
        self._build(config, say)
        self._start_from(config.init)
        # only now, so that a mistake in the configuration leaves no empty folder behind
        self.folder = self.world.first(lambda: next_folder(config.model)) if out is None else Path(out)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_config()
        sync_folder(self.folder.absolute().parent)

    @classmethod
    def resume(
        cls,
        folder: str | os.PathLike[str],
        config: TrainConfig | None = None,
        *,
        say: Callable[[str], None] = print,
        world: World | None = None,
    ) -> Trainer:
        """The run in a folder, at the point where it stopped.

        Args:
            folder: the run's folder.
            config: None, or the run's own configuration with another of `epochs`, `val_every`, `workers`, `device`,
                `bad_images` and `checkpoint_every`.
            say: is given each line of the report.
            world: the processes that train together, not necessarily as many as before; None for this one alone.

        Raises:
            FileNotFoundError: where the folder holds no run, or one that was trained and has lost its checkpoints.
            ValueError: for a configuration of another run, or checkpoints that are damaged or of another model.
        """
        stored = read_config(folder)
        config = stored if config is None else config
        check_same_run(folder, stored, config)
        self = cls.__new__(cls)
        self.world = world or World()
        self._build(config, say)
        self.folder = Path(folder)
        self.world.first(self._take_up)  # which may put a damaged file aside
        if self.world.rank != 0:
            self._take_up()
        if config != stored:
            self._write_config()
        return self

    def _take_up(self) -> None:
        """Load where the run in the folder stopped."""
        if self.world.rank == 0:
            clear_drafts(self.folder, (CONFIG, METRICS, CHECKPOINT, BEST, _CURVE, _OVERLAYS))
        if has_checkpoint(self.folder):
            self._restore(restore(self.folder, self.module, self.card, self.optimizer, self.schedule, self.say))
        else:
            check_untrained(self.folder, (METRICS, BEST))
            self._start_from(self.config.init)

    def _build(self, config: TrainConfig, say: Callable[[str], None]) -> None:
        self.config, self.say = config, say if self.world.rank == 0 else _nothing
        self.device = choose_device(config.device)
        self.train_set = open_dataset(config.data, "train", **config.data_options("train"))
        if config.bad_images == "skip":
            self.train_set = Skipping(self.train_set, say)
        self.val_set = open_dataset(config.data, "val", **config.data_options("val"))
        self.card = _card(config, self.train_set)
        if self.val_set.num_classes != self.card.num_classes:
            raise ValueError(
                f"train: {config.data} has {self.card.num_classes} classes in train and {self.val_set.num_classes} "
                "in val; the same classes are needed"
            )
        self.loader = Loader(
            self.train_set,
            config.batch_size,
            shuffle=True,
            augment=config.augment,
            seed=config.seed,
            workers=config.workers,
            # a rest of one image would give batch normalisation very different statistics
            drop_last=len(self.train_set) >= config.batch_size,
            part=(self.world.rank, self.world.size),
        )
        self.module = self.card.create(config.seed)
        self.module.to(self.device)
        self._synchronized = config.sync_batch_norm and self.world.size > 1
        if self._synchronized:
            synchronize_batch_norm(self.module, self.world.gather)
        self.optimizer, self.schedule = _optimizer(config, self.module, len(self.loader))
        weights = self.world.first(lambda: class_weights(self.train_set, config.class_weights))
        self.class_weights = None if weights is None else Tensor(weights).to(self.device)
        # the trainer has a random state of its own, and puts the caller's back when it is done
        outer = random.get_state()
        random.manual_seed(config.seed)
        self._random = random.get_state()
        random.set_state(outer)
        self.epoch = 0  # epochs that are complete
        self.step = 0  # steps that are complete in the next one
        self.loss_sum, self.loss_count, self.seconds = 0.0, 0, 0.0
        self.skipped = 0  # damaged images of this epoch
        self.lr = self._lr()  # of the last step
        self.best_iu, self.best_epoch = -math.inf, 0
        self.records: list[Record] = []
        self._first_steps: FirstSteps | None = FirstSteps(
            self.module,
            self.optimizer,
            classes=self.card.classes,
            total_steps=config.epochs * len(self.loader),
            reduction=config.loss,
            gather=self.world.gather if self.world.size > 1 else None,
        )
        self._census = LabelCensus(self.card.classes)
        self._before_step: tuple[dict[str, Array], dict[str, Any]] | None = None  # where no step is under way
        self._weights_whole = True

    def _start_from(self, weights: str | None) -> None:
        """Load what fits of a run or a file into the network, and say what did and what did not.

        Where the file is of an FCN with fewer strides, the scores of the new ones begin at zero, as the authors have
        it: the network starts with what the other has learned.
        """
        if weights is not None:
            report = load(self.module, find_weights(weights), strict=False)
            new = [odd for odd in report.missing if odd.name.startswith("score_")]
            if "score_fr.weight" not in report.matched:
                new = []
            # each name in one line only: that new scores are missing is as it should be
            shown = replace(report, missing=tuple(odd for odd in report.missing if odd not in new))
            self.say(f"starting from {weights}\n{shown}")
            found, needed = report.backbone
            if found < needed:  # a start from half of one would pass for a start from weights
                hint = report.hint or "weights of the same backbone are needed"
                raise ValueError(
                    f"train: {weights} has {found} of the backbone's {needed} parameters and buffers in the shapes of "
                    f"{self.card.describe()}; {hint}"
                )
            if new:
                zeros = {odd.name: np.zeros(odd.shape, np.float32) for odd in new}
                self.module.load_state_dict(zeros, strict=False)
                self.say(f"{', '.join(zeros)} are new and begin at zero")

    def fit(self) -> TrainResult:
        """Train up to the configured number of epochs, then make the pictures.

        Raises:
            FloatingPointError: where the loss or a gradient is no longer a number; says which operation made it.
            KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP, with a message that says what was saved and how to go on.
        """
        self._read_metrics()
        with saying(self._how_it_stands), matmul_precision(self.config.matmul_precision):
            self.say(self._introduction())
            self._say_rates()
            self._train()
            self._make_pictures()
        return TrainResult(self.folder, self._best_or_nan(), self.best_epoch, tuple(self.records))

    def _train(self) -> None:
        """All epochs that are left."""
        outer = random.get_state()
        random.set_state(self._random)
        self._pace = Pace(self.config.checkpoint_every)
        with polite_interrupt(speaks=self.world.rank == 0) as check:  # until everything is saved
            try:
                while self.epoch < self.config.epochs:
                    self._train_epoch(check)
                    self._finish_epoch(check)
                self._validate_last(check)
                self.world.together(check)  # what came since the last validation's last batch
            except KeyboardInterrupt as error:
                stop = interrupted(error, self._stop())
                raise (stop if self.world.rank == 0 else FailedElsewhere(stop.exit_code)) from error
            except (ValueError, OSError, FailedElsewhere):  # a bad file, a full disk: what was learned so far is kept
                self.say(f"stopped by an error {self._stop()}")
                raise
            finally:
                self._random = random.get_state()
                random.set_state(outer)

    def _train_epoch(self, check: Callable[[], None]) -> None:
        self.module.train()
        started = time.perf_counter() - self.seconds
        title = f"epoch {self.epoch + 1}/{self.config.epochs}"
        with tqdm(total=len(self.loader), initial=self.step, desc=title, unit="step", disable=None, leave=False) as bar:
            batches = self.loader.epoch(self.epoch, start=self.step)
            weights = None if self.class_weights is None else self.class_weights.numpy()
            for share in shares(self.world, batches, self.card.num_classes, weights, check, self._look):
                self._train_step(share)
                if self._first_steps is not None and self._first_steps.done:
                    bar.clear()
                    self._say_notes()
                self.seconds = time.perf_counter() - started
                bar.update()
                bar.set_postfix(loss=f"{self.loss_sum / max(1, self.loss_count):.4f}", refresh=False)
                if self._pace.is_due(self.step):
                    self._pace.timed(self._save)

    def _train_step(self, share: Share) -> None:
        """One update. If it is interrupted on the way, `_stop` can undo it: so far only buffers and the random state
        have changed, until the weights do."""
        self._before_step = (_buffers(self.module), random.get_state())
        self._census.seen |= share.pixels > 0
        if share.weight:  # crops of nothing but void have no loss
            scores, loss, labels = self._forward(share)
            value = float(self.world.gather(np.array(loss.item())).sum())
            if not math.isfinite(value):
                del scores, loss  # with their graph: the step is made once more
                raise self._broken(f"the loss is {value}", share)
            loss.backward()
            sum_gradients(self.world, self.module, share)
            broken = broken_values(self.module, gradients=True)
            if broken:
                del scores, loss
                raise self._broken(broken, share)
            if self._first_steps is not None:
                self._first_steps.after_backward(Tensor(np.array(value, loss.dtype)), scores, labels, share.weight)
            self._weights_whole = False
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.loss_sum += value / share.weight if self.config.loss == "sum" else value
            self.loss_count += 1
        self.lr = self._lr()
        if self.schedule is not None:
            self.schedule.step()
        self.step += 1
        self.skipped += share.stand_ins
        self._weights_whole, self._before_step = True, None

    def _forward(self, share: Share) -> tuple[Tensor, Tensor, Tensor]:
        return share.forward(self.module, self.class_weights, self.device, self.config.loss)

    def _look(self, batch: Batch) -> None:
        self._census.see(batch.labels, batch.names)

    def _broken(self, what: str, share: Share) -> FloatingPointError:
        """The error for a loss or gradient that is no number, with the operation that made it: the step is made again,
        from where it began, in debug mode."""
        self._undo()
        why = broken_values(self.module) or self._explain(share)
        self._undo()
        summed = (  # for Adam a rate is the same
            f"; the loss is the sum over {share.weight:,.0f} pixels, so a learning rate for their mean must be divided "
            "by that, or --loss mean be given"
            if (self.config.loss, self.config.optimizer) == ("sum", "sgd")
            else ""
        )
        return FloatingPointError(
            f"train: {what} in epoch {self.epoch + 1}, step {self.step + 1} (learning rate {self._lr():.3g})"
            f"{'' if why is None else f': {why}'}; a new run with a lower --lr is needed{summed}"
        )

    def _explain(self, share: Share) -> str | None:
        """What debug mode says of the step on the first process where it finds something; on all of them."""
        if self._synchronized:  # who finds something does not go on, and nobody may wait: each as if all had its images
            size = self.world.size
            synchronize_batch_norm(self.module, lambda a: module_of(a).stack([a] * size))
        found = explain_nan(lambda: self._forward(share)[1])
        if self._synchronized:
            synchronize_batch_norm(self.module, self.world.gather)
        return next((text for text in self.world.texts(found or "") if text), None)

    def _undo(self) -> None:
        """Back to where the step under way began, as long as no weight has changed."""
        assert self._before_step is not None
        buffers, state = self._before_step
        self.module.load_state_dict(buffers, strict=False)
        random.set_state(state)
        self.optimizer.zero_grad()

    def _finish_epoch(self, check: Callable[[], None]) -> None:
        started = time.perf_counter()
        number = self.epoch + 1
        validated = number % self.config.val_every == 0 or number == self.config.epochs
        record: Record = {
            "epoch": number,
            "train_loss": self.loss_sum / self.loss_count if self.loss_count else None,
            **(self._validate(check) if validated else dict.fromkeys(_VALIDATION)),
            "lr": self.lr,
            "seconds": round(self.seconds + time.perf_counter() - started, 3),
            **({"skipped": self.skipped} if self.config.bad_images == "skip" else {}),
        }
        # The line and the best weights come before the checkpoint: if the power goes in between, the epochs since the
        # last one are done again and write them again; the other way round they would be missing. One of the epoch's
        # steps is there before the first of them all: a line or weights without a checkpoint are those of a run that
        # has lost it.
        if self.world.rank == 0 and not has_checkpoint(self.folder):
            self._pace.timed(self._save)
        self._append_metrics(record)
        is_best = validated and self._keep_if_best(record)
        self._say_notes()
        unseen = self._census.report()
        if self.epoch == 0 and unseen:
            self.say(f"note: {unseen}")
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum, self.loss_count, self.seconds, self.skipped = 0.0, 0, 0.0, 0
        # Whatever it takes, the last one is saved, so that a run that is finished says so, and one with new best
        # weights: a run that goes on with other epochs, validations or device may not find them again.
        if is_best or self._pace.is_due_between() or self.epoch == self.config.epochs:
            self._pace.timed(self._save)
        self.say(_line(record, self.config.epochs))

    def _validate(self, check: Callable[[], None]) -> Record:
        """The metrics on the validation images, by the names of _VALIDATION. No random numbers are drawn, so weights
        do not depend on when this is done."""
        matrix, loss = evaluate_together(
            self.world, self.module, self.val_set, device=self.device, workers=self.config.workers, after_batch=check
        )
        return {"val_loss": None if math.isnan(loss) else loss, **matrix.summary()}

    def _keep_if_best(self, record: Record) -> bool:
        """Save the weights, where no earlier epoch's were as good; returns whether."""
        score = record["mean_iu"]
        score = -math.inf if score is None else score
        better = self.best_epoch == 0 or score > self.best_iu
        if better:
            if self.world.rank == 0:
                save_weights(self.folder / BEST, self.module, self.card)
            self.best_iu, self.best_epoch = score, record["epoch"]
        return better

    def _validate_last(self, check: Callable[[], None]) -> None:
        """Validate the last epoch, where the run was resumed to end with one that was not to be validated."""
        last = self.records[-1]
        if last["per_class_iu"] is not None:
            return
        record = last | self._validate(check)
        self._keep_if_best(record)
        self._save()  # before the line: where the power goes in between, all of this is done again
        self.records = [*self.records[:-1], record]
        if self.world.rank == 0:
            self._write_metrics()
        self.say(_line(record, self.config.epochs))

    def _make_pictures(self) -> None:
        if self.world.rank != 0:
            return
        missing = learning_curve(self.folder / _CURVE, self.records)
        if missing:
            self.say(missing)
        module, _ = load_model(self.folder / BEST)
        module.to(self.device)
        samples = some_samples(self.val_set, SHEET_ROWS)
        rows = [(sample.image, sample.labels, predict(module, sample.image, self.device)) for sample in samples]
        overlay_sheet(self.folder / _OVERLAYS, rows, self.card.classes, self.card.palette)

    # -- the run's folder

    def _write_config(self) -> None:
        if self.world.rank != 0:
            return
        with replacing(self.folder / CONFIG) as draft:
            draft.write_text(self.config.to_json(), encoding="utf-8")

    def _append_metrics(self, record: Record) -> None:
        self.records = [*self.records[: self.epoch], record]
        if self.world.rank != 0:
            return
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read_metrics(self) -> None:
        """Take up the lines of the complete epochs. Lines beyond them, or half of one, are left from a crash before the
        next checkpoint: their epochs will be done again, so the lines go."""
        file = self.folder / METRICS
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
        if len(lines) < self.epoch:
            raise ValueError(
                f"train: {file} has {len(lines)} lines after {self.epoch} epochs; the file that the run wrote is needed"
            )
        try:
            self.records = [json.loads(line) for line in lines[: self.epoch]]
        except json.JSONDecodeError as error:
            raise ValueError(f"train: {file} is damaged ({error}); the file that the run wrote is needed") from error
        if len(lines) > self.epoch:
            first, last = self.epoch + 1, len(lines)
            epochs = f"epoch {last} is" if first == last else f"epochs {first} to {last} are"
            self.say(f"note: {epochs} done again, as no checkpoint was written after them")
            if self.world.rank == 0:
                self._write_metrics()

    def _write_metrics(self) -> None:
        with replacing(self.folder / METRICS) as draft:
            draft.write_text("".join(json.dumps(record) + "\n" for record in self.records), encoding="utf-8")

    def _save(self) -> None:
        if self.world.rank != 0:  # the state is the same on all
            return
        progress = {
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "lr": self.lr,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "seen": self._census.seen.tolist(),
            "best_iu": None if math.isinf(self.best_iu) else self.best_iu,
            "best_epoch": self.best_epoch,
            "random": random.get_state(),
        }
        path, previous = self.folder / CHECKPOINT, self.folder / PREVIOUS
        save_checkpoint(path, self.module, self.card, self.optimizer, self.schedule, progress, previous)

    def _restore(self, progress: dict[str, Any]) -> None:
        self.epoch, self.step = progress["epoch"], progress["step"]
        self.loss_sum, self.loss_count = progress["loss_sum"], progress["loss_count"]
        self.lr, self.seconds, self.best_epoch = progress["lr"], progress["seconds"], progress["best_epoch"]
        self.best_iu = -math.inf if progress["best_iu"] is None else progress["best_iu"]
        self._random = progress["random"]
        if self.epoch:
            self._first_steps = None
        # what checkpoints of earlier versions lack; theirs are not called missing
        self.skipped, self._census.seen[:] = progress.get("skipped", 0), progress.get("seen", True)

    def _stop(self) -> str:
        """Save the last complete state after an interruption; says how to go on."""
        again, last = go_on(self.whole or self.folder), self._from_the_last_checkpoint()
        if not self._weights_whole:
            return f"inside an update, which cannot be saved; {last}"
        if self._before_step is not None:
            self._undo()
            self._before_step = None
        place = f"after step {self.step} of epoch {self.epoch + 1}"
        try:
            self._save()
        except OSError as error:
            return f"{place}, which could not be saved ({error}); {last}"
        return self._how_it_stands() if self._is_finished() else f"and saved {place}; {again} goes on from there"

    def _how_it_stands(self) -> str:
        """Where an interruption leaves nothing to save; says how to go on."""
        if self._is_finished():
            again = go_on(self.whole or self.folder)
            return f"after the last epoch, with everything saved but the pictures; {again} goes on from there"
        return f"before the first step; {self._from_the_last_checkpoint()}"

    def _from_the_last_checkpoint(self) -> str:
        place = "last checkpoint" if has_checkpoint(self.folder) else "beginning"
        return f"{go_on(self.whole or self.folder)} goes on from the {place}"

    def _is_finished(self) -> bool:
        """Whether only the pictures are to be made."""
        done = self.epoch >= self.config.epochs
        return done and self.records[-1]["per_class_iu"] is not None

    # -- words

    def _introduction(self) -> str:
        learned = sum(p.size for p in self.module.parameters() if p.requires_grad)
        words = (
            f"{self.card.describe()}, {learned:,} learnable parameters; {self.config.data}: {len(self.train_set)} "
            f"training and {len(self.val_set)} validation images; run in {self.folder}"
        )
        if self.world.size > 1:
            words += f"; {self.world.size} processes share each batch of {self.config.batch_size}"
        if self._is_finished():
            longer = "" if self.whole else "; --epochs N trains longer"  # the epochs of a stage are part of the plan
            return f"{words}, which is finished already{longer}"
        if self.epoch >= self.config.epochs:
            return f"{words}, from the validation of epoch {self.epoch}"
        return words if (self.epoch, self.step) == (0, 0) else f"{words}, from epoch {self.epoch + 1}"

    def _say_rates(self) -> None:
        """At the start of a training with a summed loss: what its rates would be for the mean."""
        if self.config.loss != "sum" or (self.epoch, self.step) != (0, 0):
            return
        weights = None if self.class_weights is None else self.class_weights.numpy()
        pixels = self.world.first(
            lambda: step_pixels(self.train_set, self.config.batch_size, self.loader.augment, weights)
        )
        if pixels:
            self.say(in_other_words(self.config, pixels))

    def _say_notes(self) -> None:
        """What the first steps have shown, once."""
        for note in () if self._first_steps is None else self._first_steps.report():
            self.say(f"note: {note}")
        self._first_steps = None

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _best_or_nan(self) -> float:
        return math.nan if math.isinf(self.best_iu) else self.best_iu


def _nothing(line: str) -> None:
    """What ranks other than 0 say."""


def _card(config: TrainConfig, dataset: Dataset) -> ModelCard:
    palette = tuple((int(r), int(g), int(b)) for r, g, b in dataset.palette)
    return ModelCard(config.model, dataset.num_classes, config.model_options, tuple(dataset.classes), palette)


def _optimizer(
    config: TrainConfig, module: Module, steps_per_epoch: int
) -> tuple[optim.Optimizer, optim.Schedule | None]:
    groups = (
        optim.paper_groups(module, config.lr, config.weight_decay)
        if config.paper_bias
        else [{"params": [p for p in module.parameters() if p.requires_grad], "lr": config.lr}]
    )
    if config.backbone_lr != 1:
        groups = _slower_backbone(groups, module, config.backbone_lr)
    optimizer: optim.Optimizer = (
        optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        if config.optimizer == "sgd"
        else optim.Adam(groups, lr=config.lr, weight_decay=config.weight_decay)
    )
    if config.schedule == "poly":
        return optimizer, optim.PolyLR(optimizer, config.epochs * steps_per_epoch, power=config.power)
    if config.schedule == "step":
        return optimizer, optim.StepLR(optimizer, config.step_epochs * steps_per_epoch, gamma=config.gamma)
    return optimizer, None


def _slower_backbone(groups: list[optim.Group], module: Module, factor: float) -> list[optim.Group]:
    """Each group in two: the rest of the network, then its backbone, whose learning rate is multiplied by factor."""
    backbone = {id(p) for name, p in module.named_parameters() if name.startswith("backbone.")}
    if not backbone:
        raise ValueError(
            f"train: --backbone-lr is {factor:g} and a {type(module).__name__} has no backbone; 1 is what it can have"
        )
    parts = []
    for group in groups:
        for inside, scale in ((False, 1.0), (True, factor)):
            params = [p for p in group["params"] if (id(p) in backbone) == inside]
            parts.append(group | {"params": params, "lr": group["lr"] * scale})
    return [part for part in parts if part["params"]]


def _buffers(module: Module) -> dict[str, Array]:
    """Copies, where the buffers are."""
    return {name: buffer.data.copy() for name, buffer in module.named_buffers()}


def _check_new(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"train: {folder} is a file; a new folder is needed")
    if folder.is_dir() and any(folder.iterdir()):
        hint = f"--resume {folder} goes on with that run" if (folder / CONFIG).is_file() else "choose a new folder"
        raise FileExistsError(f"train: {folder} is not empty, and nothing is overwritten; {hint}")


def next_folder(model: str) -> Path:
    """The next free `runs/<model>-<n>`, made."""
    number = 1
    while True:
        folder = Path("runs") / f"{model}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def _line(record: Record, epochs: int) -> str:
    def text(key: str) -> str:
        return "–" if record[key] is None else f"{record[key]:.3f}"

    scores = f"val loss {text('val_loss')}  pixel accuracy {text('pixel_accuracy')}  mean IU {text('mean_iu')}  "
    return (
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}  loss {text('train_loss')}  "
        f"{'' if record['per_class_iu'] is None else scores}{record['seconds']:.1f} s"
    )
