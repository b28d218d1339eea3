"""Measures against independent formulas and packages: gaze, sharpness, background, LPIPS, Fréchet distance."""

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fsf_benchmarks.background import Background
from fsf_benchmarks.expression_error import ExpressionError
from fsf_benchmarks.frechet import Frechet, distance
from fsf_benchmarks.gaze_error import GazeError
from fsf_benchmarks.perceptual import Perceptual
from fsf_benchmarks.pupils import TALL, WIDE, gaze, place, upright
from fsf_benchmarks.same_person import SamePerson
from fsf_benchmarks.sharpness import Sharpness, edges
from skimage.data import astronaut

from fsframework.core.components import Dataset
from fsframework.core.part import part
from fsframework.core.types import FaceBatch, Sample, SwapBatch, SwapResult
from fsframework.data.eval_pairs import same_identity_pairs
from fsframework.media.tensor import to_tensor

CROP = np.ascontiguousarray(astronaut()[20:212, 128:320])  # 192 px: a whole head
ONE = cv2.resize(CROP, (64, 64), interpolation=cv2.INTER_AREA)


def shown(targets: np.ndarray, swaps: np.ndarray) -> Iterable[tuple[SwapBatch, SwapResult]]:
    """Swaps (B, S, S, 3) uint8 of targets, as a benchmark gets them."""
    goal, image = to_tensor(targets), to_tensor(swaps)
    faces = FaceBatch(goal, torch.arange(len(goal)), torch.arange(len(goal)), torch.zeros(len(goal), 5, 2))
    return [(SwapBatch.of(faces, faces), SwapResult(image, image, torch.zeros(len(goal), 1)))]


# Gaze -------------------------------------------------------------------------------------------------------------


def eye(pupil: tuple[float, float], angle: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A drawn eye, 40 pixels wide, with a pupil `pupil` eye widths from its middle; and its corners, turned about."""
    image = np.full((120, 120), 200, np.uint8)
    middle, turn = np.array([60.0, 60.0]), cv2.getRotationMatrix2D((60, 60), -angle, 1)
    cv2.ellipse(image, (60, 60), (20, 10), 0, 0, 360, 240, -1)
    x, y = middle + 40 * np.array(pupil)
    cv2.circle(image, (round(x * 16), round(y * 16)), 6 * 16, 40, -1, cv2.LINE_AA, 4)
    left, right = (turn @ [middle[0] + side, middle[1], 1] for side in (-20, 20))
    return cv2.warpAffine(image, turn, (120, 120), borderValue=200), left, right


@pytest.mark.parametrize("pupil", [(0, 0), (0.15, 0), (-0.2, 0.02), (0.1, -0.05)])
@pytest.mark.parametrize("angle", [0, 25])
def test_a_drawn_pupil_is_found(pupil: tuple[float, float], angle: float) -> None:
    patch = upright(*eye(pupil, angle))
    assert patch.shape == (TALL, WIDE)
    assert place(patch) == pytest.approx(pupil, abs=0.03)


def test_gaze_is_the_mean_of_both_eyes_and_mirrors() -> None:
    points = np.zeros((68, 2))
    face = np.full((120, 240, 3), 200, np.uint8)
    for start, pupil, first in ((0, (0.1, 0), 36), (120, (0.2, 0.0), 42)):
        image, left, right = eye(pupil)
        face[:, start : start + 120] = image[..., None]
        points[first], points[first + 3] = left + np.array([start, 0]), right + np.array([start, 0])
    assert gaze(face, points) == pytest.approx([0.15, 0], abs=0.03)
    mirrored = points.copy()
    mirrored[[36, 39, 42, 45]] = [239, 0] + points[[45, 42, 39, 36]] * [-1, 1]
    assert gaze(np.ascontiguousarray(face[:, ::-1]), mirrored) == pytest.approx([-0.15, 0], abs=0.03)
    assert np.isnan(gaze(face, np.full((68, 2), np.nan))).all()


def test_an_eye_of_one_colour_is_the_middle() -> None:
    assert place(np.full((TALL, WIDE), 90, np.uint8)).tolist() == [0, 0]


def test_gaze_of_a_face_and_its_copy() -> None:
    benchmark = GazeError(GazeError.Options())
    benchmark.load()
    found = benchmark(shown(CROP[None], CROP[None]), Shown(1))
    assert found["gaze"].tolist() == [0]  # type: ignore[union-attr]
    assert 0 < found["noise"] < 0.4 and 0 <= found["noise_crop"] < 0.2


# Expression -------------------------------------------------------------------------------------------------------


def test_expression_reads_the_last_ten_numbers(shared: Path) -> None:
    files = {"weights": "3ddfa_v2_mb05_120x120.pt", "statistics": "3ddfa_v2_param_mean_std.npz"}
    options = {key: shared / "weights" / name for key, name in files.items()}
    estimator = part("estimators", "3ddfa-expression", **options)
    benchmark = ExpressionError(ExpressionError.Options(estimator=estimator))
    benchmark.load()
    found = benchmark(shown(np.stack([ONE, ONE]), np.stack([ONE, ONE[:, ::-1]])), Shown(2))
    assert found["expression"][0] == 0  # type: ignore[index]
    assert found["expression"][1] == pytest.approx(found["noise"])  # type: ignore[index]
    built: Any = benchmark.estimator
    faces = FaceBatch.of(to_tensor(ONE[None]))
    assert torch.equal(built(faces), built.deviations(faces.image)[:, 52:].double())


def test_an_estimator_of_something_else_is_refused(expect_error: Callable[..., Any]) -> None:
    with expect_error("expression-error: estimator pnp: "):
        ExpressionError(ExpressionError.Options(estimator=part("estimators", "pnp")))


# Sharpness, background ----------------------------------------------------------------------------------------------


def test_sharpness_is_a_share_of_the_targets() -> None:
    soft = cv2.GaussianBlur(ONE, (0, 0), 1.5)
    found = Sharpness(Sharpness.Options())(shown(np.stack([ONE, ONE, 0 * ONE]), np.stack([ONE, soft, ONE])), Shown(3))
    same, softer, flat = found["sharpness"]  # type: ignore[misc]
    assert same == 1 and softer < 0.5 and np.isnan(flat)


def test_edges_are_the_laplacian() -> None:
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] ** 2 // 64, 64, axis=0).repeat(3, axis=2)
    grey = cv2.cvtColor(ramp, cv2.COLOR_RGB2GRAY).astype(float)
    by_hand = np.abs(grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2])[16:54, 15:53].mean()
    assert edges(ramp) == pytest.approx(by_hand)


def test_background_looks_outside_the_face_only() -> None:
    benchmark = Background(Background.Options())
    benchmark.load()
    inside, outside = CROP.copy(), CROP.copy()
    inside[90:110, 90:110] = 0  # the nose
    outside[:20, :20] //= 2
    found = benchmark(shown(np.stack([CROP] * 3), np.stack([CROP, inside, outside])), Shown(3))
    same, nose, corner = found["background"]  # type: ignore[misc]
    mask = benchmark.mask(FaceBatch.of(to_tensor(CROP[None])))[0, 0].double().numpy()
    levels = np.abs(outside.astype(float) - CROP).mean(axis=2)
    assert same == 0 and nose < 0.01
    assert corner == pytest.approx((levels * (1 - mask)).sum() / (1 - mask).sum(), rel=1e-3)


# LPIPS ------------------------------------------------------------------------------------------------------------


def test_lpips_is_the_packages(tmp_path: Path) -> None:
    import lpips  # type: ignore[import-untyped]
    from safetensors.torch import save_file
    from torchvision.models import alexnet  # type: ignore[import-untyped]

    torch.manual_seed(0)
    network = alexnet(weights=None)
    file = tmp_path / "alex.safetensors"
    save_file(network.state_dict(), file)
    benchmark = Perceptual(Perceptual.Options(weights=file))
    benchmark.load()
    ours = benchmark(shown(np.stack([ONE, ONE]), np.stack([ONE, 255 - ONE])), Shown(2))["lpips"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    for number, layer in enumerate([0, 3, 6, 8, 10]):  # of torchvision's list; LPIPS has it in five slices
        getattr(theirs.net, f"slice{number + 1}")[-2].load_state_dict(network.features[layer].state_dict())
    with torch.no_grad():
        expected = theirs(to_tensor(255 - ONE[None]), to_tensor(ONE[None])).item()
    assert ours[0] == pytest.approx(0, abs=1e-6) and ours[1] == pytest.approx(expected, rel=1e-5)  # type: ignore[index]
    assert ours[1] > 0.01  # type: ignore[index]


def test_lpips_wants_its_network(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(2, 2)}, file)
    benchmark = Perceptual(Perceptual.Options(weights=file))
    with expect_error("other.safetensors: "):
        benchmark.load()
    missing = Perceptual(Perceptual.Options(weights=tmp_path / "nothing.pth"))
    with expect_error("nothing.pth: "):
        missing.load()


# Fréchet distance -------------------------------------------------------------------------------------------------


def test_frechet_distance_is_the_formula() -> None:
    from scipy.linalg import sqrtm  # type: ignore[import-untyped]

    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, (500, 6)) @ rng.normal(0, 1, (6, 6)), rng.normal(1, 2, (400, 6))
    first, second = np.cov(one.T), np.cov(other.T)
    apart = one.mean(axis=0) - other.mean(axis=0)
    expected = apart @ apart + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert distance(one, one) == pytest.approx(0, abs=1e-8)
    assert np.isnan(distance(one, other[:1]))


def test_frechet_distance_is_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.image.fid")

    class Means(torch.nn.Module):
        num_features = 6

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return torch.cat([pictures.float().mean(dim=(2, 3)), pictures.float().std(dim=(2, 3))], dim=1)

    rng = np.random.default_rng(0)
    real = torch.from_numpy(rng.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8))
    fake = torch.from_numpy((rng.integers(0, 256, (50, 3, 8, 8)) // 2).astype(np.uint8))
    extractor = Means()
    theirs = image.FrechetInceptionDistance(feature=extractor, input_img_size=(3, 8, 8))
    theirs.set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    ours = distance(extractor(fake).double().numpy(), extractor(real).double().numpy())
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-3)


class Shown(Dataset):
    """As many pictures of nobody, each another shade of the same head."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        image = np.clip(ONE.astype(int) + 12 * index, 0, 255).astype(np.uint8)
        return Sample(image, str(index), None, np.zeros((5, 2)))


def test_frechet_of_the_data_sets_own_pictures_is_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    benchmark = Frechet(Frechet.Options())
    benchmark.load()
    faces = Shown(4)
    own = np.stack([faces[place].image for place in range(4)])
    assert benchmark(shown(own, own), faces)["frechet"] == pytest.approx(0, abs=1e-4)
    assert benchmark(shown(own, 255 - own), faces)["frechet"] > 0.1


# Same person ------------------------------------------------------------------------------------------------------


def test_partners_are_other_pictures_of_the_person() -> None:
    class Named(Shown):
        def people(self) -> list[str | None]:
            return ["a", "b", "a", None, "a", "b"]

    assert same_identity_pairs(Named(6), [0, 1, 2, 3, 4, 5]) == [(2, 0), (5, 1), (4, 2), (3, 3), (0, 4), (1, 5)]


def test_same_person_wants_the_target_back() -> None:
    benchmark = SamePerson(SamePerson.Options())
    benchmark.load()
    targets = np.stack([CROP, CROP, CROP])
    goal = to_tensor(targets)
    places = torch.arange(3)
    target = FaceBatch(goal, torch.zeros(3, dtype=torch.int64), places, torch.zeros(3, 5, 2))
    source = FaceBatch(goal.flip(3), target.person, torch.tensor([1, 2, 2]), target.landmarks)  # the last one is alone
    swaps = to_tensor(np.stack([CROP, CROP // 2, CROP]))
    pair = SwapBatch.of(source, target), SwapResult(swaps, swaps, torch.zeros(3, 1))
    found = benchmark([pair], Shown(3))
    assert found["error"][0] == 0 and found["ssim"][0] == pytest.approx(1)  # type: ignore[index]
    assert 20 < found["error"][1] < 127 and found["ssim"][1] < 0.9  # type: ignore[index]
    assert np.isnan(found["error"][2]) and np.isnan(found["ssim"][2])  # type: ignore[index]
