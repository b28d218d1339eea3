"""The main job: `fsf run smoke` in a process, as a user runs it, then bench and swap with its result."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from fsframework.cli.main import main
from fsframework.core.registry import registry
from fsframework.media.image_io import is_marked, read_image, write_image

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("main-job")


@pytest.fixture(scope="module")
def fsf(place: Path) -> Command:
    """Run `fsf` in this process, in the folder `place`: exit status, standard output and standard error."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        out, err, handler = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(place)
            patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
            patch.setenv("COLUMNS", "200")
            patch.setattr(sys, "argv", ["fsf", *arguments])
            with pytest.raises(SystemExit) as left:
                main()
        signal.signal(signal.SIGTERM, handler)
        return subprocess.CompletedProcess(arguments, int(left.value.code or 0), out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="module")
def run_dir(place: Path) -> Path:
    """Run `fsf run smoke` in a process of its own and return the folder of the run."""
    command = [sys.executable, "-m", "fsframework", "run", "smoke", "--device", "cpu"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "cache"), "COLUMNS": "200"}
    result = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert "report: runs/smoke/report.html" in result.stdout
    return place / "runs" / "smoke"


def test_leaves_weights_of_both_stages_figures_pictures_and_a_report(run_dir: Path) -> None:
    left = {str(file.relative_to(run_dir)) for file in run_dir.rglob("*") if file.is_file()}
    expected = {"recipe.yaml", "manifest.json", "log.jsonl", "metrics.json", "pairs.csv", "report.html"}
    assert expected <= left
    assert {"checkpoints/aei-net.safetensors", "checkpoints/hear-net.safetensors", "samples/000_swap.png"} <= left
    assert not [name for name in left if ".step-" in name]  # states of finished stages
    log = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert [(entry["stage"], entry["step"]) for entry in log] == [
        *(("aei-net", step) for step in range(1, 7)),
        *(("hear-net", step) for step in range(1, 5)),
    ]


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ("evaluation.pairs=nolist", "nolist: "),
        ("evaluation.data={use: face-folder, root: nowhere}", "nowhere: "),
        (
            "evaluation.data={use: orl, people: 1}",
            "--set evaluation.data={use: orl, people: 1}: evaluation.data.people: ",
        ),
        ("evaluation.benchmarks=[{use: id-retrieval, judge: {use: mobilefacenet, weights: none.pt}}]", "none.pt: "),
        ("evaluation.benchmarks=[{use: occlusion, data: {use: face-folder, root: nowhere}}]", "nowhere: "),
    ],
    ids=["pairs", "folder", "option", "judge", "benchmark"],
)
def test_what_would_stop_the_evaluation_stops_before_the_training(
    setting: str, where: str, place: Path, fsf: Command, check_message: Callable[..., None]
) -> None:
    result = fsf("run", "smoke", "--device", "cpu", "--out", "stopped", "--set", setting)
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith(where)
    check_message(line, {os.strerror(errno.ENOENT): "REASON"})
    assert not (place / "stopped").exists()


def test_a_folder_that_is_taken_is_refused_before_anything_is_opened(
    run_dir: Path, fsf: Command, check_message: Callable[..., None]
) -> None:
    result = fsf("run", "smoke", "--device", "cpu", "--set", "evaluation.pairs=nolist")
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith("runs/smoke: ") and (run_dir / "metrics.json").is_file()
    check_message(line)


def test_figures_stand_beside_the_copies(run_dir: Path) -> None:
    metrics = json.loads((run_dir / "metrics.json").read_text())
    own = "id-retrieval (own network)"
    assert metrics["own_network"] == [own]
    assert metrics["baselines"].keys() == {"copy-target", "copy-source", "without-refiner"}
    assert metrics["baselines"]["copy-source"][own]["top1"] == 100
    assert metrics["baselines"]["copy-source"][own]["cosine"] == pytest.approx(1, abs=1e-3)
    # Few training steps paint nothing that the estimator knows as a face: those pairs are counted, never dropped.
    failures = metrics["failures"]["pose-error"]
    assert failures["copy-target"] == failures["copy-source"] == 0
    assert metrics["compared"]["pose-error"] == 12 - max(failures.values()) or failures["method"] > 0
    assert metrics["baselines"]["copy-target"][own]["cosine"] < 0.5
    assert metrics["pairs"] == 12


def test_pictures_that_were_made_say_so(run_dir: Path) -> None:
    assert is_marked(run_dir / "samples" / "000_swap.png")
    assert not is_marked(run_dir / "samples" / "000_source.png")


def test_resume_of_a_finished_run_measures_again(run_dir: Path, fsf: Command) -> None:
    before = json.loads((run_dir / "metrics.json").read_text())
    (run_dir / "metrics.json").unlink()
    result = fsf("run", "smoke", "--resume", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    again = json.loads((run_dir / "metrics.json").read_text())
    assert again.pop("cost").keys() == before.pop("cost").keys()  # seconds and memory may differ
    assert again == before


def test_bench_prints_json(run_dir: Path, fsf: Command) -> None:
    result = fsf("bench", "pose-error", "--run", str(run_dir), "--pairs", "4", "--json", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout)
    assert metrics["pairs"] == 4
    assert metrics["benchmarks"].keys() == {"pose-error"}


def test_swap_changes_the_face_and_nothing_else(run_dir: Path, fsf: Command, place: Path) -> None:
    target = data.astronaut()
    write_image(place / "target.png", target, synthetic=False)
    write_image(place / "source.png", np.ascontiguousarray(target[:, ::-1]), synthetic=False)
    words = ["swap", "source.png", "target.png", "out.png", "--model", "runs/smoke", "--device", "cpu"]
    result = fsf(*words, "--no-provenance")
    assert result.returncode == 0, result.stderr
    changed = (read_image(place / "out.png") != target).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert 1000 < changed.sum() < 30000
    assert rows.min() > 30 and rows.max() < 210 and columns.min() > 140 and columns.max() < 310  # around her face
    assert is_marked(place / "out.png")
    assert fsf("verify", "out.png").returncode == 1
    assert fsf(*words).returncode == 1 and fsf("verify", "out.png").returncode == 1  # it exists, and stays
    assert fsf(*words, "--overwrite").returncode == 0 and fsf("verify", "out.png").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["run", "smoke"], "runs/smoke: "),
        (["run", "smoke", "--resume", "--set", "seed=1"], "runs/smoke: "),
        (["run", "smoke", "--set", "stages.0.steps=0"], "--set stages.0.steps=0: "),
        (["swap", "none.jpg", "target.png", "o.png", "--model", "runs/smoke"], "none.jpg: "),
        (["swap", "target.png", "target.png", "o.png", "--model", "runs"], "runs: "),
        (["bench", "--run", "nowhere"], "nowhere: "),
    ],
    ids=["taken", "other-recipe", "no-steps", "no-source", "no-run", "no-model"],
)
@pytest.mark.usefixtures("run_dir")
def test_mistakes_end_with_one_line_and_status_1(
    fsf: Command, place: Path, arguments: list[str], where: str, check_message: Callable[..., None]
) -> None:
    write_image(place / "target.png", data.astronaut(), synthetic=False)
    result = fsf(*arguments)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(where)
    check_message(line, {", ".join(sorted(registry().models)): "MODELS"})
    assert not (place / "o.png").exists()
