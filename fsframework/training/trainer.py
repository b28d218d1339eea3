"""The one training loop of every method.

A step: the generator side descends the weighted sum of the stage's losses, then each loss that has parameters of its
own (a discriminator) descends its `critic`. Step k of stage s draws its randomness from (seed, s, k) alone and sample
numbers are fixed, so a run that is killed at any moment and resumed ends bit for bit where an undisturbed run ends
(on one kind of machine with the same number of threads).
"""

import sys
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, cast

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
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.data.collate import SwapPixels
from fsframework.data.train_pairs import TrainingPairs, next_batch
from fsframework.models import store
from fsframework.models.run import Run, load_weights
from fsframework.ops.allocator import retain_freed_memory
from fsframework.ops.precision import autocast, wants_bf16
from fsframework.recipe.build import build_swapper
from fsframework.recipe.schema import Recipe, Stage
from fsframework.training.cuda_graph import Recorded, keep_rates, recordable
from fsframework.training.distributed import ALONE, DistributedBatchSampler, World, no_sync
from fsframework.training.losses import StageLoss
from fsframework.training.optim import Adam, pack_optimizer, stepping, unpack_optimizer
from fsframework.training.setup import enroll, prepare
from fsframework.training.signals import stop_asked
from fsframework.training.tensorboard import TensorBoardLogger
from fsframework.training.timing import PendingStep, StepTimer
from fsframework.utils.progress import progress
from fsframework.utils.weights import below


def train(run: Run, world: World = ALONE, board: bool = False) -> None:
    """Train every stage that is not finished, in order, beside the other processes of a world.

    `board` writes curves for TensorBoard, too.

    Raises
    ------
    UserError
        A loss is not a number, a checkpoint cannot be written or read, or the data cannot be used.
    KeyboardInterrupt, SystemExit
        Ctrl-C or SIGTERM came; a checkpoint is written first.
    """
    retain_freed_memory()
    torch.manual_seed(run.recipe.seed)
    swapper = build_swapper(run.recipe)
    swapper.load()
    swapper.to(run.device)
    if world.size > 1 and run.device.type == "cuda":  # elsewhere torch has none: each process normalises its own share
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
            with torch.compiler.set_stance(stance):  # what an earlier stage compiled was compiled for that stage
                StageTrainer(run, stage, swapper, world).train(board and world.first)


def _start_from(swapper: Swapper, recipe: Recipe, init: str, keep: Collection[str]) -> None:
    """Load a stage's `init` into the networks that no earlier stage trained."""
    file = recipe.relative(init)
    model = store.find(file if file.is_file() else init)
    load_weights(swapper, model.file, model.sha256, keep)


class StageTrainer:
    """One stage in training: what changes with every step, and how it is saved and restored."""

    def __init__(self, run: Run, stage: Stage, swapper: Swapper, world: World = ALONE) -> None:
        self.run, self.stage, self.swapper, self.world = run, stage, swapper, world
        self.number = run.recipe.stages.index(stage)
        self.share = world.share(stage.batch_size, f"stages.{self.number}.batch_size")
        torch.manual_seed(self._seed(-1))
        self.losses = [self._loss(number, part) for number, part in enumerate(stage.losses)]
        self.parts = nn.ModuleDict({name: part for name, part in swapper.trained_parts() if name in stage.train})
        if stage.channels_last:
            for module in (swapper, *(loss.module for loss in self.losses)):
                module.to(memory_format=torch.channels_last)
        self.bf16 = wants_bf16(self.stage.precision, self.run.device, self.stage.name)
        swapper.eval().requires_grad_(False)
        self.parts.train().requires_grad_(True)
        self.average = _Average(self.parts, stage.ema, exclude_buffers=True) if stage.ema is not None else None
        self.optimizer = self._optimizer(self.parts, stage.optimizer.lr)
        self.critics = critics = nn.ModuleList(loss.module for loss in self.losses if loss.has_critic)
        critic_lr = stage.optimizer.critic_lr or stage.optimizer.lr
        self.critic_optimizer = self._optimizer(critics, critic_lr) if len(critics) else None
        self.objective = world.wrap_ddp(_DdpModule(self.parts, self.generator_loss))
        self.critique = world.wrap_ddp(_DdpModule(critics, self.discriminator_loss))
        self.optimizers = [o for o in (self.optimizer, self.critic_optimizer) if o is not None]
        self.schedules = [self._schedule(optimizer) for optimizer in self.optimizers]
        self.recording: Recorded | None = None
        self.recorded_losses, self.recorded_group = 0, list[SwapPixels]()
        self.recorded_truth = False  # some batch had a ground truth of its own
        self.records = self._wants_recording()
        self.frees = self._wants(
            "optimizer_in_backward", "several processes need all gradients at once, to average them"
        )
        self.lag = int(run.device.type == "cuda" and world.size == 1)  # steps that Python is ahead of the device
        if self.records:
            for optimizer in self.optimizers:
                recordable(optimizer)

    def _loss(self, number: int, part: Part) -> StageLoss:
        loss: Loss = part.build()
        loss.load()
        loss.to(self.run.device)
        has_critic = any(parameter.requires_grad for parameter in loss.parameters())
        return StageLoss(loss, part, f"stages.{self.number}.losses.{number}", has_critic)

    def _seed(self, step: int) -> int:
        """The seed of one step; -1 stands for the stage's start, which is the same in all processes."""
        words = [self.run.recipe.seed, self.number, step + 1]
        if step >= 0 and not self.world.first:
            words.append(self.world.rank)
        return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _wants_recording(self) -> bool:
        wanted = self._wants("cuda_graph", "steps of several processes are not recorded")
        return wanted and self.run.device.type == "cuda"

    def _wants(self, option: str, why_not: str) -> bool:
        """Whether an option that is for one process alone is asked for; say so where there are several."""
        asked, alone = bool(getattr(self.stage, option)), self.world.size == 1
        if asked and not alone and self.world.first:
            print(f"note: {self.stage.name}: {option}: {why_not}", file=sys.stderr)
        return asked and alone

    def _compile(self) -> None:
        """Compile the networks that say they can be, frozen ones too; say which are left as they are."""
        for name, part in {"identity": self.swapper.identity, **dict(self.swapper.trained_parts())}.items():
            if getattr(part, "traceable", False):
                part.compile()
            else:
                kept = f"the {name} {getattr(part, 'name', '')} is not traceable and stays as it is"
                print(f"note: {self.stage.name}: compile: {kept}", file=sys.stderr)

    def _optimizer(self, module: nn.Module, lr: float) -> torch.optim.Optimizer:
        settings = self.stage.optimizer
        betas = (float(settings.betas[0]), float(settings.betas[1]))
        return Adam(module.parameters(), lr=lr, betas=betas, weight_decay=settings.weight_decay)

    def _schedule(self, optimizer: torch.optim.Optimizer) -> Scheduler:
        settings, steps = self.stage.schedule, self.stage.steps
        warmup: dict[str, Any] = {"warmup_t": settings.warmup, "warmup_lr_init": 0.0, "t_in_epochs": False}
        if settings.kind == "cosine":
            return CosineLRScheduler(optimizer, t_initial=steps, warmup_prefix=False, **warmup)
        return StepLRScheduler(optimizer, decay_t=steps + 1, **warmup)

    def train(self, board: bool = False) -> None:
        """Train from the newest checkpoint, or from the start, to the end of the stage."""
        run, stage = self.run, self.stage
        done = self.restore()
        if self.world.first:
            run.trim_log(stage, done)
        dataset = run.recipe.faces(stage.data).build(run.recipe.size, run.recipe.detector, "train")
        dataset.load()
        if len(dataset) < 2:
            raise UserError(f"stages.{self.number}: training needs at least 2 faces, the data hold {len(dataset)}")
        z_ids = prepare(run, stage, self.swapper, dataset, self.world)
        self.parts.train()
        enroll(run, stage, self.swapper.generator, dataset, z_ids)
        if stage.compile:
            self._compile()  # now, since preparing sees batches of other sizes
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
        running: list[PendingStep] = []  # steps whose losses were not read yet
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
                asked = self.world.all_reduce_mean([float(stop.asked)]) != [
                    0.0
                ]  # all processes stop after the same step
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
                    stop.leave(f"stopped after step {step + 1} of {stage.name}; --resume goes on from there")
        self.finish()
        if stop.asked:  # in the last step
            stop.leave(f"stopped after {stage.name}, which is finished; --resume goes on from there")

    def _prepared(self, pixels: SwapPixels) -> SwapBatch:
        """Return a batch of the loader, which is on the device, as networks take it."""
        batch = pixels.to_float()
        if not self.stage.channels_last:
            return batch
        source, target = (
            replace(faces, image=faces.image.contiguous(memory_format=torch.channels_last))
            for faces in (batch.source, batch.target)
        )
        return replace(batch, source=source, target=target)

    def step(self, step: int, group: list[SwapPixels], z_ids: Tensor | None) -> PendingStep:
        """Let the device take one step on some batches of the loader, whose gradients are averaged."""
        torch.manual_seed(self._seed(step))
        active = [loss for loss in self.losses if step >= loss.module.options.start]
        for schedule in self.schedules:
            schedule.step_update(step)
        if self.records:
            values = self._recorded(active, group, z_ids)
        else:
            values = self._descend(active, [batch.to(self.run.device) for batch in group], z_ids)
        if self.average is not None:
            self.average.update(self.parts, step)
        names = [loss.name for loss in active] + [f"{loss.name} critic" for loss in _critics_of(active)]
        return PendingStep(step, group, names, values)

    def _read(self, launched: PendingStep, dataset: Dataset) -> dict[str, float]:
        """Every unweighted loss of a step, once the device has taken it. Raises UserError if one is no number."""
        found = dict(zip(launched.names, self.world.all_reduce_mean(launched.losses()), strict=True))
        self._check_finite(launched.step, found, launched.group, dataset)
        return found

    def _recorded(self, active: list[StageLoss], group: list[SwapPixels], z_ids: Tensor | None) -> Tensor:
        """`_descend` by a recording, which is made anew when another loss or the first own ground truth sets in."""
        sets_in = not self.recorded_truth and any(batch.ground_truth is not None for batch in group)
        self.recorded_truth = self.recorded_truth or sets_in
        if self.recorded_truth:  # the memory of a recording is of one layout
            group = [batch.with_ground_truth() for batch in group]
        if self.recording is None or self.recorded_losses != len(active) or sets_in:
            self.recorded_losses = len(active)
            self.recorded_group = [batch.to(self.run.device) for batch in group]
            self.recording = Recorded(lambda: self._descend(active, self.recorded_group, z_ids), self.run.device)
        for kept, batch in zip(self.recorded_group, group, strict=True):
            kept.copy_(batch)
        for optimizer in self.optimizers:
            keep_rates(optimizer)
        return self.recording()

    def _descend(self, active: list[StageLoss], pixels: list[SwapPixels], z_ids: Tensor | None) -> Tensor:
        """Take the step. Return the terms of the losses and then those of the critics, (n,), means over the batches."""
        group = [self._prepared(batch) for batch in pixels]
        self.critics.requires_grad_(False)
        self.optimizer.zero_grad(set_to_none=True)
        outputs, values = [], []
        for number, batch in enumerate(group, 1):
            last = number == len(group)
            with no_sync(self.objective, last):
                total, terms, output = self.objective(active, batch, self._identities(batch, z_ids))
                with stepping(self.optimizer) if self.frees and last else nullcontext():
                    (total / len(group)).backward()
            outputs.append(_detached(output))
            values.append(terms)
        if self.stage.clip is not None:
            nn.utils.clip_grad_norm_(self.parts.parameters(), self.stage.clip)
        if not self.frees:
            self.optimizer.step()
        return torch.cat([torch.stack(values).mean(0), self._critic_step(_critics_of(active), group, outputs)])

    def _identities(self, batch: SwapBatch, z_ids: Tensor | None) -> Tensor:
        """The embeddings (B, D) of the sources of a batch; of no length where a recogniser is trained."""
        if z_ids is not None:
            return z_ids[batch.source.index]
        if not self.stage.paints:
            return torch.zeros(len(batch.source.image), 0, device=self.run.device)
        with torch.no_grad():
            return cast(Tensor, self.swapper.identity(batch.source)).float()

    def _swap(self, batch: SwapBatch, z_id: Tensor) -> SwapResult:
        """The swaps; where a recogniser is trained, the targets as they are and embeddings of no length."""
        if self.stage.paints:
            result: SwapResult = self.swapper(batch, z_id)
            return result
        return SwapResult(image=batch.target.image, coarse=batch.target.image, z_id=z_id)

    def _critic_step(self, critics: list[StageLoss], group: list[SwapBatch], outputs: list[SwapResult]) -> Tensor:
        if not critics or self.critic_optimizer is None:
            return torch.zeros(0, device=self.run.device)
        self.critics.requires_grad_(True)
        self.critic_optimizer.zero_grad(set_to_none=True)
        values = []
        for number, (batch, output) in enumerate(zip(group, outputs, strict=True), 1):
            with no_sync(self.critique, number == len(group)):
                total, terms = self.critique(critics, batch, output)
                (total / len(group)).backward()
            values.append(terms)
        self.critic_optimizer.step()
        return torch.stack(values).mean(0)

    def generator_loss(
        self, active: list[StageLoss], batch: SwapBatch, z_id: Tensor
    ) -> tuple[Tensor, Tensor, SwapResult]:
        """The weighted sum of the losses, each of them (n,), and the swaps."""
        with autocast(self.run.device, self.bf16):
            output = self._swap(batch, z_id)
            terms = [loss.generator_term(batch, output, self.swapper) for loss in active]
            weighted = [loss.module.options.weight * term for loss, term in zip(active, terms, strict=True)]
            total = cast(Tensor, sum(weighted))
        return total, torch.stack([term.detach().float() for term in terms]), output

    def discriminator_loss(
        self, critics: list[StageLoss], batch: SwapBatch, output: SwapResult
    ) -> tuple[Tensor, Tensor]:
        """The sum of the critics' terms, and each of them (n,)."""
        with autocast(self.run.device, self.bf16):
            terms = [loss.critic_term(batch, output) for loss in critics]
        return torch.stack(terms).sum(), torch.stack([term.detach().float() for term in terms])

    def _check_finite(self, step: int, values: dict[str, float], group: list[SwapPixels], dataset: Dataset) -> None:
        """Raises UserError, which names the loss and the batch, before bad numbers reach a checkpoint."""
        wrong = [name for name, value in values.items() if not np.isfinite(value)]
        if not wrong:
            return
        sources, targets = (torch.cat(places).tolist() for places in zip(*map(_places, group), strict=True))
        pairs = list(zip(sources, targets, strict=True))
        shown = [f"{dataset[source].name} -> {dataset[target].name}" for source, target in pairs[:8]]
        states = self.run.states(self.stage)
        kept = f"the last good checkpoint is {states[-1]}" if states else "there is no checkpoint of this stage yet"
        raise UserError(
            f"{self.stage.name}: step {step + 1}: the loss {wrong[0]} is {values[wrong[0]]}; {kept}; "
            f"try a lower learning rate or fp32; the batch: {', '.join(shown)}{', ...' if len(pairs) > 8 else ''}"
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that changes in training, as tensors by name."""
        state = {f"model.{key}": value for key, value in self.parts.state_dict().items()}
        state |= {f"critic.{key}": value for key, value in self.critics.state_dict().items()}
        if self.average is not None:
            state |= {f"average.{key}": value for key, value in self.average.module.state_dict().items()}
        state |= pack_optimizer("optimizer", self.optimizer)
        if self.critic_optimizer is not None:
            state |= pack_optimizer("critic_optimizer", self.critic_optimizer)
        return state

    def restore(self) -> int:
        """Take the newest checkpoint, if there is one. Returns how many steps are done."""
        found = self.run.load_training_state(self.stage)
        if found is None:
            return 0
        step, state = found
        self.parts.load_state_dict(below("model", state))
        self.critics.load_state_dict(below("critic", state))
        if self.average is not None:
            self.average.module.load_state_dict(below("average", state))
        unpack_optimizer("optimizer", state, self.optimizer)
        if self.critic_optimizer is not None:
            unpack_optimizer("critic_optimizer", state, self.critic_optimizer)
        return step

    def finish(self) -> None:
        """Write the stage's weights (averaged, where the recipe says so) and go on with them.

        Beside them stand the weights of encoder and generator if no stage trains them: they came by `init`, from a
        file that the run must not need again.
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
    """An exponential moving average with less memory at first, so that a short run does not keep its random start."""

    def get_decay(self, step: int | None = None) -> float:
        assert step is not None
        return min(self.decay, (1 + step) / (10 + step))


class _DdpModule(nn.Module):
    """One side of a step as one forward pass, which is what DistributedDataParallel wants to see."""

    def __init__(self, trained: nn.Module, judge: Callable[..., Any]) -> None:
        super().__init__()
        self.trained, self.judge = trained, judge

    def forward(self, *values: Any) -> Any:
        return self.judge(*values)


def _critics_of(active: list[StageLoss]) -> list[StageLoss]:
    return [loss for loss in active if loss.has_critic]


def _places(batch: SwapPixels) -> tuple[Tensor, Tensor]:
    return batch.source.index, batch.target.index


def _detached(output: SwapResult) -> SwapResult:
    mask = None if output.mask is None else output.mask.detach()
    return SwapResult(output.image.detach(), output.coarse.detach(), output.z_id, [], mask)
