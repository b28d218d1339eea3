"""Take one step of training: forward and backward passes of both sides, and their optimizers."""

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
    """The training step of one stage, with an optimizer for the generator side and one for discriminators.

    Parameters
    ----------
    run, stage, world:
        The run, its stage, and the processes of the training.
    swapper, parts:
        The method, and the networks that the stage trains.
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
        self.generator_step = world.wrap_ddp(_DdpModule(parts, self.generator_loss))
        self.discriminator_step = world.wrap_ddp(_DdpModule(critics, self.discriminator_loss))
        self.optimizers = [o for o in (self.optimizer, self.critic_optimizer) if o is not None]
        self.recording: Recorded | None = None
        self.recorded_losses, self.recorded_group = 0, list[SwapPixels]()
        self.recorded_truth = False  # some batch had a separate ground truth
        self.records = self._wants_recording()
        self.frees = self._wants(
            "optimizer_in_backward", "several processes need all gradients at once, to average them"
        )

    def __call__(self, active: list[StageLoss], group: list[SwapPixels], z_ids: Tensor | None) -> Tensor:
        """Take one step and return the loss terms, then the critics' terms, (n,).

        Parameters
        ----------
        active:
            The losses of this step.
        group:
            Batches of the loader, whose gradients are averaged.
        z_ids:
            Embeddings of all faces (N, D); None: sources are embedded here.
        """
        if self.records:
            return self._replayed_step(active, group, z_ids)
        return self._eager_step(active, [batch.to(self.run.device) for batch in group], z_ids)

    def _wants_recording(self) -> bool:
        wanted = self._wants("cuda_graph", "steps of several processes are not recorded")
        return wanted and self.run.device.type == "cuda"

    def _wants(self, option: str, why_not: str) -> bool:
        """Return whether an option is set that needs a single process; print a note if there are several."""
        enabled, single = bool(getattr(self.stage, option)), self.world.size == 1
        if enabled and not single and self.world.first:
            print(f"note: {self.stage.name}: {option}: {why_not}", file=sys.stderr)
        return enabled and single

    def _optimizer(self, module: nn.Module, lr: float) -> torch.optim.Optimizer:
        settings = self.stage.optimizer
        betas = (float(settings.betas[0]), float(settings.betas[1]))
        return Adam(module.parameters(), lr=lr, betas=betas, weight_decay=settings.weight_decay)

    def _prepared(self, pixels: SwapPixels) -> SwapBatch:
        """Return a batch on the device as floats, in the stage's memory format."""
        batch = pixels.to_float()
        if not self.stage.channels_last:
            return batch
        source, target = (
            replace(faces, image=faces.image.contiguous(memory_format=torch.channels_last))
            for faces in (batch.source, batch.target)
        )
        return replace(batch, source=source, target=target)

    def _replayed_step(self, active: list[StageLoss], group: list[SwapPixels], z_ids: Tensor | None) -> Tensor:
        """Take a step by a CUDA graph, captured again when a loss sets in or a batch first has a ground truth."""
        appears = not self.recorded_truth and any(batch.ground_truth is not None for batch in group)
        self.recorded_truth = self.recorded_truth or appears
        if self.recorded_truth:  # the captured memory has one layout
            group = [batch.with_ground_truth() for batch in group]
        if self.recording is None or self.recorded_losses != len(active) or appears:
            self.recorded_losses = len(active)
            self.recorded_group = [batch.to(self.run.device) for batch in group]
            self.recording = Recorded(lambda: self._eager_step(active, self.recorded_group, z_ids), self.run.device)
        for captured, batch in zip(self.recorded_group, group, strict=True):
            captured.copy_(batch)
        for optimizer in self.optimizers:
            keep_rates(optimizer)
        return self.recording()

    def _eager_step(self, active: list[StageLoss], pixels: list[SwapPixels], z_ids: Tensor | None) -> Tensor:
        """Take a step eagerly and return the loss terms, then the critics' terms, (n,), means over the batches."""
        group = [self._prepared(batch) for batch in pixels]
        self.critics.requires_grad_(False)
        self.optimizer.zero_grad(set_to_none=True)
        outputs, values = [], []
        for number, batch in enumerate(group, 1):
            last = number == len(group)
            with no_sync(self.generator_step, last):
                total, terms, output = self.generator_step(active, batch, self._identities(batch, z_ids))
                with stepping(self.optimizer) if self.frees and last else nullcontext():
                    (total / len(group)).backward()
            outputs.append(_detached(output))
            values.append(terms)
        if self.stage.clip is not None:
            nn.utils.clip_grad_norm_(self.parts.parameters(), self.stage.clip)
        if not self.frees:
            self.optimizer.step()
        return torch.cat([torch.stack(values).mean(0), self._step_discriminators(critics_of(active), group, outputs)])

    def _identities(self, batch: SwapBatch, z_ids: Tensor | None) -> Tensor:
        """Return the sources' embeddings (B, D); D is 0 if a recogniser is trained."""
        if z_ids is not None:
            return z_ids[batch.source.index]
        if not self.stage.paints:
            return torch.zeros(len(batch.source.image), 0, device=self.run.device)
        with torch.no_grad():
            return cast(Tensor, self.swapper.identity(batch.source)).float()

    def _swap(self, batch: SwapBatch, z_id: Tensor, read: bool) -> SwapResult:
        """Return the swaps; if a recogniser is trained or no loss reads the swaps, the unchanged targets."""
        if self.stage.paints and read:
            result: SwapResult = self.swapper(batch, z_id)
            return result
        return SwapResult(image=batch.target.image, coarse=batch.target.image, z_id=z_id)

    def _step_discriminators(
        self, critics: list[StageLoss], group: list[SwapBatch], outputs: list[SwapResult]
    ) -> Tensor:
        if not critics or self.critic_optimizer is None:
            return torch.zeros(0, device=self.run.device)
        self.critics.requires_grad_(True)
        self.critic_optimizer.zero_grad(set_to_none=True)
        values = []
        for number, (batch, output) in enumerate(zip(group, outputs, strict=True), 1):
            with no_sync(self.discriminator_step, number == len(group)):
                total, terms = self.discriminator_step(critics, batch, output)
                (total / len(group)).backward()
            values.append(terms)
        self.critic_optimizer.step()
        return torch.stack(values).mean(0)

    def generator_loss(
        self, active: list[StageLoss], batch: SwapBatch, z_id: Tensor
    ) -> tuple[Tensor, Tensor, SwapResult]:
        """Return the weighted sum of the losses, the unweighted losses (n,), and the swaps."""
        with autocast(self.run.device, self.bf16):
            output = self._swap(batch, z_id, any(loss.module.reads_swap for loss in active))
            terms = [loss.generator_term(batch, output, self.swapper) for loss in active]
            weighted = [loss.module.options.weight * term for loss, term in zip(active, terms, strict=True)]
            total = cast(Tensor, sum(weighted))
        return total, torch.stack([term.detach().float() for term in terms]), output

    def discriminator_loss(
        self, critics: list[StageLoss], batch: SwapBatch, output: SwapResult
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of the critics' losses, and each of them (n,)."""
        with autocast(self.run.device, self.bf16):
            terms = [loss.critic_term(batch, output) for loss in critics]
        return torch.stack(terms).sum(), torch.stack([term.detach().float() for term in terms])


class _DdpModule(nn.Module):
    """Trained networks with a loss as forward pass, as DistributedDataParallel requires."""

    def __init__(self, trained: nn.Module, loss: Callable[..., Any]) -> None:
        super().__init__()
        self.trained, self.loss = trained, loss

    def forward(self, *values: Any) -> Any:
        return self.loss(*values)


def critics_of(active: list[StageLoss]) -> list[StageLoss]:
    """Return the losses with a critic."""
    return [loss for loss in active if loss.has_critic]


def _detached(output: SwapResult) -> SwapResult:
    mask = None if output.mask is None else output.mask.detach()
    return SwapResult(output.image.detach(), output.coarse.detach(), output.z_id, [], mask)
