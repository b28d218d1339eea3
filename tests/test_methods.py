"""Every recipe that swaps: its networks fit, paint, and pass gradients to all that a stage trains, at two sizes."""

import pytest
import skimage.data
import torch
from torch.nn import functional as F

from fsframework.core.bases import ClosedSetGenerator
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.media.tensor import to_tensor
from fsframework.recipe.build import build_swapper
from fsframework.recipe.schema import Recipe, shipped

METHODS = [name for name in shipped() if Recipe.load(name).networks.generator is not None]


def narrow(name: str, size: int) -> Recipe:
    """A recipe at another size, with an eighth of the channels."""
    recipe = Recipe.load(name)
    sets = [f"size={size}"]
    for part in ("attributes", "generator", "refiner"):
        named = getattr(recipe.networks, part)
        if named is not None and "width" in type(named.options).model_fields:
            sets.append(f"networks.{part}.width=0.125")
        if named is not None and "people" in type(named.options).model_fields:
            sets.append(f"networks.{part}.people=2")
    return Recipe.load(name, sets)


def test_all_methods_are_here() -> None:
    assert {"faceshifter", "deepfakes", "faceswap-gan", "deepfacelab-df", "deepfacelab-liae", "faceswap", "nirkin"} <= {
        *METHODS
    }


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_paints_and_passes_gradients(name: str, size: int) -> None:
    torch.manual_seed(0)
    recipe = narrow(name, size)
    swapper = build_swapper(recipe)
    swapper.load()
    swapper.eval()
    head = F.interpolate(to_tensor(skimage.data.astronaut()[None, 20:212, 128:320].copy()), size=(size, size))
    images = torch.cat([head, head.flip(2).clamp(-0.5, 1)])  # another face, or none: who it is does not matter
    faces = FaceBatch.of(images)
    batch = SwapBatch.of(faces, FaceBatch.of(images.flip(0)))
    z_id = swapper.identity(faces)
    if isinstance(swapper.generator, ClosedSetGenerator):
        swapper.generator.enroll(z_id, torch.arange(2))
    result = swapper(batch, z_id)
    for image in (result.image, result.coarse):
        assert image.shape == (2, 3, size, size) and image.isfinite().all() and image.abs().max() <= 1.001
    total = result.image.square().mean() + result.coarse.square().mean()
    if result.mask is not None:
        total = total + result.mask.mean()
    trained = {part for stage in recipe.stages for part in stage.train}
    if name in ("nirkin", "segmenter"):  # what is trained is the mask of its refiner, by a loss on that mask
        total = total + swapper.refiner.mask(batch.target).mean()  # type: ignore[operator,union-attr]
    if not trained:
        return
    total.backward()
    parts = dict(swapper.trained_parts())
    for part in trained:
        gradients = [value.grad for value in parts[part].parameters()]
        assert all(gradient is not None for gradient in gradients), part
        assert any(bool(gradient.any()) for gradient in gradients if gradient is not None), part
