"""One step of training: forward and backward passes of both sides, and their optimizers."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.data.collate import SwapPixels
from fsframework.models.run import Run
from fsframework.ops.precision import autocast, wants_bf16
from fsframework.recipe.schema import Stage
from fsframework.training.cuda_graph import Recorded, keep_rates
from fsframework.training.distributed import World, no_sync
from fsframework.training.losses import StageLoss
from fsframework.training.optim import Adam, stepping


class TrainingStep:
    """The step of one stage: networks and losses in training, with an optimizer for each side.

    Parameters
    ----------
    run, stage, world:
        As of `StageTrainer`.
    swapper, parts:
        The method, and those of its networks that the stage trains.
    losses:
        All losses of the stage.
    """

    def __init__(
        self, run: Run, stage: Stage, swapper: Swapper, parts: nn.ModuleDict, losses: Sequence[StageLoss], world: World
    ) -> None:
        self.run, self.stage, self.swapper, self.parts, self.world = run, stage, swapper, parts, world
        self.bf16 = wants_bf16(stage.precision, run.device, stage.name)
        self.optimizer = self._optimizer(parts, stage.optimizer.lr)
        self.critics = critics = nn.ModuleList(loss.module for loss in losses if loss.has_critic)
        critic_lr = stage.optimizer.critic_lr or stage.optimizer.lr
        self.critic_optimizer = self._optimizer(critics, critic_lr) if len(critics) else None
        self.objective = world.wrap_ddp(_DdpModule(parts, self.generator_loss))
        self.critique = world.wrap_ddp(_DdpModule(critics, self.discriminator_loss))
        self.optimizers = [o for o in (self.optimizer, self.critic_optimizer) if o is not None]
        self.recording: Recorded | None = None
        self.recorded_losses, self.recorded_group = 0, list[SwapPixels]()
        self.recorded_truth = False  # some batch had a ground truth of its own
        self.records = self._wants_recording()
        self.frees = self._wants(
            "optimizer_in_backward", "several processes need all gradients at once, to average them"
        )

    def __call__(self, active: list[StageLoss], group: list[SwapPixels], z_ids: Tensor | None) -> Tensor:
        """Take the step on batches of the loader and return the terms of the losses, then of the critics: (n,)."""
        if self.records:
            return self._recorded(active, group, z_ids)
        return self._descend(active, [batch.to(self.run.device) for batch in group], z_ids)

    def _wants_recording(self) -> bool:
        wanted = self._wants("cuda_graph", "steps of several processes are not recorded")
        return wanted and self.run.device.type == "cuda"

    def _wants(self, option: str, why_not: str) -> bool:
        """Whether an option that is for one process alone is asked for; say so where there are several."""
        asked, alone = bool(getattr(self.stage, option)), self.world.size == 1
        if asked and not alone and self.world.first:
            print(f"note: {self.stage.name}: {option}: {why_not}", file=sys.stderr)
        return asked and alone

    def _optimizer(self, module: nn.Module, lr: float) -> torch.optim.Optimizer:
        settings = self.stage.optimizer
        betas = (float(settings.betas[0]), float(settings.betas[1]))
        return Adam(module.parameters(), lr=lr, betas=betas, weight_decay=settings.weight_decay)

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
        return torch.cat([torch.stack(values).mean(0), self._critic_step(critics_of(active), group, outputs)])

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


class _DdpModule(nn.Module):
    """One side of a step as one forward pass, which is what DistributedDataParallel wants to see."""

    def __init__(self, trained: nn.Module, judge: Callable[..., Any]) -> None:
        super().__init__()
        self.trained, self.judge = trained, judge

    def forward(self, *values: Any) -> Any:
        return self.judge(*values)


def critics_of(active: list[StageLoss]) -> list[StageLoss]:
    return [loss for loss in active if loss.has_critic]


def _detached(output: SwapResult) -> SwapResult:
    mask = None if output.mask is None else output.mask.detach()
    return SwapResult(output.image.detach(), output.coarse.detach(), output.z_id, [], mask)
