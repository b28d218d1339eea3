"""Benchmarks that know the right answer: pictures swapped onto themselves, and occluders whose pixels are known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fsf_benchmarks.occlusion import Occlusion
from fsf_benchmarks.reconstruction import Reconstruction, signal_to_noise, similarity
from skimage.data import astronaut

from fsframework.core.components import Dataset
from fsframework.core.types import FaceBatch, Sample, SwapBatch, SwapResult
from fsframework.data.eval_pairs import EvaluationPairs
from fsframework.evaluation.evaluate import evaluate
from fsframework.media.image_io import write_image
from fsframework.media.tensor import to_tensor
from fsframework.models.run import Run

CROP = np.ascontiguousarray(astronaut()[60:124, 190:254])  # 64 px


def result(image: torch.Tensor) -> SwapResult:
    return SwapResult(image, image, torch.zeros(len(image), 1))


def test_similarity_of_equal_and_different_pictures() -> None:
    assert similarity(CROP, CROP) == pytest.approx(1)
    noisy = np.clip(CROP + np.random.default_rng(0).normal(0, 10, CROP.shape), 0, 255).astype(np.uint8)
    assert 0.3 < similarity(noisy, CROP) < 0.97
    assert similarity(255 - CROP, CROP) < 0.3


def test_similarity_is_the_formula_of_the_paper() -> None:
    """Two flat pictures: (2 a b + C1) / (a^2 + b^2 + C1), as their variances are 0."""
    a, b, c1 = 100.0, 140.0, (0.01 * 255) ** 2
    one, other = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 140, np.uint8)
    assert similarity(one, other) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-6)


def test_signal_to_noise() -> None:
    assert signal_to_noise(CROP, CROP) == 60
    assert signal_to_noise(np.full((8, 8, 3), 50, np.uint8), np.full((8, 8, 3), 60, np.uint8)) == pytest.approx(
        20 * np.log10(255 / 10)
    )


def test_reconstruction_measures_each_picture() -> None:
    truth = to_tensor(np.stack([CROP, CROP]))
    swapped = to_tensor(np.stack([CROP, 255 - CROP]))
    batch = SwapBatch.of(FaceBatch.of(truth), FaceBatch.of(truth))
    found = Reconstruction(Reconstruction.Options()).forward([(batch, result(swapped))], None)  # type: ignore[arg-type]
    assert found["ssim"][0] == pytest.approx(1) and found["ssim"][1] < 0.3  # type: ignore[index]
    assert found["psnr"][0] == 60 and found["psnr"][1] < 12  # type: ignore[index]


def test_occlusion_is_the_mean_difference_where_the_occluder_lies() -> None:
    target = to_tensor(np.full((3, 8, 8, 3), 100, np.uint8))
    batch = SwapBatch.of(FaceBatch.of(target), FaceBatch.of(target))
    batch.valid_mask[:2, :, :4] = 1  # the upper half; the third has no occluder
    swapped = np.full((3, 8, 8, 3), 100, np.uint8)
    swapped[0, :4] += 10
    swapped[1, 4:] += 30
    found = Occlusion(Occlusion.Options()).forward([(batch, result(to_tensor(swapped)))], None)  # type: ignore[arg-type]
    assert found["error"] == pytest.approx([10, 0, np.nan], abs=1e-4, nan_ok=True)
    assert found["error_rest"] == pytest.approx([0, 30, 0], abs=1e-4)


class Covering(Dataset):
    """Targets get a white corner, whose size the random numbers say."""

    def __init__(self) -> None:
        pass

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        return Sample(np.full((8, 8, 3), 10 * index, np.uint8), str(index), str(index), np.zeros((5, 2)))

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        sample, side = self[index], int(rng.integers(1, 7))
        known = np.zeros((8, 8), bool)
        known[:side, :side] = True
        image = np.where(known[..., None], 255, sample.image).astype(np.uint8)
        return Sample(image, sample.name, sample.person, sample.landmarks, known)


def test_targets_of_evaluations_are_altered_the_same_way_at_each_walk() -> None:
    pairs = EvaluationPairs(Covering(), [(0, 1), (2, 1), (2, 2)], 2)
    first, again = list(pairs), list(pairs)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.target.image, other.target.image) and torch.equal(one.valid_mask, other.valid_mask)
    assert first[0].source.image.max() < -0.8  # sources are not covered
    assert first[0].target.image.max() == 1 and 0 < first[0].valid_mask.mean() < 1
    assert torch.equal(first[1].source.image, first[1].target.image)  # a picture with itself: the altered one


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory, untrained_run: Callable[..., Run]) -> Run:
    benchmarks = [{"use": "reconstruction"}, {"use": "occlusion"}, {"use": "reconstruction"}]
    return untrained_run(tmp_path_factory.mktemp("truth") / "run", evaluation={"pairs": 5, "benchmarks": benchmarks})


def test_a_real_run_is_measured_where_the_truth_is_known(untrained: Run) -> None:
    metrics = evaluate(untrained).to_json()
    assert list(metrics["benchmarks"]) == ["reconstruction", "occlusion", "reconstruction 2"]
    assert metrics["benchmarks"]["reconstruction"] == metrics["benchmarks"]["reconstruction 2"]
    copies = metrics["baselines"]["copy-target"]
    assert copies["reconstruction"]["ssim"] == pytest.approx(1) and copies["reconstruction"]["psnr"] == 60
    assert copies["occlusion"]["error"] == copies["occlusion"]["error_rest"] == 0
    # Source and target are one picture, so copying either is perfect; the covered target is another picture.
    assert metrics["baselines"]["copy-source"]["reconstruction"]["ssim"] == pytest.approx(1)
    assert metrics["baselines"]["copy-source"]["occlusion"]["error"] > 20
    assert metrics["benchmarks"]["occlusion"]["error"] > 20  # it has learned nothing
    assert metrics["failures"]["occlusion"]["method"] <= 1


def test_data_of_other_faces_are_refused(untrained: Run, expect_error: Callable[..., Any]) -> None:
    run = Run.load(
        untrained.path, "cpu", ["evaluation.benchmarks=[{use: occlusion, data: {use: hard-examples, share: 0.1}}]"]
    )
    evaluate(run)  # without `prepare` it holds all faces
    few = "{use: face-folder, root: FOLDER, layout: aligned, test_share: 0.5, cache: FOLDER/cache}"
    folder = Path(untrained.path).parent / "few"
    for person in range(4):
        (folder / str(person)).mkdir(parents=True, exist_ok=True)
        write_image(folder / str(person) / "0.png", np.full((32, 32, 3), 50 * person, np.uint8), synthetic=False)
    other = few.replace("FOLDER", str(folder))
    run = Run.load(untrained.path, "cpu", [f"evaluation.benchmarks=[{{use: occlusion, data: {other}}}]"])
    with expect_error("occlusion: data: "):
        evaluate(run)
