"""Distance to the ground-truth swap, for rendered data."""

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fsf_benchmarks.masked import mean_where
from fsf_benchmarks.pnp import PnP
from fsf_benchmarks.pose_error import QUANTITY
from fsf_benchmarks.reconstruction import similarity
from fsframework.core.components import Benchmark, ComponentOptions, Dataset, Estimator, MetricInfo
from fsframework.core.errors import UserError
from fsframework.core.part import Part, use
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult
from fsframework.media.tensor import to_images


class TrueSwap(Benchmark):
    """Measure the distance of swaps to ground-truth swaps, in grey levels, degrees and % of the side.

    `evaluation.data` must provide ground-truth swaps, as `rendered-heads` does. A perfect method has error 0. Most of
    `error` is skin tone, which methods preserve from the target together with the lighting; `error_toned` excludes it.
    Pose and landmarks are estimated on the swap and compared with the ground truth. `pose_own_deg` and `landmarks_own`
    are the estimators' errors on the ground-truth swap, which a perfect method has too.
    """

    name = "true-swap"
    metrics: ClassVar = {
        "error": MetricInfo("", "lower", "Mean absolute difference to the true swap in the face, in grey levels."),
        "error_toned": MetricInfo(
            "", "lower", "The same after matching mean and deviation of each colour to the true swap."
        ),
        "error_rest": MetricInfo("", "lower", "The same outside the face: hair, neck, background."),
        "psnr": MetricInfo("dB", "higher", "Peak signal-to-noise ratio in the face; 60 if equal to the true swap."),
        "ssim": MetricInfo("", "higher", "Structural similarity to the true swap, of the whole crop; at most 1."),
        QUANTITY: MetricInfo("deg", "lower", "L2 distance of the swap's estimated pose to the known pose."),
        "pose_own_deg": MetricInfo("deg", "lower", "The same for the true swap: the estimator's error."),
        "landmarks": MetricInfo(
            "", "lower", "Mean distance of the swap's five landmarks to the known ones, in % of the side."
        ),
        "landmarks_own": MetricInfo("", "lower", "The same for the true swap: the detector's error."),
    }

    class Options(ComponentOptions):
        estimator: Annotated[Part, use("estimators")] = Field(
            default={"use": "pnp"}, validate_default=True, description="Estimator of the pose in degrees."
        )
        landmarks: Annotated[Part, use("detectors")] = Field(
            default={"use": "mtcnn", "min_face": 60},
            validate_default=True,
            description="Detector of the five landmarks.",
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        try:
            self.estimator: Estimator = options.estimator.build_estimator(QUANTITY, "estimator")
        except ValueError as error:
            raise UserError(f"{self.name}: {error}; choose another") from None
        self.finder = PnP(PnP.Options(detector=options.landmarks))
        self._faces: Dataset | None = None
        # Cached `_errors` (2,) of ground-truth swaps in `_faces`, by source and target.
        self._truth_errors: dict[tuple[int, int], np.ndarray] = {}

    def load(self) -> None:
        """Load the weights of the estimator and the detector."""
        self.estimator.load()
        self.finder.load()

    @torch.no_grad()
    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        if faces is not self._faces:
            self._faces, self._truth_errors = faces, {}
        found: dict[str, np.ndarray] = {}
        pairs = list(zip(batch.source.index.tolist(), batch.target.index.tolist(), strict=True))
        inside = torch.from_numpy(np.stack([self._ground_truth(faces, "mask", *pair) for pair in pairs])).to(
            batch.valid_mask
        )
        difference = (swap.image - batch.ground_truth) * 127.5  # (B, 3, S, S)
        found["error"] = mean(difference.abs(), inside)
        recoloured = toned(swap.image, batch.ground_truth, inside)
        found["error_toned"] = mean((recoloured - batch.ground_truth).abs() * 127.5, inside)
        found["error_rest"] = mean(difference.abs(), 1 - inside)
        squares = mean(difference.square(), inside)
        found["psnr"] = np.minimum(60, 10 * np.log10(255**2 / squares.clip(min=1e-9)))
        images, truths = to_images(swap.image), to_images(batch.ground_truth)
        found["ssim"] = np.array([similarity(*both) for both in zip(images, truths, strict=True)])
        if new := [row for row, pair in enumerate(pairs) if pair not in self._truth_errors]:
            some = [pairs[row] for row in new]
            self._truth_errors |= zip(some, self._errors(batch.ground_truth[new], some, faces), strict=True)
        own = np.array([self._truth_errors[pair] for pair in pairs])
        for kind, errors in (("", self._errors(swap.image, pairs, faces)), ("_own", own)):
            found[f"pose{kind}_deg"] = errors[:, 0]
            found[f"landmarks{kind}"] = errors[:, 1]
        return found

    def _errors(self, images: Tensor, pairs: list[tuple[int, int]], faces: Dataset) -> np.ndarray:
        """Return errors (B, 2) of estimated pose, in degrees, and landmarks, in % of the side, on images of swaps."""
        poses = np.stack([self._ground_truth(faces, QUANTITY, *pair) for pair in pairs])
        points = np.stack([sample.landmarks for pair in pairs if (sample := faces.ground_truth_swap(*pair))])
        pose_errors = self.estimator(FaceBatch.of(images)).double().cpu().numpy() - poses
        landmark_errors = (self.finder.landmarks(to_images(images)) - points) / images.shape[-1]
        return np.stack(
            [np.linalg.norm(pose_errors, axis=1), 100 * np.linalg.norm(landmark_errors, axis=2).mean(axis=1)], axis=1
        )

    def _ground_truth(self, faces: Dataset, quantity: str, source: int, target: int) -> np.ndarray:
        """Return a quantity of a ground-truth swap. Raises UserError if the data have none."""
        value = faces.expected(quantity, source, target)
        if value is None or faces.ground_truth_swap(source, target) is None:
            remedy = "evaluate with --set 'evaluation.data={use: rendered-heads}' --set evaluation.pairs=200"
            raise UserError(f"{self.name}: these data have no ground-truth swaps; {remedy}")
        return value


def toned(images: Tensor, truths: Tensor, where: Tensor) -> Tensor:
    """Return images (B, 3, S, S) with the channel means and deviations of `truths` inside a mask (B, 1, S, S)."""
    count = where.sum(dim=(2, 3), keepdim=True).clamp(min=1)

    def moments(values: Tensor) -> tuple[Tensor, Tensor]:
        mean = (values * where).sum(dim=(2, 3), keepdim=True) / count  # (B, 3, 1, 1)
        return mean, (((values - mean).square() * where).sum(dim=(2, 3), keepdim=True) / count).sqrt()

    (mean, spread), (goal, deviation) = moments(images), moments(truths)
    return (images - mean) / spread.clamp(min=1e-3) * deviation + goal


def mean(values: Tensor, where: Tensor) -> np.ndarray:
    """Return the mean (B,) of values (B, C, S, S), weighted by a mask (B, 1, S, S); NaN for an empty mask."""
    return mean_where(values.mean(dim=1, keepdim=True), where).cpu().numpy()
