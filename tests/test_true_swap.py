"""Swaps that are known: how they reach batches, and what is measured with them; estimators on known poses."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fsf_benchmarks.known_pose import KnownPose, by_yaw
from fsf_benchmarks.true_swap import TrueSwap, mean, toned

from fsframework.core.components import Dataset
from fsframework.core.part import part
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.data.eval_pairs import EvaluationPairs, draw_pairs
from fsframework.evaluation.evaluate import bench, evaluate
from fsframework.media.tensor import to_images, to_tensor
from fsframework.models.run import Run


def heads(split: str = "all", name: str = "rendered-heads", **options: Any) -> Dataset:
    made: Dataset = part("datasets", name, **options).build(64, None, split)
    made.load()
    return made


@pytest.fixture(scope="module")
def few() -> Dataset:
    return heads(people=4, pictures=2)


def test_the_true_swap_reaches_the_batch(few: Dataset) -> None:
    pairs = [(0, 3), (2, 2), (2, 3), (5, 0), (1, 6)]
    batches = list(EvaluationPairs(few, pairs, 3))
    truth = np.concatenate([to_images(batch.ground_truth) for batch in batches])
    for row, pair in enumerate(pairs):
        swap = few.ground_truth_swap(*pair)
        assert swap is not None
        np.testing.assert_array_equal(truth[row], swap.image)
    assert all((batch.valid_mask == 1).all() for batch in batches)
    first = batches[0]
    np.testing.assert_array_equal(to_images(first.target.image)[0], few[3].image)  # the target is as it was
    assert torch.equal(first.ground_truth[1:], first.target.image[1:])  # the same picture, the same person
    assert not torch.equal(first.ground_truth[0], first.target.image[0])


def test_photographs_know_no_swaps() -> None:
    orl: Dataset = part("datasets", "orl").build(64, part("detectors", "mtcnn"), "test")
    assert orl.ground_truth_swap(0, 1) is None and orl.expected("pose_deg", 0, 0) is None


def test_data_sets_in_front_pass_it_on_unless_they_cover_targets(few: Dataset) -> None:
    inner = {"use": "rendered-heads", "people": 4, "pictures": 2}
    hardest, occluded = heads(name="hard-examples", data=inner), heads(name="occluded", data=inner, pool=4, share=1.0)
    swap = few.ground_truth_swap(0, 3)
    passed = hardest.ground_truth_swap(0, 3)
    assert swap is not None and passed is not None and passed.image.tobytes() == swap.image.tobytes()
    assert hardest.expected("pose_deg", 0, 3) is not None
    assert occluded.ground_truth_swap(0, 3) is None
    (batch,) = EvaluationPairs(occluded, [(0, 3)], 1)
    assert 0 < batch.valid_mask.mean() < 1  # the occluder, as ever


Swaps = Iterator[tuple[SwapBatch, SwapResult]]


def swaps(pairs: EvaluationPairs, picture: Callable[[SwapBatch], torch.Tensor]) -> Swaps:
    for batch in pairs:
        image = picture(batch)
        yield batch, SwapResult(image, image, torch.zeros(len(image), 1))


@pytest.fixture(scope="module")
def measure() -> TrueSwap:
    built: TrueSwap = part("benchmarks", "true-swap").build()
    built.load()
    return built


def test_a_perfect_method_has_no_error_and_copies_have(few: Dataset, measure: TrueSwap) -> None:
    pairs = EvaluationPairs(few, draw_pairs(few, 6, 0), 4)
    perfect = measure(swaps(pairs, lambda batch: batch.ground_truth), few)
    target = measure(swaps(pairs, lambda batch: batch.target.image), few)
    source = measure(swaps(pairs, lambda batch: batch.source.image), few)
    assert perfect.keys() == target.keys() == measure.metrics.keys()
    for key, value in (("error", 0), ("error_toned", 0), ("error_rest", 0), ("psnr", 60), ("ssim", 1)):
        np.testing.assert_allclose(perfect[key], value, atol=1e-4)
    for own in ("pose{}_deg", "landmarks{}"):
        np.testing.assert_array_equal(perfect[own.format("")], perfect[own.format("_own")])
        np.testing.assert_array_equal(target[own.format("_own")], perfect[own.format("_own")])
    assert np.min(target["error"]) > 2 and np.min(source["error"]) > 2
    assert np.mean(target["error"]) > 4 * np.mean(target["error_rest"])
    assert np.mean(source["error_rest"]) > 4 * np.mean(target["error_rest"])  # another background
    assert np.nanmean(source["pose_deg"]) > np.nanmean(target["pose_deg"])
    assert np.nanmean(perfect["pose_deg"]) < 12 and np.nanmean(perfect["landmarks"]) < 5


def test_another_tone_is_no_error_once_toned(few: Dataset, measure: TrueSwap) -> None:
    pairs = EvaluationPairs(few, [(0, 3), (1, 6)], 2)
    darker = measure(swaps(pairs, lambda batch: 0.6 * batch.ground_truth - 0.3), few)
    assert np.min(darker["error"]) > 10 and np.max(darker["error_toned"]) < 0.01
    target = measure(swaps(pairs, lambda batch: batch.target.image), few)
    assert np.min(target["error_toned"]) > 2
    (batch,) = pairs
    flat = toned(torch.zeros_like(batch.ground_truth), batch.ground_truth, batch.valid_mask)
    torch.testing.assert_close(
        flat, batch.ground_truth.mean(dim=(2, 3), keepdim=True).expand_as(flat), atol=1e-4, rtol=0
    )


def test_means_are_of_what_a_mask_holds() -> None:
    values = torch.arange(16.0).reshape(1, 1, 4, 4)
    where = torch.zeros(2, 1, 4, 4)
    where[0, :, 3] = 1
    assert mean(values.expand(2, 1, 4, 4), where) == pytest.approx([13.5, np.nan], nan_ok=True)


def test_differences_are_split_by_the_face(few: Dataset, measure: TrueSwap) -> None:
    def grey(batch: SwapBatch) -> torch.Tensor:
        return to_tensor(np.full_like(to_images(batch.ground_truth), 100))

    pairs = EvaluationPairs(few, [(0, 3)], 1)
    (batch,) = pairs
    mask = few.expected("mask", 0, 3)
    assert mask is not None
    levels = np.abs(to_images(batch.ground_truth)[0].astype(float) - 100).mean(axis=2)
    found = measure(swaps(pairs, grey), few)
    assert found["error"] == pytest.approx(levels[mask[0] > 0].mean(), abs=1e-3)
    assert found["error_rest"] == pytest.approx(levels[mask[0] == 0].mean(), abs=1e-3)
    assert np.isnan(found["pose_deg"]).all()  # a grey picture shows no face


def test_a_real_run_is_measured(
    tmp_path: Path, untrained_run: Callable[..., Run], expect_error: Callable[..., Any]
) -> None:
    sets = {"pairs": 4, "data": {"use": "rendered-heads", "people": 8, "pictures": 2, "yaw": 30}}
    run = untrained_run(tmp_path / "run", evaluation={**sets, "benchmarks": [{"use": "true-swap"}]})
    metrics = evaluate(run).to_json()
    assert metrics["benchmarks"]["true-swap"]["error"] > 10  # it has learned nothing
    copies = metrics["baselines"]["copy-target"]["true-swap"]
    assert 2 < copies["error"] < 80 and copies["psnr"] < 40 and copies["pose_own_deg"] > 0
    with expect_error("true-swap: "):
        bench(run.path, ["true-swap"], ["evaluation.data=null"], "cpu")


def test_the_estimator_must_measure_pose(expect_error: Callable[..., Any]) -> None:
    for name in ("true-swap", "known-pose"):
        option = {"true-swap": "estimator", "known-pose": "estimators"}[name]
        wrong: Any = {"use": "dlib-landmarks"}
        with expect_error(f"{name}: {option}: "):
            part("benchmarks", name, **{option: wrong if option == "estimator" else [wrong]}).build()


def test_benchmarks_build_without_memory() -> None:
    with torch.device("meta"):
        assert isinstance(part("benchmarks", "true-swap").build(), TrueSwap)
        assert isinstance(part("benchmarks", "known-pose").build(), KnownPose)


def test_errors_are_counted_by_yaw() -> None:
    truth = np.array([[-5, 0, 0], [5, 10, 0], [-25, -10, 0], [35, 5, 0], [38, 0, 0.0]])
    found = truth * [0.8, 1, 1] + [1, 2, 3]
    found[4] = np.nan
    rows = {row["yaw_deg"]: row for row in by_yaw(found, truth)}
    assert list(rows) == ["0 to 10", "20 to 30", "30 to 40", "all"]
    assert rows["0 to 10"]["yaw_error_deg"] == 1 and rows["20 to 30"]["yaw_error_deg"] == 6
    assert rows["30 to 40"]["not_found"] == 1 and rows["30 to 40"]["faces"] == 2
    assert rows["all"]["roll_error_deg"] == 3 and rows["all"]["pitch_error_deg"] == 2
    assert rows["all"]["yaw_slope"] == 0.8 and rows["all"]["yaw_zero_deg"] == 1 and rows["all"]["pitch_zero_deg"] == 2


def test_nobody_found_is_no_error() -> None:
    rows = by_yaw(np.full((2, 3), np.nan), np.zeros((2, 3)))
    assert rows[-1]["not_found"] == 2 and rows[-1]["yaw_error_deg"] is None and "yaw_slope" not in rows[-1]


def test_pnp_reads_the_poses_of_rendered_heads() -> None:
    data = {"use": "rendered-heads", "people": 8, "pictures": 4}
    found = part("benchmarks", "known-pose", data=data).build().measure(torch.device("cpu"))
    everyone = found["rows"][-1]
    assert everyone["faces"] == 32 and everyone["not_found"] <= 1
    assert max(everyone[f"{name}_error_deg"] for name in ("yaw", "pitch", "roll")) < 7
    assert 0.7 < everyone["yaw_slope"] < 1.2 and abs(everyone["yaw_zero_deg"]) < 3


def test_3ddfa_reads_the_poses_of_rendered_heads(shared: Path) -> None:
    files = {"weights": "3ddfa_v2_mb05_120x120.pt", "statistics": "3ddfa_v2_param_mean_std.npz"}
    estimator = {"use": "3ddfa", **{option: str(shared / "weights" / file) for option, file in files.items()}}
    data = {"use": "rendered-heads", "people": 8, "pictures": 4}
    found = part("benchmarks", "known-pose", data=data, estimators=[estimator]).build().measure(torch.device("cpu"))
    assert max(found["rows"][-1][f"{name}_error_deg"] for name in ("yaw", "pitch", "roll")) < 6


def test_data_without_poses_are_refused(expect_error: Callable[..., Any]) -> None:
    with expect_error("known-pose: data: "):
        part("benchmarks", "known-pose", data={"use": "orl"}).build().measure(torch.device("cpu"))
