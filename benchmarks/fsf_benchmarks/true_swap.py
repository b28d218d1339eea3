"""True swap: how far a swap is from the right one, where that is known because everything is rendered."""

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
    """How far swaps are from the true ones, in grey levels, degrees and pixels; needs data that know them.

    `evaluation.data` must be such a data set: `rendered-heads`. A perfect method has no error. Most of `error` is how
    dark the skin is, which methods keep from the target as they keep its light; `error_toned` is about the rest. Pose
    and landmarks are measured by estimators on the swap, and compared with what is known; what the same estimators make
    of the true swap stands beside, as `pose_own_deg` and `landmarks_own`, and a perfect method has just these.
    """

    name = "true-swap"
    metrics: ClassVar = {
        "error": MetricInfo("", "lower", "Mean absolute difference to the true swap in its face, in grey levels."),
        "error_toned": MetricInfo(
            "", "lower", "The same once the swap's face has the true one's mean and deviation in each colour."
        ),
        "error_rest": MetricInfo("", "lower", "The same everywhere else: hair, neck, background."),
        "psnr": MetricInfo("dB", "higher", "Peak signal-to-noise ratio in the face; 60 where it is the true swap's."),
        "ssim": MetricInfo("", "higher", "Structural similarity to the true swap, of the whole crop; at most 1."),
        QUANTITY: MetricInfo("deg", "lower", "L2 distance of the swap's estimated pose and the known one."),
        "pose_own_deg": MetricInfo("deg", "lower", "The same of the true swap: the estimator's own error."),
        "landmarks": MetricInfo(
            "", "lower", "Mean distance of the swap's five landmarks and those known, in % of the side."
        ),
        "landmarks_own": MetricInfo("", "lower", "The same of the true swap: the detector's own error."),
    }

    class Options(ComponentOptions):
        estimator: Annotated[Part, use("estimators")] = Field(
            default={"use": "pnp"}, validate_default=True, description="Measures the pose in degrees."
        )
        landmarks: Annotated[Part, use("detectors")] = Field(
            default={"use": "mtcnn", "min_face": 60}, validate_default=True, description="Finds the five landmarks."
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
        self._own: dict[tuple[int, int], np.ndarray] = {}  # of true swaps in `_faces`: what `_errors` says (2,)

    def load(self) -> None:
        """Read the weights of the estimator and the detector."""
        self.estimator.load()
        self.finder.load()

    @torch.no_grad()
    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        if faces is not self._faces:
            self._faces, self._own = faces, {}
        found: dict[str, np.ndarray] = {}
        pairs = list(zip(batch.source.index.tolist(), batch.target.index.tolist(), strict=True))
        inside = torch.from_numpy(np.stack([self._known(faces, "mask", *pair) for pair in pairs])).to(batch.valid_mask)
        difference = (swap.image - batch.ground_truth) * 127.5  # (B, 3, S, S)
        found["error"] = mean(difference.abs(), inside)
        recoloured = toned(swap.image, batch.ground_truth, inside)
        found["error_toned"] = mean((recoloured - batch.ground_truth).abs() * 127.5, inside)
        found["error_rest"] = mean(difference.abs(), 1 - inside)
        squares = mean(difference.square(), inside)
        found["psnr"] = np.minimum(60, 10 * np.log10(255**2 / squares.clip(min=1e-9)))
        images, truths = to_images(swap.image), to_images(batch.ground_truth)
        found["ssim"] = np.array([similarity(*both) for both in zip(images, truths, strict=True)])
        if new := [row for row, pair in enumerate(pairs) if pair not in self._own]:
            some = [pairs[row] for row in new]
            self._own |= zip(some, self._errors(batch.ground_truth[new], some, faces), strict=True)
        own = np.array([self._own[pair] for pair in pairs])
        for kind, errors in (("", self._errors(swap.image, pairs, faces)), ("_own", own)):
            found[f"pose{kind}_deg"] = errors[:, 0]
            found[f"landmarks{kind}"] = errors[:, 1]
        return found

    def _errors(self, images: Tensor, pairs: list[tuple[int, int]], faces: Dataset) -> np.ndarray:
        """What the estimators make (B, 2) of pictures of the pairs' swaps: degrees, and % of the side."""
        poses = np.stack([self._known(faces, QUANTITY, *pair) for pair in pairs])
        points = np.stack([sample.landmarks for pair in pairs if (sample := faces.ground_truth_swap(*pair))])
        turned = self.estimator(FaceBatch.of(images)).double().cpu().numpy() - poses
        moved = (self.finder.landmarks(to_images(images)) - points) / images.shape[-1]
        return np.stack([np.linalg.norm(turned, axis=1), 100 * np.linalg.norm(moved, axis=2).mean(axis=1)], axis=1)

    def _known(self, faces: Dataset, quantity: str, source: int, target: int) -> np.ndarray:
        """What is known of a true swap. Raises UserError if nothing is."""
        value = faces.expected(quantity, source, target)
        if value is None or faces.ground_truth_swap(source, target) is None:
            remedy = "evaluate with --set 'evaluation.data={use: rendered-heads}' --set evaluation.pairs=200"
            raise UserError(f"{self.name}: these data know no true swaps; {remedy}")
        return value


def toned(images: Tensor, truths: Tensor, where: Tensor) -> Tensor:
    """Images (B, 3, S, S) with the colours of others: their mean and deviation where a mask (B, 1, S, S) is 1."""
    count = where.sum(dim=(2, 3), keepdim=True).clamp(min=1)

    def moments(values: Tensor) -> tuple[Tensor, Tensor]:
        middle = (values * where).sum(dim=(2, 3), keepdim=True) / count  # (B, 3, 1, 1)
        return middle, (((values - middle).square() * where).sum(dim=(2, 3), keepdim=True) / count).sqrt()

    (middle, spread), (wanted, deviation) = moments(images), moments(truths)
    return (images - middle) / spread.clamp(min=1e-3) * deviation + wanted


def mean(values: Tensor, where: Tensor) -> np.ndarray:
    """The mean of each image's values (B, C, S, S) where a mask (B, 1, S, S) is 1: (B,), NaN if nowhere."""
    return mean_where(values.mean(dim=1, keepdim=True), where).cpu().numpy()
