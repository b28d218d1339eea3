"""Own pictures: what becomes of them, and the cache of aligned crops."""

import hashlib
import json
import os
import pickle
import re
import shutil
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsf_data import aligned_cache, cache, sources
from fsf_data.face_folder import FaceFolder
from fsf_data.face_index import FaceIndex, FaceIndexWriter, person_numbers
from fsf_data.locate import main_face
from pydantic import ValidationError

from fsframework.core.components import ComponentOptions, Detector
from fsframework.core.errors import EmptySplitError, UserError
from fsframework.core.types import Face
from fsframework.data.eval_pairs import draw_pairs
from fsframework.faces.align import template
from fsframework.media.image_io import write_image

SIZE = 32
COLOURS = [[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0], [0, 250, 250]]
DETECTED: list[tuple[int, ...]] = []  # (frames, height, width) of every call of the detector


class Dots(Detector):
    """Finds the one face whose five landmarks are dots of known colours."""

    name = "dots"

    class Options(ComponentOptions):
        threshold: int = 0

    loaded = False

    def load(self) -> None:
        self.loaded = True

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        assert self.loaded and not self.training and len({frame.shape for frame in frames}) == 1
        DETECTED.append((len(frames), *frames[0].shape[:2]))
        return [self._faces(frame) for frame in frames]

    def _faces(self, frame: np.ndarray) -> list[Face]:
        found = [np.argwhere((np.abs(frame.astype(int) - colour) < 40).all(axis=2)) for colour in COLOURS]
        if not all(len(places) for places in found):
            return []
        landmarks = np.array([places.mean(axis=0)[::-1] for places in found])
        return [Face(box=np.concatenate([landmarks.min(0), landmarks.max(0)]), landmarks=landmarks, score=1.0)]


class DotsPart:
    """What a recipe's detector looks like to a data set."""

    name = "dots"

    def __init__(self, threshold: int = 0) -> None:
        self.options = Dots.Options(threshold=threshold)

    def build(self) -> Dots:
        return Dots(self.options)


@pytest.fixture(autouse=True)
def _forget() -> None:
    DETECTED.clear()


def face(side: int = 96, shift: float = 0.0, shade: int = 60) -> np.ndarray:
    """A picture (side, side, 3) with a dot at each landmark."""
    picture = np.full((side, side, 3), shade, np.uint8)
    half = side // 32
    for (x, y), colour in zip((template(side // 2) + side / 4 + shift).round().astype(int), COLOURS, strict=True):
        picture[y - half : y + half + 1, x - half : x + half + 1] = colour
    return picture


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, picture)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five people with two pictures each, none like another."""
    root = tmp_path / "faces"
    for person in range(5):
        for number in range(2):
            save(root / f"p{person}" / f"{number}.png", face(shift=number, shade=50 + 20 * person + 5 * number))
    return root


def opened(root: Path, split: str = "all", size: int = SIZE, detector: Any = None, **options: Any) -> FaceFolder:
    options.setdefault("cache", root.parent / "cache")
    data = FaceFolder(FaceFolder.Options(root=root, **options), size, detector or DotsPart(), split)
    data.load()
    return data


def zipped(root: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for entry in sorted(root.rglob("*.*")):
            file.write(entry, entry.relative_to(root).as_posix())
    return path


@pytest.fixture
def expect_refusal(expect_error: Callable[..., Any]) -> Callable[..., None]:
    """Expect that pictures cannot be opened; the error begins with a place."""

    def expect(place: str, *args: Any, kind: type[Exception] = UserError, **options: Any) -> None:
        with expect_error(f"{place}: ", kind):
            opened(*args, **options)

    return expect


def test_faces_are_aligned(root: Path) -> None:
    data = opened(root)
    assert data.names() == [f"p{person}/{number}.png" for person in range(5) for number in range(2)]
    assert data.people() == [f"p{person}" for person in range(5) for _ in range(2)]
    for index in range(len(data)):
        sample = data[index]
        assert (sample.name, sample.person) == (data.names()[index], data.people()[index])
        assert sample.image.shape == (SIZE, SIZE, 3) and sample.image.dtype == np.uint8
        assert sample.image[0, 0, 0] == 50 + 20 * (index // 2) + 5 * (index % 2)
        np.testing.assert_allclose(sample.landmarks, template(SIZE), atol=0.6)
        for (x, y), colour in zip(sample.landmarks.round().astype(int), COLOURS, strict=True):
            assert np.abs(sample.image[y, x].astype(int) - colour).max() < 60
    assert data.skipped == []


def test_zip_equals_folder(root: Path) -> None:
    folder, packed = opened(root), opened(zipped(root, root.parent / "faces.zip"))
    assert packed.names() == folder.names() and packed.people() == folder.people()
    for index in range(len(folder)):
        np.testing.assert_array_equal(packed[index].image, folder[index].image)
        np.testing.assert_array_equal(packed[index].landmarks, folder[index].landmarks)


def test_equal_sizes_are_detected_together(root: Path) -> None:
    for number in range(3):
        save(root / "p2" / f"wide{number}.png", np.pad(face(), ((0, 0), (0, 20), (0, 0))))
    assert len(opened(root)) == 13
    assert DETECTED == [(6, 96, 96), (3, 96, 116), (4, 96, 96)]


def test_batches_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsf_data.locate.BATCH", 4)
    opened(root)
    assert [call[0] for call in DETECTED] == [4, 4, 2]
    DETECTED.clear()
    monkeypatch.setattr("fsf_data.locate.BATCH_PIXELS", 3 * 96 * 96)
    opened(root, size=16)
    assert [call[0] for call in DETECTED] == [3, 3, 3, 1]


def test_second_opening_detects_nothing(root: Path) -> None:
    first = opened(root)
    assert DETECTED
    DETECTED.clear()
    for split in ["all", "train"]:
        again = opened(root, split, test_share=0.3)
    assert DETECTED == []
    sample = first[first.names().index(again.names()[0])]
    np.testing.assert_array_equal(again[0].image, sample.image)


def test_any_change_makes_a_new_cache(root: Path) -> None:
    opened(root)

    def detects(**how: Any) -> bool:
        DETECTED.clear()
        opened(root, **how)
        return bool(DETECTED)

    assert detects(size=16)
    assert detects(detector=DotsPart(threshold=1))
    picture = root / "p0" / "0.png"
    before = picture.stat()
    save(picture, face(shade=200))
    assert detects()
    assert opened(root)[0].image[0, 0, 0] == 200
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns + 5_000_000_000))
    assert detects()
    (root / "p0" / "1.png").rename(root / "p0" / "2.png")
    assert detects()
    (root / "p0" / "2.png").unlink()
    assert detects()
    assert not detects()


def test_changed_zip_makes_a_new_cache(root: Path) -> None:
    packed = zipped(root, root.parent / "faces.zip")
    opened(packed)
    save(root / "p0" / "0.png", face(shade=200))
    zipped(root, packed)
    assert opened(packed)[0].image[0, 0, 0] == 200


def only_cache(root: Path) -> Path:
    (place,) = (path for path in (root.parent / "cache").iterdir() if path.is_dir())
    return place


INDEX = ("faces.json", "names.txt", "names.ends.npy", "people.txt", "person.npy", "name_hash.npy")


@pytest.mark.parametrize("file", ["images.npy", "landmarks.npy", *INDEX])
def test_damaged_cache_is_made_again(root: Path, file: str) -> None:
    want = [sample.image for sample in opened(root)]  # type: ignore[attr-defined]
    damaged = only_cache(root) / file
    data = damaged.read_bytes()
    for half in [data[: len(data) // 2], b""]:
        damaged.write_bytes(half)
        np.testing.assert_array_equal([sample.image for sample in opened(root)], want)  # type: ignore[attr-defined]
        assert damaged.read_bytes() == data


def test_half_written_cache_is_ignored_and_removed(root: Path) -> None:
    opened(root)
    place = only_cache(root)
    left_over = place.rename(place.with_name(f"{place.name}.123.partial"))
    (left_over / "faces.json").unlink()
    DETECTED.clear()
    assert len(opened(root)) == 10
    assert DETECTED and only_cache(root) == place


def test_failure_leaves_no_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Dots):
        def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
            raise KeyboardInterrupt

    part = DotsPart()
    part.build = lambda: Broken(part.options)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        opened(root, detector=part)
    assert [path for path in (root.parent / "cache").iterdir() if path.is_dir()] == []
    assert len(opened(root)) == 10


def test_full_disk_is_said_and_leaves_no_cache(
    root: Path, monkeypatch: pytest.MonkeyPatch, expect_refusal: Callable[..., None]
) -> None:
    def full(file: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_sync", full)
    expect_refusal("cache", root)
    assert [path for path in (root.parent / "cache").iterdir() if path.is_dir()] == []


def test_cache_that_cannot_be_written_is_said(root: Path, expect_refusal: Callable[..., None]) -> None:
    (root.parent / "file").write_text("")
    expect_refusal("file/cache", root, cache=root.parent / "file" / "cache")


def test_of_two_that_need_a_cache_one_makes_it(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    made = []

    def make() -> Iterator[aligned_cache.Row]:
        made.append(1)
        time.sleep(0.1)
        yield aligned_cache.Row("a", None, np.zeros((4, 4, 3), np.uint8), np.zeros((5, 2)))

    with ThreadPoolExecutor(4) as pool:
        opening = [pool.submit(aligned_cache.cached, tmp_path, {"x": 1}, make) for _ in range(4)]
        assert [list(future.result().names) for future in opening] == [["a"]] * 4
    assert made == [1]


@pytest.mark.parametrize("count", [9, 10, 1234])  # the header is written again when the number is known
def test_any_number_of_crops(tmp_path: Path, count: int) -> None:
    want = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), np.uint8)
    rows = [aligned_cache.Row(f"{place}", None, image, np.full((5, 2), place)) for place, image in enumerate(want)]
    got = aligned_cache.cached(tmp_path, {}, lambda: rows)
    np.testing.assert_array_equal(got.images, want)
    np.testing.assert_array_equal(got.landmarks[:, 0, 0], np.arange(count))
    assert not got.images.flags.writeable


def test_default_cache_follows_xdg(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "xdg"))
    opened(root, cache=None)
    assert list((root.parent / "xdg" / "fsframework").glob("faces-*/images.npy"))


def test_people_are_apart_and_stay_where_they_are(root: Path) -> None:
    for person in range(5, 40):
        save(root / f"p{person}" / "a.png", face())
    train, test = opened(root, "train", test_share=0.3), opened(root, "test", test_share=0.3)
    assert not set(train.people()) & set(test.people())
    assert sorted(train.names() + test.names()) == opened(root).names()
    assert 4 <= len(set(test.people())) <= 20
    shutil.rmtree(root / "p3")
    fewer = opened(root, "test", test_share=0.3)
    assert set(fewer.people()) == set(test.people()) - {"p3"}


def index_of(folder: Path, faces: list[tuple[str, str | None]]) -> FaceIndex:
    folder.mkdir()
    with FaceIndexWriter(folder) as writer:
        for name, person in faces:
            writer.add(name, person)
    return FaceIndex(folder)


def test_share_held_out(tmp_path: Path) -> None:
    index = index_of(tmp_path / "i", [(f"{number}/{turn}", f"{number}") for number in range(5000) for turn in range(2)])
    held_out = index.held_out(0.1)
    assert 0.08 < held_out.mean() < 0.12 and (held_out[::2] == held_out[1::2]).all()
    assert 0.08 < index.held_out(0.1, by_name=True).mean() < 0.12
    assert not index.held_out(0.0).any() and index.held_out(1.0).all()
    # who is held out must never change: a share of the first 64 bits of SHA-256
    first = [int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:8], "big") for number in range(5000)]
    assert (held_out[::2] == [bits < 0.1 * 2**64 for bits in first]).all()
    nobody = index_of(tmp_path / "j", [("a", None), ("b", None)])
    assert nobody.held_out(1.0).all() and nobody.person_of(0) is None


def test_people_of_several_indexes_are_numbered_once(tmp_path: Path) -> None:
    one = index_of(tmp_path / "one", [("a/1", "a"), ("x", None), ("b/1", "b"), ("a/2", "a"), ("c/1", "c")])
    two = index_of(tmp_path / "two", [("d/1", "d"), ("c/2", "c"), ("y", None)])
    numbers = person_numbers([(one, np.array([4, 1, 0, 3])), (two, np.arange(3))])
    assert numbers.tolist() == [0, -1, 1, 1, 2, 0, -1]
    assert person_numbers([]).tolist() == []


def test_names_of_any_kind_come_back(tmp_path: Path) -> None:
    names = ["", "straße/Ä.png", "a b\n.png", "\udcff.png", "人/1.jpg", ""]
    index = index_of(tmp_path / "i", [(name, name or None) for name in names])
    assert list(index.names) == names and index.names[-2] == names[-2] and index.names[1:3] == names[1:3]
    assert list(index.who) == names[1:-1] and "人/1.jpg" in index.names
    with pytest.raises(IndexError):
        index.names[6]


def test_empty_split_is_said(root: Path, expect_refusal: Callable[..., None]) -> None:
    expect_refusal("faces", root, "test", test_share=0.0, kind=EmptySplitError)


def test_too_few_test_people_are_counted(root: Path, expect_error: Callable[..., Any]) -> None:
    everybody = opened(root)
    hashes = sorted(set(everybody.parts[0][0].who_hash.tolist()))
    share = round((hashes[0] + hashes[1]) / 2**65, 3)  # between the first two of the five people
    single = opened(root, "test", test_share=share)
    assert len(set(single.people())) == 1
    with expect_error("evaluation.pairs: "):
        draw_pairs(single, 3, seed=0)


def test_test_root(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "others" / "q" / "a.png", face(shade=90))
    other = zipped(tmp_path / "others", tmp_path / "others.zip")
    assert set(opened(root, "train", test_root=other).people()) == {f"p{person}" for person in range(5)}
    test = opened(root, "test", test_root=other)
    assert test.names() == ["q/a.png"] and test[0].image[0, 0, 0] == 90
    everybody = opened(root, "all", test_root=other)
    assert len(everybody) == 11 and everybody[10].name == "q/a.png"


def test_excluded_pictures_are_no_faces(root: Path, expect_refusal: Callable[..., None]) -> None:
    plain = opened(root).names()
    save(root / "masks" / "p0.png", face())
    assert "masks" in opened(root).people()
    for place in (root, zipped(root, root.parent / "masked.zip")):
        assert opened(place, exclude=["masks/*"]).names() == plain
    assert opened(root, exclude=["masks/*", "*/1.png", "masks/p0.*"]).names() == plain[::2]
    expect_refusal("faces", root, exclude=["masks/*", "mask/*"])
    expect_refusal("faces", root, exclude=["*"])


def test_a_pattern_may_match_in_one_root(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "others" / "q0" / "0.png", face())
    save(tmp_path / "others" / "masks" / "0.png", face())
    assert opened(root, "test", test_root=tmp_path / "others", exclude=["masks/*"]).names() == ["q0/0.png"]


def test_shards_exclude_nothing(tmp_path: Path, expect_refusal: Callable[..., None]) -> None:
    save(tmp_path / "p0" / "0.png", face())
    with tarfile.open(tmp_path / "faces.tar", "w") as shard:
        shard.add(tmp_path / "p0" / "0.png", "p0/0.png")
    assert len(opened(tmp_path / "faces.tar")) == 1
    expect_refusal("faces.tar", tmp_path / "faces.tar", exclude=["p0/*"])


def test_person_in_both_roots_is_refused(root: Path, tmp_path: Path, expect_refusal: Callable[..., None]) -> None:
    save(tmp_path / "others" / "p3" / "other.png", face())
    expect_refusal("others", root, test_root=tmp_path / "others")


def test_pictures_of_nobody_known(tmp_path: Path) -> None:
    for number in range(20):
        save(tmp_path / "flat" / f"{number}.png", face(shade=50 + number))
    train, test = (opened(tmp_path / "flat", split, test_share=0.4) for split in ("train", "test"))
    assert set(train.people()) == {None} and len(train) + len(test) == 20
    assert len(train) and len(test) and not set(train.names()) & set(test.names())


def test_only_the_first_folder_is_the_person(tmp_path: Path) -> None:
    save(tmp_path / "r" / "anna" / "2019" / "june" / "a.png", face())
    save(tmp_path / "r" / "anna" / ".hidden" / "a.png", face())
    (tmp_path / "r" / "anna" / "notes.txt").write_text("no picture")
    data = opened(tmp_path / "r")
    assert data.names() == ["anna/2019/june/a.png"] and data.people() == ["anna"]


@pytest.mark.parametrize("pack", [False, True])
def test_bad_pictures_are_left_out_with_the_reason(root: Path, pack: bool, check_message: Callable[..., None]) -> None:
    (root / "p1" / "0.png").write_bytes((root / "p1" / "0.png").read_bytes()[:150])
    (root / "p2" / "text.jpg").write_text("hello")
    save(root / "p3" / "nobody.png", np.zeros((96, 96, 3), np.uint8))
    for _ in range(2):  # the second time from the cache
        data = opened(zipped(root, root.parent / "faces.zip") if pack and not DETECTED else root)
        assert len(data) == 9 and "p1/0.png" not in data.names()
        skipped = dict(data.skipped)
        assert set(skipped) == {"p1/0.png", "p2/text.jpg", "p3/nobody.png"}
        skipped["p1/0.png"] = re.sub("read: [^;]*;", "read: REASON;", skipped["p1/0.png"])  # Pillow's own words
        for name, reason in sorted(skipped.items()):
            check_message(f"{name}: {reason}")
    assert json.loads((sorted((root.parent / "cache").glob("*/faces.json"))[0]).read_text())["skipped"]


def test_nothing_left_is_an_error(tmp_path: Path, expect_refusal: Callable[..., None]) -> None:
    save(tmp_path / "r" / "a" / "a.png", np.zeros((8, 8, 3), np.uint8))
    expect_refusal("a/a.png", tmp_path / "r")
    assert not list((tmp_path / "cache").glob("faces-*/*"))


def test_wrong_roots_are_said(tmp_path: Path, expect_refusal: Callable[..., None]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04" + bytes(50))
    expect_refusal("missing", tmp_path / "missing")
    expect_refusal("empty", tmp_path / "empty")
    expect_refusal("text.zip", tmp_path / "text.zip")
    expect_refusal("half.zip", tmp_path / "half.zip")


def unsafe(path: Path, name: str, mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        file.writestr(member, b"x")
    return path


@pytest.mark.parametrize("name", ["../a.png", "a/../../b.png", "/etc/a.png", "C:/a.png", "a\\..\\b.png"])
def test_zip_with_paths_that_lead_outside_is_refused(
    tmp_path: Path, name: str, expect_refusal: Callable[..., None]
) -> None:
    expect_refusal("a.zip", unsafe(tmp_path / "a.zip", name))


def test_zip_with_links_is_refused(tmp_path: Path, expect_refusal: Callable[..., None]) -> None:
    expect_refusal("a.zip", unsafe(tmp_path / "a.zip", "a/b.png", mode=0o120777))


def test_zip_bombs_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_refusal: Callable[..., None]
) -> None:
    with zipfile.ZipFile(tmp_path / "large.zip", "w", zipfile.ZIP_DEFLATED) as file, file.open("a/a.png", "w") as out:
        for _ in range(sources.MAX_MEMBER // 2**24 + 1):
            out.write(bytes(2**24))
    tracemalloc.start()
    expect_refusal("large.zip", tmp_path / "large.zip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22

    monkeypatch.setattr(sources, "SMALL", 2**20)
    with zipfile.ZipFile(tmp_path / "many.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(20):
            file.writestr(f"a/{number}.png", bytes(10**6))
    expect_refusal("many.zip", tmp_path / "many.zip")


def test_zip_that_lies_about_sizes_is_not_unpacked_further(root: Path) -> None:
    packed = root.parent / "lies.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(root / "p0" / "0.png", "p0/0.png")
        file.writestr("p1/bomb.png", bytes(50_000_000))
    data = packed.read_bytes()
    packed.write_bytes(data.replace((50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    tracemalloc.start()
    faces = opened(packed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [name for name, _ in faces.skipped] == ["p1/bomb.png"] and faces.names() == ["p0/0.png"]
    assert peak < 10_000_000


def test_zip_with_a_name_twice_is_refused(tmp_path: Path, expect_refusal: Callable[..., None]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a/a.png", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a/a.png", b"y")
    expect_refusal("a.zip", tmp_path / "a.zip")


def test_aligned_layout_needs_no_detector(tmp_path: Path, check_message: Callable[..., None]) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    save(tmp_path / "r" / "a" / "same.png", whole)
    save(tmp_path / "r" / "a" / "twice.png", whole.repeat(2, 0).repeat(2, 1))
    save(tmp_path / "r" / "a" / "small.png", np.full((8, 8, 3), 7, np.uint8))
    save(tmp_path / "r" / "a" / "wide.png", np.zeros((8, 9, 3), np.uint8))
    data = opened(tmp_path / "r", layout="aligned", detector=object())
    ((name, reason),) = data.skipped
    assert name == "a/wide.png"
    check_message(reason)
    samples = {data[index].name: data[index] for index in range(len(data))}
    np.testing.assert_array_equal(samples["a/same.png"].image, whole)
    np.testing.assert_array_equal(samples["a/twice.png"].image, whole)
    np.testing.assert_array_equal(samples["a/small.png"].image, np.full((SIZE, SIZE, 3), 7))
    np.testing.assert_allclose(samples["a/same.png"].landmarks, template(SIZE), atol=1e-5)


def test_main_face() -> None:
    def at(left: float, top: float, side: float, score: float = 1.0) -> Face:
        return Face(np.array([left, top, left + side, top + side]), np.zeros((5, 2)), score)

    middle, neighbour, background = at(60, 60, 70), at(-40, 70, 100), at(85, 85, 20)
    assert main_face([neighbour, background, middle], (192, 192, 3)) is middle
    person, passer_by = at(1600, 500, 800), at(1900, 2900, 100)
    assert main_face([passer_by, person], (6000, 4000, 3)) is person
    assert main_face([], (9, 9, 3)) is None


def test_items_take_no_memory(root: Path) -> None:
    data = opened(root)
    data[0]
    tracemalloc.start()
    for turn in range(5000):
        data[turn % 10]
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 100_000


def test_samples_are_own_copies(root: Path) -> None:
    data = opened(root)
    data[0].image[:] = 0
    data[0].landmarks[:] = 0
    assert data[0].image.any() and data[0].landmarks.any()


def test_pickled_data_set_opens_the_cache_again(root: Path) -> None:
    data = opened(root)
    text = pickle.dumps(data)
    assert len(text) < 5000
    np.testing.assert_array_equal(pickle.loads(text)[3].image, data[3].image)


def test_constructing_reads_nothing(tmp_path: Path) -> None:
    FaceFolder(FaceFolder.Options.model_validate({"root": "missing"}), SIZE, None, "train")
    mistakes: list[dict[str, Any]] = [{"layout": "none"}, {"test_share": 2}, {"rot": "x"}, {"root": None}]
    for wrong in mistakes:
        with pytest.raises(ValidationError):
            FaceFolder.Options.model_validate({"root": "missing", **wrong})


def test_lfw(shared: Path) -> None:
    source = sources.open_source(shared / "data/lfw/val.zip")
    assert len(source.pictures) == 1266 and source.pictures[0].person == "Aaron_Eckhart"
    assert source.read(source.pictures[0]).shape == (192, 192, 3)


def test_pictures_of_everybody_can_be_held_out(tmp_path: Path) -> None:
    for person in range(3):
        for number in range(12):
            save(tmp_path / "ours" / f"p{person}" / f"{number}.png", face())
    options: dict[str, Any] = {"hold_out": "pictures", "test_share": 0.3}
    train, test = (opened(tmp_path / "ours", split, **options) for split in ("train", "test"))
    assert train.is_closed_set and set(train.people()) == set(test.people()) == {"p0", "p1", "p2"}
    assert not set(train.names()) & set(test.names()) and len(train) + len(test) == 36
    assert not opened(tmp_path / "ours").is_closed_set
    save(tmp_path / "others" / "p1" / "new.png", face())
    apart = opened(tmp_path / "ours", "test", test_root=tmp_path / "others", hold_out="pictures")
    assert apart.names() == ["p1/new.png"] and apart.is_closed_set
