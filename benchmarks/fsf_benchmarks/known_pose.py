"""Errors of head pose estimators against the ground truth of rendered heads."""

from itertools import pairwise
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from fsf_benchmarks.pose_error import QUANTITY
from fsframework.core.components import Benchmark, ComponentOptions, Dataset, Estimator, MetricInfo
from fsframework.core.errors import UserError
from fsframework.core.part import Part, use
from fsframework.core.types import FaceBatch
from fsframework.media.tensor import to_tensor
from fsframework.utils.environment import environment
from fsframework.utils.progress import progress

BANDS = (0, 10, 20, 30, 40, 90)  # degrees of yaw, to either side
BATCH = 32


class KnownPose(Benchmark):
    """Measure the errors of pose estimators on heads with known pose, by yaw. Needs no run.

    `fsf bench known-pose --set 'estimators=[{use: pnp}]'`. Each band of yaw has a row with the mean absolute errors of
    yaw, pitch and roll in degrees, over the detected faces. `slope` and `zero` are those of the regression line from
    true to estimated angles, because a different scale or zero is a bias, not noise.
    """

    name = "known-pose"
    standalone = True
    metrics: ClassVar[dict[str, MetricInfo]] = {}

    class Options(ComponentOptions):
        estimators: tuple[Annotated[Part, use("estimators")], ...] = Field(
            default=({"use": "pnp"},), validate_default=True, description="Pose estimators to measure."
        )
        data: Annotated[Part, use("datasets")] = Field(
            default={"use": "rendered-heads"}, validate_default=True, description="Dataset with known poses."
        )
        detector: Annotated[Part, use("detectors")] = Field(
            default={"use": "mtcnn"}, validate_default=True, description="Face detector, for data of photographs."
        )
        size: int = Field(64, ge=16, description="Side of the crops in pixels.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        try:
            self.estimators = [part.build_estimator(QUANTITY, "estimators") for part in options.estimators]
        except ValueError as error:
            raise UserError(f"{self.name}: {error}; choose another") from None

    def measure(self, device: torch.device) -> dict[str, Any]:
        options = self.options
        faces: Dataset = options.data.build(options.size, options.detector, "all")
        faces.load()
        poses = [faces.expected(QUANTITY, index, index) for index in range(len(faces))]
        if any(pose is None for pose in poses):
            raise UserError(f"{self.name}: data: {options.data.name} has no known poses; choose rendered-heads")
        truth = np.stack([pose for pose in poses if pose is not None])  # (N, 3)
        rows = []
        for estimator in self.estimators:
            estimator.load()
            estimated = estimates(estimator.to(device).eval(), faces, device)
            rows += [{"estimator": estimator.name, **row} for row in by_yaw(estimated, truth)]
        return {"rows": rows, **environment(device)}


@torch.no_grad()
def estimates(estimator: Estimator, faces: Dataset, device: torch.device) -> np.ndarray:
    """Return an estimator's poses (N, 3) of all faces."""
    poses = []
    with progress(f"known-pose: {estimator.name}", len(faces), "faces") as ticker:
        for start in range(0, len(faces), BATCH):
            indices = range(start, min(start + BATCH, len(faces)))
            images = to_tensor(np.stack([faces[index].image for index in indices]))
            poses.append(estimator(FaceBatch.of(images.to(device))).double().cpu().numpy())
            ticker.advance(len(indices))
    return np.concatenate(poses)


def by_yaw(estimated: np.ndarray, truth: np.ndarray) -> list[dict[str, Any]]:
    """Return the rows of a table from estimated and true poses (N, 3): one per non-empty band of yaw, one for all."""
    solved = np.isfinite(estimated).all(axis=1)
    yaw = np.abs(truth[:, 0])
    bands = {f"{low} to {high}": (yaw >= low) & (yaw < high) for low, high in pairwise(BANDS)}
    rows = []
    for label, chosen in {**bands, "all": np.ones(len(truth), bool)}.items():
        if not chosen.any():
            continue
        row: dict[str, Any] = {"yaw_deg": label, "faces": int(chosen.sum()), "not_found": int((chosen & ~solved).sum())}
        errors = np.abs(estimated - truth)[chosen & solved]
        for name, values in zip(("yaw", "pitch", "roll"), errors.T, strict=True):
            row[f"{name}_error_deg"] = round(float(values.mean()), 2) if len(values) else None
        rows.append(row)
    for axis, name in enumerate(("yaw", "pitch")):
        if solved.any() and np.ptp(truth[solved, axis]) > 0:
            slope, zero = np.polyfit(truth[solved, axis], estimated[solved, axis], 1)
            rows[-1] |= {f"{name}_slope": round(float(slope), 3), f"{name}_zero_deg": round(float(zero), 2)}
    return rows
