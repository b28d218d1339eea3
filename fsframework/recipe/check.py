"""Check that the networks of a recipe fit together, without memory, data or weights."""

from collections.abc import Sequence

import torch

from fsframework.core.bases import ClosedSetGenerator
from fsframework.core.components import IdentityEncoder, Network
from fsframework.core.errors import UserError
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.recipe.build import build, build_swapper, component_error_context
from fsframework.recipe.schema import Networks, Recipe


def check(recipe: Recipe) -> str:
    """Build all networks and losses on the meta device, pass a batch of 2 through, and return a summary of a few lines.

    Identity encoders and losses are built and not run.

    Raises
    ------
    UserError
        A part does not fit; the message contains its path in the recipe.
    """
    with torch.device("meta"), torch.no_grad():
        swapper = build_swapper(recipe)
        for stage_index, stage in enumerate(recipe.stages):
            _check_data(recipe, stage_index)
            for loss_index, loss in enumerate(stage.losses):
                build(f"stages.{stage_index}.losses.{loss_index}", loss)
        if isinstance(swapper.generator, ClosedSetGenerator):
            try:
                swapper.identity.required_match_threshold()
            except UserError as error:
                raise UserError(f"networks.identity: {error}") from None
        _run(recipe, swapper)
    lines = [f"{recipe.name}: {recipe.size} px"]
    for name in Networks.model_fields:
        if (part := getattr(recipe.networks, name)) is not None:
            millions = sum(p.numel() for p in getattr(swapper, name).parameters()) / 1e6
            lines.append(f"  {name:<10}  {part.name:<20}  {millions:8.2f} M parameters")
    lines += [
        f"  stage {stage.name}: trains {', '.join(stage.train)}; {stage.steps} steps of "
        f"{stage.batch_size * stage.accumulate} pairs; {', '.join(loss.name for loss in stage.losses)}"
        for stage in recipe.stages
    ]
    return "\n".join(lines)


def check_file(path_or_name: str, sets: Sequence[str] = ()) -> str:
    """Check a recipe file or name, with overrides; return the summary of `check`.

    Raises UserError with the file's name.
    """
    return loaded(path_or_name, sets)[1]


def loaded(path_or_name: str, sets: Sequence[str] = ()) -> tuple[Recipe, str]:
    """Load and check a recipe file or name, with overrides; return the recipe and the summary of `check`.

    Raises UserError with the file's name.
    """
    recipe = Recipe.load(path_or_name, sets)
    try:
        return recipe, check(recipe)
    except UserError as error:
        raise UserError(f"{path_or_name}: {error}") from error


def _check_data(recipe: Recipe, index: int) -> None:
    """Build the data set of a stage, without its files.

    Raises UserError for a wrapper without a data set, and for reversed pairs of a data set without swaps as targets.
    """
    stage = recipe.stages[index]
    where = f"stages.{index}.data" if stage.data is not None else "data"
    data = build(where, recipe.faces(stage.data), recipe.size, recipe.detector, "train")
    if stage.pairs.reversed > 0 and not data.is_reversible:
        advice = "wrap it: data: {use: swapped, model: NAME}"
        raise UserError(f"stages.{index}.pairs.reversed: the data set has no swaps as targets; {advice}")


class _AnyIdentity(IdentityEncoder):
    """Identity encoder with outputs of the right shape, for refiners that request a coarse swap."""

    def __init__(self, dim: int) -> None:
        Network.__init__(self, self.Options())
        self.dim = dim

    def forward(self, faces: FaceBatch) -> torch.Tensor:
        return torch.empty(len(faces.image), self.dim)


def _run(recipe: Recipe, built: Swapper) -> None:
    """Pass a batch of 2 through attribute encoder, generator and refiner.

    Raises UserError with the path of the network that fails.
    """
    networks, size = recipe.networks, recipe.size
    if networks.attributes is None or networks.generator is None:
        return
    swapper = Swapper(_AnyIdentity(built.identity.dim), built.attributes, built.generator, built.refiner)
    faces = FaceBatch.of(torch.empty(2, 3, size, size))
    batch = SwapBatch.of(faces, faces)
    with component_error_context("networks.attributes", networks.attributes):
        maps = swapper.attributes(faces)
        channels = [level.shape[1] for level in maps]
        if channels != list(built.attributes.channels):
            raise ValueError(f"it declares maps of {list(built.attributes.channels)} channels and returns {channels}")
    with component_error_context("networks.generator", networks.generator):
        output = swapper.generator(swapper.identity(faces), maps)
        _check_shape(output, size, (3, 4))
        coarse = swapper.coarse(batch, z_att=maps)
    if swapper.refiner is not None and networks.refiner is not None:
        with component_error_context("networks.refiner", networks.refiner):
            _check_shape(swapper.refiner(coarse, batch, swapper), size, (3,))


def _check_shape(image: torch.Tensor, size: int, channels: tuple[int, ...]) -> None:
    """Raise ValueError unless an output has the right shape for a batch of 2."""
    if image.shape not in [(2, count, size, size) for count in channels]:
        expected = f"(2, {' or '.join(map(str, channels))}, {size}, {size})"
        raise ValueError(f"it returns {tuple(image.shape)} for a batch of 2, and must return {expected}")
