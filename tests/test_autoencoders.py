"""Autoencoders with people inside: warps that are undone, shared encoders, decoders chosen by the source."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import skimage.data
import torch
from fsf_autoencoders.blocks import SelfAttention
from fsf_autoencoders.decoders import PersonDecoders
from fsf_autoencoders.deepfacelab import DflEncoder
from fsf_autoencoders.encoder import SharedEncoder
from fsf_autoencoders.random_warp import RandomWarp, warped
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.part import Part, part
from fsframework.core.types import FaceBatch, Sample, SwapBatch
from fsframework.data.collate import collate, collate_pairs, collate_pixels
from fsframework.data.train_pairs import mirrored
from fsframework.faces.align import template
from fsframework.models.run import Run
from fsframework.models.store import load
from fsframework.recipe.schema import Recipe
from fsframework.training.trainer import train
from fsframework.utils.weights import load_state

SIZE = 64
HEAD = skimage.data.astronaut()[20:212:3, 128:320:3]


class Head(Dataset):
    """One picture."""

    name = "head"
    image = HEAD

    def load(self) -> None:
        pass

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.image, "head", "eileen", template(SIZE))


@dataclass(frozen=True)
class HeadPart(Part):
    """Names `Head`, which no plugin registers."""

    def build(self, *sizes: Any) -> Head:
        return Head(ComponentOptions(), *sizes)


def warps(**options: float) -> RandomWarp:
    head = HeadPart("datasets", "head", ComponentOptions())
    data = RandomWarp(RandomWarp.Options(data=head, **options), SIZE, None, "train")
    data.load()
    return data


def test_the_truth_is_the_face_before_the_warp() -> None:
    sample = warps(turn=0, zoom=0, shift=0).target(0, np.random.default_rng(0))
    assert sample.ground_truth is not None
    np.testing.assert_array_equal(sample.ground_truth, HEAD)
    change = np.abs(sample.image.astype(int) - HEAD).mean()
    assert 2 < change < 30
    np.testing.assert_array_equal(sample.landmarks, template(SIZE))


def test_landmarks_follow_the_truth() -> None:
    data = warps(warp=0, turn=20, shift=0.1)
    marked = np.zeros_like(HEAD)
    for x, y in template(SIZE).round().astype(int):
        marked[y - 1 : y + 2, x - 1 : x + 2] = 255
    cast(Head, data.inner).image = marked
    for seed in range(5):
        sample = data.target(0, np.random.default_rng(seed))
        for x, y in sample.landmarks.round().astype(int):
            assert sample.image[y, x].min() > 100


def test_all_randomness_is_the_callers() -> None:
    one, same, other = (warps().target(0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.image, same.image)
    assert (one.image != other.image).any()
    np.testing.assert_array_equal(warped(HEAD, 0.0, np.random.default_rng(0)), HEAD)
    np.testing.assert_array_equal(warps()[0].image, HEAD)  # as a source it is not warped


def test_a_batch_holds_the_truth_and_mirrors_turn_it_too() -> None:
    sample = warps().target(0, np.random.default_rng(0))
    turned = mirrored(sample)
    assert sample.ground_truth is not None and turned.ground_truth is not None
    np.testing.assert_array_equal(turned.ground_truth, sample.ground_truth[:, ::-1])
    faces = collate_pixels([sample, sample], [0, 0], np.zeros(1, np.int64))
    batch = collate_pairs(faces, faces, [sample, mirrored(sample)]).to_float()
    assert not torch.equal(batch.ground_truth[0], batch.target.image[0])
    torch.testing.assert_close(batch.ground_truth[1], batch.ground_truth[0].flip(-1))


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("variant", ["deepfakes", "faceswap-gan"])
def test_encoder_and_decoders_fit_and_pass_gradients(size: int, variant: str) -> None:
    attention = variant == "faceswap-gan"
    torch.manual_seed(0)
    encoder = SharedEncoder(SharedEncoder.Options(width=0.125, attention=attention), size)
    options = PersonDecoders.Options(people=3, width=0.125, attention=attention, mask=attention)
    decoders = PersonDecoders(options, size, 8, encoder.channels)
    decoders.centres.copy_(torch.eye(8)[:3])
    images = torch.rand(4, 3, size, size, requires_grad=True)
    painted = decoders(torch.eye(8)[[2, 0, 2, 1]], encoder(FaceBatch.of(images)))
    assert painted.shape == (4, 4 if attention else 3, size, size)
    assert painted[:, :3].abs().max() <= 1
    if attention:
        assert painted[:, 3:].min() >= 0
    painted.square().mean().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    silent = [name for name, value in encoder.named_parameters() if value.grad is None]
    silent += [name for name, value in decoders.named_parameters() if value.grad is None]
    assert not silent


def test_layout_at_full_width() -> None:
    with torch.device("meta"):
        encoder = SharedEncoder(SharedEncoder.Options(), 64)
        decoders = PersonDecoders(PersonDecoders.Options(people=2), 64, 128, encoder.channels)
        z_att = encoder(FaceBatch.of(torch.empty(2, 3, 64, 64)))
        assert decoders(torch.empty(2, 128), z_att).shape == (2, 3, 64, 64)
    assert [tuple(level.shape) for level in z_att] == [(2, 512, 8, 8)]
    widths = [module.out_channels for module in encoder.down.modules() if isinstance(module, torch.nn.Conv2d)]
    assert widths == [128, 256, 512, 1024]
    assert encoder.squeeze.weight.shape == (1024, 16 * 1024)
    one = [module.out_channels for module in decoders.decoders[0].modules() if isinstance(module, torch.nn.Conv2d)]
    assert one == [4 * 256, 4 * 128, 4 * 64, 3]


def test_the_source_decides_who_paints() -> None:
    torch.manual_seed(0)
    decoders = PersonDecoders(PersonDecoders.Options(people=3, width=0.125), 32, 8, [8])
    decoders.centres.copy_(torch.eye(8)[:3])
    shared = torch.randn(4, 8, 8, 8)
    who = [2, 0, 2, 1]
    painted = decoders(torch.eye(8)[who], [shared])
    for row, person in enumerate(who):
        alone = torch.tanh(decoders.decoders[person](shared[row : row + 1]))
        torch.testing.assert_close(painted[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    painted[0].sum().backward()
    heard = [any(p.grad is not None and bool(p.grad.any()) for p in each.parameters()) for each in decoders.decoders]
    assert heard == [False, False, True]


def test_maps_of_another_encoder_are_refused(expect_error: Callable[..., Any]) -> None:
    with expect_error(kind=ValueError):
        PersonDecoders(PersonDecoders.Options(people=2), 64, 8, [8, 8])


def test_self_attention_starts_as_nothing_and_is_the_formula() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(16)
    x = torch.randn(2, 16, 3, 5)
    assert torch.equal(layer(x), x)
    torch.nn.init.constant_(layer.gamma, 0.7)

    def places(conv: torch.nn.Module) -> Tensor:
        return conv(x).flatten(2).double()  # type: ignore[no-any-return]

    weights = F.softmax(places(layer.query).transpose(1, 2) @ places(layer.key), dim=2)  # (B, places, places)
    seen = (places(layer.value) @ weights.transpose(1, 2)).reshape(x.shape)
    torch.testing.assert_close(layer(x), (x + 0.7 * seen).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("structure", ["dfl-df", "dfl-liae"])
def test_deepfacelabs_structures_fit_and_pass_gradients(size: int, structure: str) -> None:
    torch.manual_seed(0)
    encoder = DflEncoder(DflEncoder.Options(width=0.125), size)
    generator = part("generators", structure, people=3, width=0.125).build(size, 8, encoder.channels)
    generator.centres.copy_(torch.eye(8)[:3])
    images = torch.rand(4, 3, size, size, requires_grad=True)
    painted = generator(torch.eye(8)[[2, 0, 2, 1]], encoder(FaceBatch.of(images)))
    assert painted.shape == (4, 4, size, size)
    assert painted[:, :3].abs().max() <= 1 and painted[:, 3:].min() >= 0
    painted.square().mean().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert not [name for name, value in generator.named_parameters() if value.grad is None]


def test_layout_of_deepfacelab_at_full_width() -> None:
    with torch.device("meta"):
        encoder = DflEncoder(DflEncoder.Options(), 128)
        (code,) = encoder(FaceBatch.of(torch.empty(2, 3, 128, 128)))
        df = part("generators", "dfl-df", people=2).build(128, 128, encoder.channels)
        liae = part("generators", "dfl-liae", people=2).build(128, 128, encoder.channels)
    assert code.shape == (2, 512, 8, 8)
    assert df.shared.squeeze.weight.shape == (256, 512 * 64) and df.shared.spread.weight.shape == (256 * 64, 256)
    assert len(df.decoders) == 2 and len(liae.own) == 1
    faces = [layer.out_channels for layer in liae.decoder.face.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert faces == [2048, 512, 512, 1024, 256, 256, 512, 128, 128, 3]
    assert liae.decoder.face[0][0].in_channels == 512  # two codes of 256


def test_liae_tells_people_apart_by_their_code() -> None:
    torch.manual_seed(0)
    liae = part("generators", "dfl-liae", people=3, width=0.125).build(32, 8, [16])
    liae.centres.copy_(torch.eye(8)[:3])
    shared = torch.randn(3, 16, 2, 2)
    painted = liae(torch.eye(8)[[1, 0, 2]], [shared])
    common = liae.common(shared)
    first = liae.decoder(torch.cat([common[1:2], common[1:2]], dim=1))
    torch.testing.assert_close(painted[1:2], first, rtol=1e-4, atol=1e-5)
    third = liae.decoder(torch.cat([liae.own[1](shared[2:3]), common[2:3]], dim=1))
    torch.testing.assert_close(painted[2:3], third, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["deepfakes", "faceswap-gan", "deepfacelab-df", "deepfacelab-liae"])
def test_recipes_train(name: str, tmp_path: Path) -> None:
    changes = {"size": 32, "stages.0.steps": 2, "stages.0.batch_size": 4, "networks.generator.width": 0.125}
    changes["networks.attributes.width"] = 0.125
    recipe = Recipe.load(name, [f"{key}={value}" for key, value in changes.items()])
    run = Run.open(recipe, tmp_path / "run", device="cpu")
    train(run)
    losses = run.read_log()[-1]["losses"]
    assert all(np.isfinite(value) for value in losses.values()) and losses
    trained = load(tmp_path / "run", "cpu")
    assert trained.swapper.refiner is not None
    if name != "deepfakes":
        faces = FaceBatch.of(torch.zeros(1, 3, 32, 32))
        assert trained.swapper(SwapBatch.of(faces, faces)).mask is not None


def small(**sets: str) -> Recipe:
    changes = {"size": "32", "stages.0.steps": "3", "stages.0.batch_size": "4", "stages.0.ema": "null"}
    changes |= {"networks.attributes.width": "0.125", "networks.generator.width": "0.125"}
    return Recipe.load("deepfakes", [f"{key}={value}" for key, value in (changes | sets).items()])


def test_a_run_learns_its_people_and_keeps_them(tmp_path: Path) -> None:
    run = Run.open(small(), tmp_path / "run", device="cpu")
    train(run)
    trained = load(tmp_path / "run", "cpu")
    generator = trained.swapper.generator
    assert isinstance(generator, PersonDecoders) and trained.swapper.refiner is not None
    data = run.recipe.data.build(32, run.recipe.detector, "test")
    data.load()
    assert data.is_closed_set
    faces = collate([data[place] for place in range(len(data))], range(len(data)), np.zeros(len(data), np.int64))
    found = {row: person for person, rows in generator.people_of(trained.swapper.identity(faces)) for row in rows}
    right = sum(data.people()[int(row)] == f"s{person + 1}" for row, person in found.items())
    assert right >= 22  # of 24 pictures that nobody was enrolled by


def test_a_wrong_number_of_people_is_one_line(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    run = Run.open(small(**{"networks.generator.people": "5"}), tmp_path / "run", device="cpu")
    with expect_error("networks.generator: person-decoders: "):
        train(run)


def test_resume_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Run.open(small(**{"stages.0.checkpoint_every": "2"}), tmp_path / "whole", device="cpu")
    train(whole)
    halved = Run.open(small(**{"stages.0.checkpoint_every": "2"}), tmp_path / "halved", device="cpu")
    kept: Callable[..., None] = Run.finish

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        train(halved)
    monkeypatch.setattr(Run, "finish", kept)
    train(Run.open(halved.recipe, tmp_path / "halved", resume=True, device="cpu"))
    one, other = (load_state(run.weights_file(run.recipe.stages[0])) for run in (whole, halved))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert one["generator.centres"].any()
