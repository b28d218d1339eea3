"""The training loop of all methods: stages, schedules, checkpoints.

A step (`fsframework.training.step`) minimises the weighted sum of the stage's losses, then the `critic` of each loss
with its own parameters, such as a discriminator. The randomness of step k of stage s depends on (seed, s, k) alone, and
pair numbers are fixed. So a killed and resumed run ends bit for bit like an uninterrupted one, on one type of machine
with the same number of threads.
"""

import sys
from collections.abc import Collection
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.step_lr import StepLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fsframework.core.components import Dataset, Loss
from fsframework.core.errors import UserError
from fsframework.core.part import Part
from fsframework.core.swapper import Swapper
from fsframework.data.collate import SwapPixels
from fsframework.data.train_pairs import TrainingPairs, next_batch
from fsframework.models import store
from fsframework.models.run import Run, load_weights
from fsframework.ops.allocator import retain_freed_memory
from fsframework.recipe.build import build_swapper
from fsframework.recipe.schema import Recipe, Stage
from fsframework.training.cuda_graph import recordable
from fsframework.training.distributed import ALONE, DistributedBatchSampler, World
from fsframework.training.losses import StageLoss, numbered
from fsframework.training.optim import pack_optimizer, unpack_optimizer
from fsframework.training.setup import enroll, prepare
from fsframework.training.signals import stop_asked
from fsframework.training.step import TrainingStep, critics_of
from fsframework.training.tensorboard import TensorBoardLogger
from fsframework.training.timing import PendingStep, StepTimer
from fsframework.utils.progress import progress
from fsframework.utils.weights import below

OPTIMIZERS = ("optimizer", "critic_optimizer")  # in checkpoints; the second only where a loss has a critic


def train(run: Run, world: World = ALONE, board: bool = False) -> None:
    """Train all unfinished stages, in order, in parallel with the other processes of a world.

    `board` writes curves for TensorBoard, too.

    Raises
    ------
    UserError
        A loss is not finite, a checkpoint cannot be written or read, or the data cannot be used.
    KeyboardInterrupt, SystemExit
        Ctrl-C or SIGTERM was received; a checkpoint is written first.
    """
    retain_freed_memory()
    torch.manual_seed(run.recipe.seed)
    swapper = build_swapper(run.recipe)
    swapper.load()
    swapper.to(run.device)
    if world.size > 1 and run.device.type == "cuda":  # torch has none for CPUs: each process normalises its own part
        nn.SyncBatchNorm.convert_sync_batchnorm(swapper)
    refiner, refines = swapper.refiner, False
    trained: set[str] = set()
    for stage in run.recipe.stages:
        if stage.init is not None:
            swapper.refiner = refiner
            _start_from(swapper, run.recipe, stage.init, trained)
        trained |= set(stage.train)
        refines = refines or "refiner" in stage.train
        swapper.refiner = refiner
        if not refines:
            swapper.drop_untrained_refiner()
        if run.finished(stage):
            load_weights(swapper, run.weights_file(stage))
        else:
            stance: Literal["default", "force_eager"] = "default" if stage.compile else "force_eager"
            with torch.compiler.set_stance(stance):  # an earlier stage compiled for its own settings
                StageTrainer(run, stage, swapper, world).train(board and world.first)


def _start_from(swapper: Swapper, recipe: Recipe, init: str, keep: Collection[str]) -> None:
    """Load the weights of a stage's `init` into all networks but those in `keep`, which earlier stages trained."""
    file = recipe.relative(init)
    model = store.find(file if file.is_file() else init)
    loaded = load_weights(swapper, model.file, model.sha256, keep, adapt=True)
    if "refiner" in loaded and recipe.networks.refiner is None:
        print(f"note: {init}: its refiner is left out, as the recipe has none", file=sys.stderr)


class StageTrainer:
    """The training of one stage: its state, loop and checkpoints."""

    def __init__(self, run: Run, stage: Stage, swapper: Swapper, world: World = ALONE) -> None:
        self.run, self.stage, self.swapper, self.world = run, stage, swapper, world
        self.number = run.recipe.stages.index(stage)
        self.share = world.share(stage.batch_size, f"stages.{self.number}.batch_size")
        torch.manual_seed(self._seed(-1))
        labels = numbered([part.name for part in stage.losses])
        self.losses = [self._loss(n, *loss) for n, loss in enumerate(zip(stage.losses, labels, strict=True))]
        self.parts = nn.ModuleDict({name: part for name, part in swapper.trained_parts() if name in stage.train})
        if stage.channels_last:
            for module in (swapper, *(loss.module for loss in self.losses)):
                module.to(memory_format=torch.channels_last)
        swapper.eval().requires_grad_(False)
        self.parts.train().requires_grad_(True)
        self.average = _Average(self.parts, stage.ema, exclude_buffers=True) if stage.ema is not None else None
        self.training_step = TrainingStep(run, stage, swapper, self.parts, self.losses, world)
        self.critics, self.optimizers = self.training_step.critics, self.training_step.optimizers
        self.schedules = [self._schedule(optimizer) for optimizer in self.optimizers]
        self.lag = int(
            run.device.type == "cuda" and world.size == 1
        )  # steps that are launched before the losses of the oldest are read
        if self.training_step.records:  # after the schedules, which read the learning rates as numbers
            for optimizer in self.optimizers:
                recordable(optimizer)

    def _loss(self, number: int, part: Part, label: str) -> StageLoss:
        loss: Loss = part.build()
        loss.load()
        loss.to(self.run.device)
        has_critic = any(parameter.requires_grad for parameter in loss.parameters())
        return StageLoss(loss, part, label, f"stages.{self.number}.losses.{number}", has_critic)

    def _seed(self, step: int) -> int:
        """Return the seed of a step. Step -1 is the stage's start, whose seed is equal in all processes."""
        entropy = [self.run.recipe.seed, self.number, step + 1]
        if step >= 0 and not self.world.first:
            entropy.append(self.world.rank)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _compile(self) -> None:
        """Compile the traceable networks, frozen ones too, and print a note for each other one."""
        for name, part in {"identity": self.swapper.identity, **dict(self.swapper.trained_parts())}.items():
            if getattr(part, "traceable", False):
                part.compile()
            else:
                reason = f"the {name} {getattr(part, 'name', '')} is not traceable and is not compiled"
                print(f"note: {self.stage.name}: compile: {reason}", file=sys.stderr)

    def _schedule(self, optimizer: torch.optim.Optimizer) -> Scheduler:
        settings, steps = self.stage.schedule, self.stage.steps
        warmup: dict[str, Any] = {"warmup_t": settings.warmup, "warmup_lr_init": 0.0, "t_in_epochs": False}
        if settings.kind == "cosine":
            return CosineLRScheduler(optimizer, t_initial=steps, warmup_prefix=False, **warmup)
        return StepLRScheduler(optimizer, decay_t=steps + 1, **warmup)

    def train(self, board: bool = False) -> None:
        """Train from the newest checkpoint, or the start, to the end of the stage; `board` logs for TensorBoard."""
        run, stage = self.run, self.stage
        done = self.restore()
        if self.world.first:
            run.trim_log(stage, done)
        dataset = run.recipe.faces(stage.data).build(run.recipe.size, run.recipe.detector, "train")
        dataset.load()
        if len(dataset) < 2:
            raise UserError(
                f"stages.{self.number}: training needs at least 2 faces, the data have {len(dataset)}; add faces"
            )
        z_ids = prepare(run, stage, self.swapper, dataset, self.world)
        self.parts.train()
        enroll(run, stage, self.swapper.generator, dataset, z_ids)
        if stage.compile:
            self._compile()  # after the preparation, which has other batch sizes
        pairs = TrainingPairs(dataset, stage.pairs, [run.recipe.seed, self.number], plain=z_ids is None)
        per_step = stage.batch_size * stage.accumulate
        loader = DataLoader(
            pairs,
            batch_size=self.share,
            sampler=DistributedBatchSampler(self.world, stage.batch_size, done * per_step, stage.steps * per_step),
            collate_fn=pairs.batch,
            num_workers=stage.workers,
            pin_memory=run.device.type == "cuda",
        )
        batches = iter(loader)
        clock = StepTimer()
        running: list[PendingStep] = []  # steps whose losses are not read yet
        values: dict[str, float] = {}
        shown = self.world.first
        with (
            stop_asked() as stop,
            progress(stage.name, stage.steps, "steps", done, shown) as ticker,
            TensorBoardLogger(run, stage) if board else nullcontext() as curves,
        ):
            for step in range(done, stage.steps):
                clock.start()
                group = [next_batch(batches) for _ in range(stage.accumulate)]
                clock.data_ready()
                running.append(self.step(step, group, z_ids))
                last = step + 1 == stage.steps
                # Reduced, so that all processes stop after the same step.
                asked = self.world.all_reduce_mean([float(stop.asked)]) != [0.0]
                logs = (step + 1) % stage.log_every == 0 or last
                saves = not last and (asked or (step + 1) % stage.checkpoint_every == 0)
                while len(running) > (0 if logs or saves else self.lag):
                    values = self._read(running.pop(0), dataset)
                clock.stop(per_step)
                ticker.advance(note=" ".join(f"{name} {value:.3f}" for name, value in values.items()))
                if self.world.first and logs:
                    entry = {"stage": stage.name, "step": step + 1, "losses": values, **clock.read()}
                    run.log(**entry)
                    if curves is not None:
                        curves.add(entry)
                if self.world.first and saves:
                    run.save_training_state(stage, step + 1, self.state())
                if asked and not last:
                    stop.leave(f"stopped after step {step + 1} of {stage.name}; --resume continues from there")
        self.finish()
        if stop.asked:  # in the last step
            stop.leave(f"stopped after {stage.name}, which is finished; --resume continues from there")

    def step(self, step: int, group: list[SwapPixels], z_ids: Tensor | None) -> PendingStep:
        """Launch one step on some batches of the loader, whose gradients are averaged, and return it."""
        torch.manual_seed(self._seed(step))
        active = [loss for loss in self.losses if step >= loss.module.options.start]
        for schedule in self.schedules:
            schedule.step_update(step)
        values = self.training_step(active, group, z_ids)
        if self.average is not None:
            self.average.update(self.parts, step)
        names = [loss.name for loss in active] + [f"{loss.name} critic" for loss in critics_of(active)]
        return PendingStep(step, group, names, values)

    def _read(self, pending: PendingStep, dataset: Dataset) -> dict[str, float]:
        """Wait for a step and return its unweighted losses by name. Raise UserError if one is not finite."""
        values = dict(zip(pending.names, self.world.all_reduce_mean(pending.losses()), strict=True))
        self._check_finite(pending.step, values, pending.group, dataset)
        return values

    def _check_finite(self, step: int, values: dict[str, float], group: list[SwapPixels], dataset: Dataset) -> None:
        """Raise UserError, with the loss and the batch, if a loss is not finite, before a checkpoint is written."""
        wrong = [name for name, value in values.items() if not np.isfinite(value)]
        if not wrong:
            return
        sources, targets = (torch.cat(indices).tolist() for indices in zip(*map(_indices, group), strict=True))
        pairs = list(zip(sources, targets, strict=True))
        names = [f"{dataset[source].name} -> {dataset[target].name}" for source, target in pairs[:8]]
        states = self.run.states(self.stage)
        last = f"the last good checkpoint is {states[-1]}" if states else "there is no checkpoint of this stage yet"
        raise UserError(
            f"{self.stage.name}: step {step + 1}: the loss {wrong[0]} is {values[wrong[0]]}; {last}; "
            f"try a lower learning rate or fp32; the batch: {', '.join(names)}{', ...' if len(pairs) > 8 else ''}"
        )

    def state(self) -> dict[str, Tensor]:
        """Return everything that changes in training, as tensors by name."""
        state = {f"model.{key}": value for key, value in self.parts.state_dict().items()}
        state |= {f"critic.{key}": value for key, value in self.critics.state_dict().items()}
        if self.average is not None:
            state |= {f"average.{key}": value for key, value in self.average.module.state_dict().items()}
        for name, optimizer in zip(OPTIMIZERS, self.optimizers, strict=False):
            state |= pack_optimizer(name, optimizer)
        return state

    def restore(self) -> int:
        """Restore the newest checkpoint, if there is one, and return the number of finished steps."""
        checkpoint = self.run.load_training_state(self.stage)
        if checkpoint is None:
            return 0
        step, state = checkpoint
        self.parts.load_state_dict(below("model", state))
        self.critics.load_state_dict(below("critic", state))
        if self.average is not None:
            self.average.module.load_state_dict(below("average", state))
        for name, optimizer in zip(OPTIMIZERS, self.optimizers, strict=False):
            unpack_optimizer(name, state, optimizer)
        return step

    def finish(self) -> None:
        """Write the stage's weights, with `ema` the averaged ones, and load them into the swapper.

        The file includes the weights of attribute encoder and generator if no stage trains them. These come from
        `init`, and the run must not depend on that file.
        """
        state = (self.parts if self.average is None else self.average.module).state_dict()
        trained = {name for stage in self.run.recipe.stages for name in stage.train}
        for name, part in self.swapper.trained_parts():
            if name in ("attributes", "generator") and name not in trained:
                state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        if self.world.first:
            self.run.finish(self.stage, state)
        self.world.barrier()
        load_weights(self.swapper, self.run.weights_file(self.stage))
        self.swapper.eval().requires_grad_(False)


class _Average(ModelEmaV3):
    """An exponential moving average with a smaller decay at first, so that short runs forget their start."""

    def get_decay(self, step: int | None = None) -> float:
        assert step is not None
        return min(self.decay, (1 + step) / (10 + step))


def _indices(batch: SwapPixels) -> tuple[Tensor, Tensor]:
    return batch.source.index, batch.target.index
