"""Pose error, and the estimator that it uses: known poses, mirrors, a real face, failures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fsf_benchmarks.pnp import FOCAL, PnP, enlarged, head, nearest, solve
from fsf_benchmarks.pose_error import PoseError
from skimage.data import astronaut
from torch import Tensor

from fsframework.core.components import ComponentOptions, Dataset, Estimator
from fsframework.core.part import Part, part
from fsframework.core.registry import component
from fsframework.core.types import FaceBatch, Sample, SwapResult
from fsframework.data.eval_pairs import EvaluationPairs
from fsframework.faces.align import align, template
from fsframework.media.tensor import to_tensor


def projected(yaw: float, pitch: float, roll: float, size: int = 64) -> np.ndarray:
    """Landmarks (5, 2) of the generic head, turned (degrees), a metre from the camera of `solve`."""
    y, p, r = np.radians([-yaw, -pitch, roll])
    x_turn = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    y_turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    z_turn = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    points = head() @ (z_turn @ y_turn @ x_turn).T + [5, -10, 1000]
    return FOCAL * size * points[:, :2] / points[:, 2:] + (size - 1) / 2


@pytest.mark.parametrize("pose", [(0, 0, 0), (25, 0, 0), (-40, 10, 5), (10, -20, 30), (0, 25, -15)])
@pytest.mark.parametrize("size", [64, 256])
def test_known_poses_are_found(pose: tuple[float, float, float], size: int) -> None:
    assert solve(projected(*pose, size=size), size) == pytest.approx(pose, abs=0.01)


def test_signs() -> None:
    front = projected(0, 0, 0)
    right, up, clockwise = projected(20, 0, 0), projected(0, 20, 0), projected(0, 0, 20)
    nose = 2
    assert right[nose, 0] > front[nose, 0] + 1
    assert up[nose, 1] - up[0, 1] < front[nose, 1] - front[0, 1] - 1  # nearer to the eyes
    assert clockwise[1, 1] > clockwise[0, 1] + 1  # the eye on the viewer's right is lower


def test_a_template_face_looks_ahead() -> None:
    assert np.abs(solve(template(64), 64)).max() < 3


def test_mirrored_landmarks_flip_yaw_and_roll() -> None:
    points = template(64) + np.random.default_rng(0).normal(0, 1, (5, 2))
    mirrored = points[[1, 0, 2, 4, 3]] * [-1, 1] + [63, 0]
    assert solve(mirrored, 64) == pytest.approx(solve(points, 64) * [-1, 1, -1], abs=0.01)


def test_of_several_faces_the_one_near_the_template_counts() -> None:
    goal = template(64)
    assert nearest([goal + 20, goal + 1, goal - 5], goal, 64) == pytest.approx(goal + 1)
    assert np.isnan(nearest([goal + 20], goal, 64)).all()
    assert np.isnan(nearest([], goal, 64)).all()


def test_enlarging_keeps_pixel_places() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 6] = 255
    large = enlarged(image, 5)[..., 0].astype(float)
    y, x = (np.array(np.nonzero(large == large.max())).mean(axis=1) + 0.5) / 5 - 0.5
    assert (x, y) == pytest.approx((6, 4), abs=0.01)


@pytest.fixture(scope="module")
def pnp() -> PnP:
    estimator = PnP(PnP.Options())
    estimator.load()
    return estimator


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    detector = part("detectors", "mtcnn", min_face=60).build()
    detector.load()
    frame = astronaut()
    return align(frame, detector([frame])[0][0], 128).image


@pytest.mark.parametrize("size", [64, 128])
def test_a_real_face_and_its_mirror(pnp: PnP, crop: np.ndarray, size: int) -> None:
    image = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    poses = pnp(FaceBatch.of(to_tensor(np.stack([image, image[:, ::-1]])))).numpy()
    assert np.isfinite(poses).all()
    assert np.abs(poses).max() < 40
    assert np.linalg.norm(poses[0] - poses[1] * [-1, 1, -1]) < 12  # ORL faces: 4 on average, 12 at most


def test_a_turned_picture_is_rolled(pnp: PnP, crop: np.ndarray) -> None:
    turn = cv2.getRotationMatrix2D((63.5, 75), -10, 1)  # OpenCV counts counter-clockwise
    turned = cv2.warpAffine(crop, turn, (128, 128), borderMode=cv2.BORDER_REPLICATE)
    before, after = pnp(FaceBatch.of(to_tensor(np.stack([crop, turned])))).numpy()
    assert after[2] - before[2] == pytest.approx(10, abs=3)


def test_no_face_no_pose(pnp: PnP, crop: np.ndarray) -> None:
    empty = np.full_like(crop, 128)
    corner = empty.copy()
    corner[:64, :64] = cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA)
    poses = pnp(FaceBatch.of(to_tensor(np.stack([empty, corner, crop]))))
    assert poses.isnan().all(dim=1).tolist() == [True, True, False]


class Levels(Estimator):
    """The means of red, green and blue, in grey levels, as yaw, pitch and roll; NaN for black."""

    name = "levels"
    quantity = "pose_deg"

    def __init__(self, options: ComponentOptions) -> None:
        super().__init__(options)
        self.seen = 0

    def forward(self, faces: FaceBatch) -> Tensor:
        self.seen += len(faces.image)
        levels = (faces.image.mean(dim=(2, 3)) + 1) * 127.5
        return levels.masked_fill((levels == 0).all(dim=1, keepdim=True), torch.nan)


class Painted(Dataset):
    """Pictures of one colour each."""

    def __init__(self, *colours: tuple[int, int, int]) -> None:
        self.colours = colours

    def __len__(self) -> int:
        return len(self.colours)

    def __getitem__(self, index: int) -> Sample:
        image = np.broadcast_to(np.array(self.colours[index], np.uint8), (8, 8, 3))
        return Sample(image=image, name=str(index), person=str(index), landmarks=np.zeros((5, 2)))


@dataclass(frozen=True)
class Installed(Part):
    """A part whose class is not registered."""

    cls: Any = None

    def build(self, *args: Any) -> Any:
        return self.cls(self.options, *args)


def benchmark(estimator: type[Estimator] = Levels) -> PoseError:
    levels = Installed("estimators", estimator.name, estimator.Options(), estimator)
    return PoseError(PoseError.Options(estimator=levels))


def measured(measure: PoseError, faces: Dataset, pairs: list[tuple[int, int]], which: str) -> dict[str, Any]:
    batches = EvaluationPairs(faces, pairs, 2)
    images = [getattr(batch, which).image for batch in batches]
    none = torch.zeros(2, 1)
    return measure(((b, SwapResult(i, i, none)) for b, i in zip(batches, images, strict=True)), faces)


def test_distance_is_l2_in_degrees() -> None:
    faces = Painted((10, 10, 10), (13, 14, 10), (10, 10, 22))
    found = measured(benchmark(), faces, [(1, 0), (2, 0), (0, 0)], "source")
    assert found["pose_deg"] == pytest.approx([5, 12, 0], abs=1e-4)


def test_copying_the_target_has_no_error() -> None:
    found = measured(benchmark(), Painted((1, 2, 3), (40, 50, 60)), [(0, 1), (1, 0)], "target")
    assert found["pose_deg"].tolist() == [0, 0]


def test_failures_are_nan_on_either_side() -> None:
    faces = Painted((0, 0, 0), (10, 10, 10), (20, 20, 20))
    found = measured(benchmark(), faces, [(0, 1), (1, 0), (2, 1)], "source")
    assert np.isnan(found["pose_deg"]).tolist() == [True, True, False]
    assert np.isfinite(found["noise_deg"])


def test_noise_turns_the_mirror_image_back() -> None:
    found = measured(benchmark(), Painted((3, 7, 4), (9, 9, 9)), [(1, 0)], "target")
    assert found["noise_deg"] == pytest.approx(10, abs=1e-4)  # (3, 7, 4) against (-3, 7, -4)


def test_targets_are_measured_once() -> None:
    measure, faces = benchmark(), Painted((1, 1, 1), (2, 2, 2), (3, 3, 3))
    pairs = [(0, 1), (2, 1), (1, 2)]
    measured(measure, faces, pairs, "source")
    measured(measure, faces, pairs, "target")
    assert measure.estimator.seen == 2 * 3 + 3 * 2  # swaps of two calls; two targets, their mirrors and smaller crops
    other = Painted((50, 1, 1), (2, 2, 2), (3, 3, 90))
    assert measured(measure, other, [(0, 2)], "source")["pose_deg"][0] > 90  # nothing is left of the first data set


def test_the_estimator_must_measure_pose(expect_error: Callable[..., Any]) -> None:
    class Masks(Levels):
        name = "masks"
        quantity = "mask"

    with expect_error("pose-error: estimator masks: "):
        benchmark(Masks)


def test_real_estimator_on_a_real_face(crop: np.ndarray) -> None:
    class Two(Painted):
        def __getitem__(self, index: int) -> Sample:
            image = crop if index == 0 else np.ascontiguousarray(crop[:, ::-1])
            return Sample(image, str(index), str(index), np.zeros((5, 2)))

    measure = part("benchmarks", "pose-error").build()
    assert isinstance(measure.estimator, PnP) and component("estimators", "pnp") is PnP
    measure.load()
    faces = Two((0, 0, 0), (0, 0, 0))
    assert measured(measure, faces, [(0, 1), (1, 0)], "target")["pose_deg"].tolist() == [0, 0]
    found = measured(measure, faces, [(0, 1), (1, 0)], "source")
    assert np.isfinite(found["pose_deg"]).all() and 0 < found["noise_deg"] < 12
