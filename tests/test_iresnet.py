"""iresnet: insightface's names and sizes, reading and training it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fsf_identity.iresnet import IResNet
from fsf_losses.margin import Margin
from torch.nn import functional as F

from fsframework.core.part import part
from fsframework.core.types import FaceBatch
from fsframework.models.run import Run
from fsframework.recipe.schema import Recipe
from fsframework.training.trainer import train
from fsframework.utils.weights import save_state

MILLIONS = {18: 24.02, 34: 34.14, 50: 43.59, 100: 65.15}  # of weights, as insightface's table of models has them


def build(layers: int = 18, **options: object) -> IResNet:
    built: IResNet = part("identity-encoders", "iresnet", layers=layers, **options).build()
    return built


@pytest.mark.parametrize("layers", [18, 34, 50, 100])
def test_names_and_sizes_are_insightfaces(layers: int) -> None:
    with torch.device("meta"):
        network = build(layers)
        assert network(FaceBatch.of(torch.empty(2, 3, 64, 64))).shape == (2, 512)
    assert sum(value.numel() for value in network.parameters()) / 1e6 == pytest.approx(MILLIONS[layers], abs=0.02)
    names = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert names["conv1.weight"] == (64, 3, 3, 3) and names["prelu.weight"] == (64,)
    assert names["layer1.0.downsample.0.weight"] == (64, 64, 1, 1) and "layer1.1.downsample.0.weight" not in names
    assert names["layer4.0.conv2.weight"] == (512, 512, 3, 3) and names["layer3.1.prelu.weight"] == (256,)
    assert names["fc.weight"] == (512, 512 * 49) and names["features.running_mean"] == (512,)


def test_a_published_file_is_read_by_name(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    made = build()
    state = {name: value for name, value in made.state_dict().items() if "num_batches" not in name}
    for prefix in ("", "module.", "identity."):
        save_state(tmp_path / "r18.safetensors", {prefix + name: value for name, value in state.items()})
        read = build(weights=str(tmp_path / "r18.safetensors"))
        read.load()
        faces = FaceBatch.of(torch.rand(2, 3, 64, 64) * 2 - 1)
        assert torch.equal(read(faces), made(faces))
    torch.testing.assert_close(made(faces).norm(dim=1), torch.ones(2))
    with expect_error("r18.safetensors"):
        build(34, weights=str(tmp_path / "r18.safetensors")).load()


def test_gradients_reach_image_and_weights() -> None:
    network = build().train()
    image = torch.rand(2, 3, 64, 64, requires_grad=True)
    network(FaceBatch.of(image))[:, 0].sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    silent = [name for name, value in network.named_parameters() if value.grad is None]
    assert silent == ["features.weight"]


@pytest.mark.parametrize("kind", ["cosface", "arcface"])
def test_margins_are_the_published_ones(kind: str) -> None:
    torch.manual_seed(0)
    loss: Margin = part("losses", "margin", kind=kind, people=5, dim=8, margin=0.3, scale=10).build()
    embedding, person = F.normalize(torch.randn(6, 8), dim=1), torch.tensor([0, 1, 2, 3, 4, 2])
    cosines = embedding @ F.normalize(loss.directions.detach(), dim=1).T
    logits = cosines.clone()
    for row, who in enumerate(person.tolist()):
        angle = torch.arccos(cosines[row, who])
        logits[row, who] = cosines[row, who] - 0.3 if kind == "cosface" else torch.cos(angle + 0.3)
    expected = F.cross_entropy(10 * logits, person)
    torch.testing.assert_close(loss.term(embedding, person), expected, rtol=1e-4, atol=1e-5)


def test_the_recogniser_recipe_trains_it(tmp_path: Path) -> None:
    sets = [
        "size=32",
        "data={use: orl, people: [1, 2], test_people: [2]}",
        "networks.identity={use: iresnet, layers: 18}",
    ]
    sets += ["stages.0.losses=[{use: margin, kind: arcface, people: 4, dim: 512}]", "stages.0.steps=2"]
    run = Run.open(Recipe.load("recogniser", [*sets, "stages.0.batch_size=4"]), tmp_path / "run", device="cpu")
    train(run)
    file = run.weights_file(run.recipe.stages[0])
    read = build(weights=str(file))
    read.load()
    assert read(FaceBatch.of(torch.zeros(1, 3, 32, 32))).shape == (1, 512)
