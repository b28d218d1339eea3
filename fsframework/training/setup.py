"""What is done once, before a stage's first step: data sets prepare, faces are embedded, generators learn people."""

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

MOST_ONCE = 200_000  # faces that are embedded before training, which takes minutes, unless the recipe says otherwise


def prepare(run: Run, stage: Stage, swapper: Swapper, dataset: Dataset, world: World) -> Tensor | None:
    """Let the data set prepare, and embed every face once; both are kept with the run. The swapper goes into eval mode.

    Returns
    -------
    Embeddings (N, D), or None where sources are embedded in every step, or none is needed.
    """
    swapper.eval()
    file = run.prepared_file(stage)
    if not world.first:
        world.barrier()  # until the first process has written it
    if file.is_file():
        state = load_state(file)
        dataset.restore(_of_data(state))
    else:
        with torch.compiler.set_stance("force_eager"):  # what an earlier stage compiled is for its own batches
            state = {f"data.{key}": torch.from_numpy(value) for key, value in dataset.prepare(swapper).items()}
            dataset.restore(_of_data(state))
            if _embeds_once(stage, dataset):
                state["z_id"] = _embed(run, stage, swapper, dataset)
        save_state(file, state)
    if world.first:
        world.barrier()
    return state["z_id"].to(run.device) if "z_id" in state else None


def enroll(run: Run, stage: Stage, generator: Generator, dataset: Dataset, z_ids: Tensor | None) -> None:
    """Show the people of the data to a generator in training. Raises UserError if it cannot learn them."""
    named = run.recipe.networks.generator
    if "generator" not in stage.train or named is None or type(generator).enroll is Generator.enroll:
        return
    if z_ids is None:
        wanted = f"{named.name} learns people by the embeddings of all their faces; write true"
        raise UserError(f"stages.{run.recipe.stages.index(stage)}.precompute_embeddings: {wanted}")
    with component_error_context("networks.generator", named):
        generator.enroll(z_ids, torch.from_numpy(dataset.persons()).to(z_ids.device))


def _of_data(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in below("data", state).items()}


def _embeds_once(stage: Stage, dataset: Dataset) -> bool:
    """Whether all faces are embedded before the first step."""
    asked = stage.precompute_embeddings
    return stage.paints and (len(dataset) <= MOST_ONCE if asked == "auto" else asked)


@torch.no_grad()
def _embed(run: Run, stage: Stage, swapper: Swapper, dataset: Dataset) -> Tensor:
    """Embeddings of all faces (N, D): the sources' never change in training."""
    numbered = NumberedFaces(dataset)
    loader = DataLoader(numbered, batch_size=64, collate_fn=numbered.batch, num_workers=stage.workers)
    batches, found = iter(loader), []
    with progress(f"{stage.name}: embeddings", len(dataset), "faces") as ticker:
        for _ in range(len(loader)):
            faces = next_batch(batches)
            found.append(swapper.identity(faces.to(run.device)).float().cpu())
            ticker.advance(len(faces.image))
    return torch.cat(found)
