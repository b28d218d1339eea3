"""Preparation before a stage's first step: prepare the data set, embed faces, enroll people."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fsframework.core.components import Dataset, Generator
from fsframework.core.errors import UserError
from fsframework.core.swapper import Swapper
from fsframework.data.train_pairs import NumberedFaces, next_batch
from fsframework.models.run import Run
from fsframework.recipe.build import component_error_context
from fsframework.recipe.schema import Stage
from fsframework.training.distributed import World
from fsframework.utils.progress import progress
from fsframework.utils.weights import below, load_state, save_state

MAX_PRECOMPUTED = 200_000  # faces up to which `precompute_embeddings: auto` embeds them before training, in minutes


def prepare(run: Run, stage: Stage, swapper: Swapper, dataset: Dataset, world: World) -> Tensor | None:
    """Prepare the data set and embed every face once, both cached in the run; set the swapper to eval mode.

    Returns
    -------
    Embeddings (N, D), or None if sources are embedded in every step, or no embeddings are needed.
    """
    swapper.eval()
    file = run.prepared_file(stage)
    if not world.first:
        world.barrier()  # wait until the first process has written the file
    if file.is_file():
        state = load_state(file)
        dataset.restore(_of_data(state))
    else:
        with torch.compiler.set_stance("force_eager"):  # an earlier stage compiled for its own batch sizes
            state = {f"data.{key}": torch.from_numpy(value) for key, value in dataset.prepare(swapper).items()}
            dataset.restore(_of_data(state))
            if _embeds_once(stage, dataset):
                state["z_id"] = _embed(run, stage, swapper, dataset)
        save_state(file, state)
    if world.first:
        world.barrier()
    return state["z_id"].to(run.device) if "z_id" in state else None


def enroll(run: Run, stage: Stage, generator: Generator, dataset: Dataset, z_ids: Tensor | None) -> None:
    """Enroll the people of the data in a generator that is trained. Raise UserError if that fails."""
    part = run.recipe.networks.generator
    if "generator" not in stage.train or part is None or type(generator).enroll is Generator.enroll:
        return
    if z_ids is None:
        reason = f"{part.name} enrolls people by the embeddings of all their faces; set it to true"
        raise UserError(f"stages.{run.recipe.stages.index(stage)}.precompute_embeddings: {reason}")
    with component_error_context("networks.generator", part):
        generator.enroll(z_ids, torch.from_numpy(dataset.persons()).to(z_ids.device))


def _of_data(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in below("data", state).items()}


def _embeds_once(stage: Stage, dataset: Dataset) -> bool:
    """Return whether all faces are embedded before the first step."""
    option = stage.precompute_embeddings
    return stage.paints and (len(dataset) <= MAX_PRECOMPUTED if option == "auto" else option)


@torch.no_grad()
def _embed(run: Run, stage: Stage, swapper: Swapper, dataset: Dataset) -> Tensor:
    """Return the embeddings of all faces (N, D) float32, which are constant in training."""
    numbered = NumberedFaces(dataset)
    loader = DataLoader(numbered, batch_size=64, collate_fn=numbered.batch, num_workers=stage.workers)
    batches, embeddings = iter(loader), []
    with progress(f"{stage.name}: embeddings", len(dataset), "faces") as ticker:
        for _ in range(len(loader)):
            faces = next_batch(batches)
            embeddings.append(swapper.identity(faces.to(run.device)).float().cpu())
            ticker.advance(len(faces.image))
    return torch.cat(embeddings)
