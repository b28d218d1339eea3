"""Losses against the formulas they claim, on small real networks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fsf_detectors.landmarks import BOX
from fsf_losses.dssim import ssim
from fsf_losses.identity import blur, jitter, recolour
from skimage import data
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.core.components import AttributeEncoder, ComponentOptions, Estimator, Generator, IdentityEncoder
from fsframework.core.part import part
from fsframework.core.registry import components
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult
from fsframework.faces.align import align, transform
from fsframework.media.tensor import to_tensor

SIZE = 32


class ColourIdentity(IdentityEncoder):
    """The mean colour, at unit length."""

    dim = 3

    def forward(self, faces: FaceBatch) -> Tensor:
        return F.normalize(faces.image.mean(dim=(2, 3)), dim=1)


class Halves(AttributeEncoder):
    """The image at half and at full size, times a weight that can train."""

    def __init__(self, options: ComponentOptions, size: int) -> None:
        super().__init__(options, size)
        self.channels = [3, 3]
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        return [self.scale * F.avg_pool2d(faces.image, 2), self.scale * faces.image]


class Copy(Generator):
    """The target, if `Halves` made the maps."""

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        return z_att[-1] / 2


@pytest.fixture
def swapper() -> Swapper:
    options = ComponentOptions()
    return Swapper(ColourIdentity(options), Halves(options, SIZE), Copy(options, SIZE, 3, [3, 3]))


@pytest.fixture
def batch() -> SwapBatch:
    torch.manual_seed(0)
    source, target = (FaceBatch.of(torch.rand(4, 3, SIZE, SIZE) * 2 - 1) for _ in range(2))
    same = torch.tensor([True, False, True, False])
    return SwapBatch(source, target, same, ground_truth=target.image, valid_mask=same[:, None, None, None].float())


def output(batch: SwapBatch, swapper: Swapper, image: Tensor) -> SwapResult:
    return SwapResult(image, image, swapper.identity(batch.source), swapper.attributes(batch.target))


def loss(name: str, **options: object) -> Any:
    torch.manual_seed(1)
    return part("losses", name, **options).build()


def test_dssim_is_the_published_one() -> None:
    one, other = (np.random.default_rng(seed).random((40, 48, 3)) for seed in (0, 1))
    other = 0.7 * one + 0.3 * other
    expected = structural_similarity(
        one, other, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None] for image in (one, other)]
    assert float(ssim(tensors[0], tensors[1], 1.5)) == pytest.approx(expected, abs=1e-6)


def test_dssim_looks_at_same_pairs_coarse_swaps(batch: SwapBatch, swapper: Swapper) -> None:
    coarse = batch.ground_truth.clone().requires_grad_()
    result = replace(output(batch, swapper, torch.zeros_like(coarse)), coarse=coarse)
    assert loss("dssim")(batch, result, swapper).item() == pytest.approx(0, abs=1e-6)
    other = torch.where(batch.same[:, None, None, None], batch.ground_truth, -batch.ground_truth)
    assert float(loss("dssim")(batch, replace(result, coarse=other), swapper)) == pytest.approx(0, abs=1e-6)
    worse = loss("dssim")(batch, replace(result, coarse=-coarse), swapper)
    assert 0.3 < worse.item() <= 1
    worse.backward()
    assert coarse.grad is not None and coarse.grad[1].abs().sum() == 0 < coarse.grad[0].abs().sum()
    nobody = replace(batch, same=torch.zeros_like(batch.same))
    assert loss("dssim")(nobody, result, swapper).item() == 0


def test_reconstruction_can_be_absolute_and_of_the_coarse_swap(batch: SwapBatch, swapper: Swapper) -> None:
    result = replace(output(batch, swapper, batch.ground_truth), coarse=batch.ground_truth + 0.5)
    assert float(loss("reconstruction", distance="absolute")(batch, result, swapper)) == 0
    found = loss("reconstruction", distance="absolute", target="coarse")(batch, result, swapper)
    assert float(found) == pytest.approx(0.5)
    assert float(loss("reconstruction", target="coarse")(batch, result, swapper)) == pytest.approx(0.125)


def test_real_faces_of_the_discriminator_are_not_warped(batch: SwapBatch, swapper: Swapper) -> None:
    gan = loss("hinge-gan", width=8, scales=1)
    result = output(batch, swapper, torch.zeros_like(batch.ground_truth))
    warped = replace(batch, target=replace(batch.target, image=batch.target.image.flip(2)))
    assert gan.critic(warped, result).item() == gan.critic(batch, result).item()


def test_masks_are_compared_with_the_truths(swapper: Swapper, expect_error: Callable[..., Any]) -> None:
    image = to_tensor(data.astronaut()[None, 20:212:3, 128:320:3].copy())
    hull = part("estimators", "hull-mask").build()
    hull.load()
    faces = FaceBatch.of(torch.zeros_like(image))
    batch = replace(SwapBatch.of(faces, faces), ground_truth=image)
    mask = loss("mask")
    mask.load()
    result = SwapResult(image, image, torch.zeros(1, 3), mask=hull(FaceBatch.of(image)))
    assert float(mask(batch, result, swapper)) < 1e-6
    empty = replace(result, mask=torch.zeros_like(image[:, :1]))
    expected = float(hull(FaceBatch.of(image)).square().mean())
    assert float(mask(batch, empty, swapper)) == pytest.approx(expected, rel=1e-4)
    with expect_error("the generator", kind=ValueError):
        mask(batch, replace(result, mask=None), swapper)


class LowerHalf(Estimator):
    """A mask of the lower half, and NaN for faces whose landmarks are unknown."""

    name = "lower-half"
    quantity = "mask"

    def forward(self, faces: FaceBatch) -> Tensor:
        mask = torch.zeros_like(faces.image[:, :1])
        mask[:, :, SIZE // 2 :] = 1
        unknown = faces.landmarks.isnan().any(dim=2).any(dim=1)
        return torch.where(unknown[:, None, None, None], torch.nan, mask)


def test_known_occluders_are_no_face(swapper: Swapper, batch: SwapBatch) -> None:
    mask = loss("mask")
    mask.mask = LowerHalf(ComponentOptions())
    landmarks = torch.zeros(4, 5, 2)
    landmarks[3] = torch.nan
    valid_mask = batch.valid_mask.expand(-1, -1, SIZE, SIZE).clone()
    valid_mask[1, :, :, : SIZE // 4] = 1  # an occluder, whose ground truth is the target itself
    valid_mask[1, :, :, -SIZE // 4 :] = 1  # a known swap, whose ground truth is another face
    ground_truth = batch.ground_truth.clone()
    ground_truth[1, :, :, -SIZE // 4 :] += 0.5
    batch = replace(batch, target=replace(batch.target, landmarks=landmarks), valid_mask=valid_mask)
    batch = replace(batch, ground_truth=ground_truth)
    painted = torch.full((4, 1, SIZE, SIZE), 0.75)
    result = replace(output(batch, swapper, batch.ground_truth), mask=painted)
    # Faces 0 and 2 have errors of 0.25 and 0.75 on half of the pixels each. A quarter of the face of 1 is occluded.
    expected = (2 * (0.25**2 + 0.75**2) / 2 + 0.25**2 * 3 / 8 + 0.75**2 * 5 / 8) / 3
    assert float(mask(batch, result, swapper)) == pytest.approx(expected, rel=1e-5)


def test_masks_are_compared_with_the_datas(swapper: Swapper, batch: SwapBatch) -> None:
    """The reference is all but `valid_mask`, on pairs of different images alone."""
    known = torch.zeros_like(batch.valid_mask)
    known[:, :, :10] = 1
    pairs = replace(batch, valid_mask=torch.where(batch.same[:, None, None, None], 1.0, known))
    assert batch.same.any() and not batch.same.all()
    mask = loss("mask", mask=None)
    mask.load()
    result = replace(output(batch, swapper, batch.ground_truth), mask=1 - known)
    assert float(mask(pairs, result, swapper)) == 0
    half = replace(result, mask=torch.full_like(known, 0.5))
    assert float(mask(pairs, half, swapper)) == pytest.approx(0.25)
    wrong = torch.where(batch.same[:, None, None, None], known, 1 - known)  # same pairs do not count
    assert float(mask(pairs, replace(result, mask=wrong), swapper)) == 0
    assert mask.reads_swap and not loss("mask", mask=None, network="refiner").reads_swap


def test_masks_of_a_data_set_without_any_are_refused(swapper: Swapper, batch: SwapBatch) -> None:
    mask = loss("mask", mask=None)
    same = batch.same[:, None, None, None]
    none = replace(batch, valid_mask=same.expand_as(batch.valid_mask).float())
    result = replace(output(batch, swapper, batch.ground_truth), mask=torch.ones_like(batch.valid_mask))
    with pytest.raises(ValueError, match="the data set has no masks; use one with masks"):
        mask(none, result, swapper)
    some = replace(batch, valid_mask=torch.ones_like(batch.valid_mask))
    assert float(mask(some, result, swapper)) == pytest.approx(1)
    assert float(mask(none, result, swapper)) == 0  # a face without occluders, after masks were seen


def test_masks_must_not_vanish_or_fray(swapper: Swapper, batch: SwapBatch) -> None:
    shape = loss("mask-shape", least=0.5, smooth=0.1)

    def cost(mask: Tensor) -> float:
        return float(shape(batch, replace(output(batch, swapper, batch.ground_truth), mask=mask), swapper))

    full = torch.ones(4, 1, SIZE, SIZE)
    assert cost(full) == 0
    assert cost(0.2 * full) == pytest.approx(0.3)
    striped = full.clone()
    striped[..., ::2] = 0.6
    assert cost(striped) == pytest.approx(0.1 * 0.4)


def test_attribute_is_half_the_squared_distance_over_levels(batch: SwapBatch, swapper: Swapper) -> None:
    image = torch.rand(4, 3, SIZE, SIZE)
    difference = 2 * (image - batch.target.image)
    expected = 0.5 * (F.avg_pool2d(difference, 2).square().mean() + difference.square().mean())
    torch.testing.assert_close(loss("attribute")(batch, output(batch, swapper, image), swapper), expected)


@pytest.mark.parametrize("detach", [False, True])
def test_attribute_of_the_target_can_be_a_constant(batch: SwapBatch, swapper: Swapper, detach: bool) -> None:
    image = torch.zeros(4, 3, SIZE, SIZE)  # whose maps are 0 whatever the encoder's weight is
    loss("attribute", detach=detach)(batch, output(batch, swapper, image), swapper).backward()
    assert (swapper.attributes.scale.grad != 0) == (not detach)


def test_identity_is_one_minus_cosine(batch: SwapBatch, swapper: Swapper) -> None:
    identity = loss("identity")
    swap = output(batch, swapper, batch.source.image)
    assert identity(batch, swap, swapper).abs() < 1e-6
    opposite = output(batch, swapper, -batch.source.image)
    torch.testing.assert_close(identity(batch, opposite, swapper), torch.tensor(2.0))


def test_identity_compares_by_its_own_encoder(batch: SwapBatch, swapper: Swapper) -> None:
    identity = loss("identity", encoder={"use": "lfw-recogniser"})
    identity.load()
    encoder = identity.train().encoder
    assert not encoder.training and not any(parameter.requires_grad for parameter in identity.parameters())
    wide = SwapBatch.of(FaceBatch.of(torch.rand(2, 3, 64, 64) * 2 - 1), FaceBatch.of(torch.rand(2, 3, 64, 64) * 2 - 1))
    image = torch.rand(2, 3, 64, 64).requires_grad_()
    found = identity(wide, SwapResult(image, image, torch.zeros(2, 3)), swapper)
    vectors = [encoder(FaceBatch.of(each)).detach().double().numpy() for each in (image, wide.source.image)]
    cosines = (vectors[0] * vectors[1]).sum(1) / np.linalg.norm(vectors[0], axis=1) / np.linalg.norm(vectors[1], axis=1)
    assert found.item() == pytest.approx(1 - cosines.mean(), abs=1e-6)
    found.backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_identity_refuses_an_encoder_without_metric(expect_error: Callable[..., Any]) -> None:
    encoder = next(
        name
        for name, cls in components("identity-encoders").items()
        if not (cls.metric and cls.differentiable)  # type: ignore[attr-defined]
    )
    with expect_error("identity: encoder"):
        loss("identity", encoder={"use": encoder})


def test_blur_is_gaussian_for_half_of_the_images() -> None:
    torch.manual_seed(0)
    images = torch.zeros(64, 1, 41, 41)
    images[:, :, 20, 20] = 1
    blurred = blur(images, 0.05)
    torch.testing.assert_close(blurred.sum(dim=(1, 2, 3)), torch.ones(64))
    squares = (torch.arange(41) - 20.0) ** 2
    deviations = (blurred.sum(dim=2)[:, 0] * squares).sum(dim=1).sqrt()  # of each image's columns
    assert 0.3 < float((deviations > 0).float().mean()) < 0.7
    assert float(deviations.max()) <= 0.05 * 41 and float(deviations.max()) > 0.7 * 0.05 * 41
    torch.testing.assert_close(blurred[deviations == 0], images[deviations == 0])
    torch.testing.assert_close(blur(torch.full((2, 3, 16, 16), 0.3), 0.05), torch.full((2, 3, 16, 16), 0.3))


def test_recolour_changes_half_of_the_images_within_its_bounds() -> None:
    torch.manual_seed(0)
    images = torch.full((64, 3, 4, 4), 0.5)
    changed = recolour(images, 0.2)
    share = (changed != images).flatten(1).any(dim=1).float().mean()
    assert 0.3 < float(share) < 0.7
    assert 0.5 * 0.8 - 0.2 <= float(changed.min()) < float(changed.max()) <= 0.5 * 1.2 + 0.2
    assert (changed.std(dim=(2, 3)) < 1e-6).all()  # the same for all pixels


@pytest.mark.parametrize("options", [{"blur": 0.02}, {"recolour": 0.2}])
def test_identity_reaches_the_image_through_its_augmentation(
    options: dict[str, float], batch: SwapBatch, swapper: Swapper
) -> None:
    image = batch.target.image.clone().requires_grad_()
    loss("identity", **options)(batch, output(batch, swapper, image), swapper).backward()
    assert image.grad is not None and (image.grad.flatten(1).abs().sum(dim=1) > 0).all()


def test_identity_reaches_the_image_through_the_jitter(batch: SwapBatch, swapper: Swapper) -> None:
    image = torch.rand(4, 3, SIZE, SIZE, requires_grad=True)
    loss("identity", shift=0.1, scale=0.1)(batch, output(batch, swapper, image), swapper).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_jitter_moves_and_mirrors_within_bounds() -> None:
    torch.manual_seed(0)
    column = torch.linspace(-1, 1, SIZE).repeat(200, 1, SIZE, 1)  # brightness tells the place
    moved = jitter(column, shift=0.1, scale=0.0)
    centre = moved[:, 0, SIZE // 2, SIZE // 2 - 1 : SIZE // 2 + 1].mean(dim=1)
    assert centre.abs().max() <= 0.2 * SIZE / (SIZE - 1) + 1e-5  # a shift of 0.1 sides is 0.2 of the grid
    assert centre.std() > 0.05
    rising = (moved[:, 0, 0, -1] > moved[:, 0, 0, 0]).float().mean()
    assert 0.35 < rising < 0.65
    torch.testing.assert_close(jitter(column, 0.0, 0.0).abs(), column.abs(), atol=1e-5, rtol=0)


def test_reconstruction_counts_same_pairs_only(batch: SwapBatch, swapper: Swapper) -> None:
    image = batch.target.image + torch.tensor([0.2, 9.0, 0.4, 9.0])[:, None, None, None]
    swap = output(batch, swapper, image)
    expected = 0.5 * (0.2**2 + 0.4**2)
    assert loss("reconstruction")(batch, swap, swapper).item() == pytest.approx(expected / 2, rel=1e-4)
    assert loss("reconstruction", region="all")(batch, swap, swapper).item() == pytest.approx(expected / 4, rel=1e-4)


def test_reconstruction_looks_wherever_the_truth_is_known(batch: SwapBatch, swapper: Swapper) -> None:
    known = torch.zeros(4, 1, SIZE, SIZE)
    known[0], known[1, :, :4] = 1, 1  # a same pair, an occluder of four rows; of the others nothing is known
    image = batch.target.image + torch.tensor([0.2, 0.6, 9.0, 9.0])[:, None, None, None]
    image[1, :, 4:] = 9.0
    found = loss("reconstruction", region="valid")(
        replace(batch, valid_mask=known), output(batch, swapper, image), swapper
    )
    assert found.item() == pytest.approx(0.5 * (0.2**2 + 0.6**2) / 2, rel=1e-4)


def test_reconstruction_without_same_pairs_is_zero(batch: SwapBatch, swapper: Swapper) -> None:
    other = SwapBatch.of(batch.source, batch.target)
    assert loss("reconstruction")(other, output(other, swapper, batch.source.image), swapper) == 0


def test_change_is_the_mean_absolute_difference(batch: SwapBatch, swapper: Swapper) -> None:
    swap = output(batch, swapper, batch.target.image)
    refined = SwapResult(swap.image + 0.25, swap.coarse, swap.z_id)
    assert loss("change")(batch, refined, swapper).item() == pytest.approx(0.25)


def test_hinge_gan_equals_the_formula(batch: SwapBatch, swapper: Swapper) -> None:
    gan = loss("hinge-gan", width=8, layers=2, scales=2)
    swap = output(batch, swapper, batch.source.image)
    scales = [(swap.image, batch.target.image), tuple(F.avg_pool2d(x, 2) for x in (swap.image, batch.target.image))]
    discriminators = list(gan.get_submodule("discriminators").children())
    fake, real = zip(*((d(f), d(r)) for d, (f, r) in zip(discriminators, scales, strict=True)), strict=True)
    expected = sum(F.relu(1 - r).mean() + F.relu(1 + f).mean() for f, r in zip(fake, real, strict=True)) / 2
    torch.testing.assert_close(gan.critic(batch, swap), expected)
    torch.testing.assert_close(gan(batch, swap, swapper), -sum(f.mean() for f in fake) / 2)


def test_relativistic_pairs_compare_a_swap_with_its_truth(batch: SwapBatch, swapper: Swapper) -> None:
    options = {"width": 8, "layers": 2, "scales": 1, "objective": "relativistic"}
    gan, matching = loss("hinge-gan", **options), loss("hinge-gan", **options, feature_matching_weight=3.0)
    swap = output(batch, swapper, batch.source.image)
    (discriminator,) = gan.get_submodule("discriminators").children()
    fake, real = discriminator(swap.image), discriminator(batch.target.image)
    torch.testing.assert_close(gan.critic(batch, swap), torch.log1p(torch.exp(fake - real)).mean())
    expected = torch.log1p(torch.exp(real - fake)).mean()
    torch.testing.assert_close(gan(batch, swap, swapper), expected)
    body = nn.Sequential(*list(discriminator.children())[:-1])
    distance = (body(swap.image) - body(batch.target.image)).abs().mean()
    torch.testing.assert_close(matching(batch, swap, swapper), expected + 3 * distance)


@pytest.mark.parametrize("which", ["r1", "r2"])
def test_penalties_approximate_the_squared_gradient_of_a_logit(batch: SwapBatch, swapper: Swapper, which: str) -> None:
    options = {"width": 8, "layers": 2, "scales": 1}
    gan, plain = loss("hinge-gan", **options, **{which: 2.0}), loss("hinge-gan", **options)
    swap = output(batch, swapper, batch.source.image * 0.5)
    penalised = (batch.ground_truth if which == "r1" else swap.image).clone().requires_grad_()
    (discriminator,) = gan.get_submodule("discriminators").children()
    norms = [
        torch.autograd.grad(logit, penalised, retain_graph=True)[0].square().sum()
        for logit in discriminator(penalised).flatten()
    ]
    torch.manual_seed(7)
    added = torch.stack([gan.critic(batch, swap) - plain.critic(batch, swap) for _ in range(40)]).mean()
    assert added.item() == pytest.approx(torch.stack(norms).mean().item(), rel=0.1)


def test_penalties_flatten_the_discriminator(batch: SwapBatch, swapper: Swapper) -> None:
    swap = output(batch, swapper, batch.source.image * 0.1)
    slopes = []
    for weight in (0.0, 1.0):
        gan = loss("hinge-gan", width=8, layers=2, scales=1, objective="relativistic", r1=weight, r2=weight)
        optimizer = torch.optim.Adam(gan.parameters(), lr=1e-2)
        for _ in range(20):
            optimizer.zero_grad()
            gan.critic(batch, swap).backward()
            optimizer.step()
        image = batch.ground_truth.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(gan.discriminate(image)[0][1].sum(), image)
        slopes.append(gradient.square().mean().item())
    assert slopes[1] < 0.3 * slopes[0]


def test_hinge_gan_learns_to_tell(batch: SwapBatch, swapper: Swapper) -> None:
    gan = loss("hinge-gan", width=8, layers=2, scales=2)
    swap = output(batch, swapper, batch.source.image * 0.1)
    optimizer = torch.optim.Adam(gan.parameters(), lr=1e-2)
    first = gan.critic(batch, swap).item()
    for _ in range(20):
        optimizer.zero_grad()
        gan.critic(batch, swap).backward()
        optimizer.step()
    assert gan.critic(batch, swap).item() < 0.2 * first


def test_matching_compares_what_the_last_layer_is_shown(batch: SwapBatch, swapper: Swapper) -> None:
    plain, matching = (loss("hinge-gan", width=8, layers=2, scales=2, feature_matching_weight=m) for m in (0.0, 3.0))
    matching.load_state_dict(plain.state_dict())
    swap = output(batch, swapper, batch.source.image)
    distances = []
    for scale, discriminator in enumerate(plain.get_submodule("discriminators").children()):
        shrunk = [F.avg_pool2d(x, 2) if scale else x for x in (swap.image, batch.target.image)]
        fake, real = (nn.Sequential(*list(discriminator.children())[:-1])(x) for x in shrunk)
        distances.append((fake - real).abs().mean())
    expected = plain(batch, swap, swapper) + 3 * torch.stack(distances).mean()
    torch.testing.assert_close(matching(batch, swap, swapper), expected)
    torch.testing.assert_close(matching.critic(batch, swap), plain.critic(batch, swap))
    copied = output(batch, swapper, batch.target.image)
    torch.testing.assert_close(matching(batch, copied, swapper), plain(batch, copied, swapper))


def test_landmarks_are_where_the_detector_sees_them_and_move_with_the_face(swapper: Swapper) -> None:
    landmarks = loss("landmarks", shift=0.0)
    landmarks.load()
    frame = data.astronaut()
    detector = part("detectors", "mtcnn").build()
    detector.load()
    (detected,) = detector([frame])[0]
    face = align(frame, detected, 64)
    image = to_tensor(face.image[None])
    left, top, width = BOX
    found = landmarks.points(image, BOX)[0] * width + torch.tensor([left, top])
    known = (transform(detected.landmarks, face.matrix) + 0.5) / 64
    assert (found.double() - torch.from_numpy(known)).norm(dim=1).max() < 0.02  # of the crop's side
    moved = image.roll(3, dims=3).requires_grad_(True)
    pair = SwapBatch.of(FaceBatch.of(image), FaceBatch.of(image))
    same = landmarks(pair, SwapResult(image, image, torch.zeros(1, 3)), swapper)
    apart = landmarks(pair, SwapResult(moved, moved, torch.zeros(1, 3)), swapper)
    assert same == 0
    assert apart.item() == pytest.approx(3 / 64 / width, rel=0.3)
    apart.backward()
    assert moved.grad is not None and moved.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in landmarks.parameters())  # else it would be trained as a critic


def heads(count: int) -> Tensor:
    """ORL faces as a batch."""
    faces = part("datasets", "orl").build(64, part("detectors", "mtcnn"), "train")
    faces.load()
    return to_tensor(np.stack([faces[place].image for place in np.linspace(0, 299, count).astype(int)]))


@pytest.mark.slow
def test_the_eyes_network_learns_landmarks_and_then_asks(swapper: Swapper) -> None:
    eyes = loss("eyes", learn=40)
    eyes.load()
    images = heads(32)
    faces = FaceBatch.of(images)
    batch = SwapBatch.of(faces, faces)
    turned = images.flip(3).requires_grad_()
    result = SwapResult(turned, turned, torch.zeros(32, 3))
    optimizer = torch.optim.Adam(eyes.net.parameters(), 2e-3)
    costs = []
    for step in range(60):
        asked = eyes(batch, result, swapper)
        assert (asked.item() == 0) == (step < 40)
        optimizer.zero_grad()
        term = eyes.critic(batch, result)
        term.backward()
        optimizer.step()
        costs.append(term.item())
    assert costs[-1] < 0.3 * costs[0] and costs[-1] < 0.08  # in units of the side
    eyes(batch, result, swapper).backward()
    assert turned.grad is not None and turned.grad.abs().sum() > 0
    kept = loss("eyes", learn=40)
    kept.load_state_dict(eyes.state_dict())
    assert int(kept.steps) == 60  # a run that goes on does not begin to learn again


def test_the_eyes_teacher_must_find_landmarks(expect_error: Callable[..., Any]) -> None:
    with expect_error("teacher", kind=ValueError):
        loss("eyes", teacher={"use": "pnp"})
