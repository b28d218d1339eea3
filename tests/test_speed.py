"""`fsf bench speed`: what it says is measured, and its mistakes are one line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsframework.evaluation import evaluate
from fsframework.recipe.schema import Recipe

ROOT = Path(__file__).parents[1]
SMALL = ["size=32", "width=0.125", "batch=2", "rounds=1", "bf16=false"]  # the same rows on every machine


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    sets = [word for value in SMALL for word in ("--set", value)]
    command = [sys.executable, "-m", "fsframework", "bench", "speed", "--device", "cpu", *sets, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_rows(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    done = bench("--set", "tasks=[step,swap,detection,pasting,data]", "--json", "--save", str(file))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads(file.read_text())
    assert found["matmul_peak_gflops"]["fp32"] > 0 and 0 < found["data_share_percent"] < 100
    assert found["command"].startswith("fsf bench speed") and found["commit"]
    rows = {(row["task"], row["implementation"]): row for row in found["rows"]}
    assert {name for task, name in rows if task == "data"} == {"ours fp32"}
    plain, ours = rows["swap", "plain fp32"], rows["swap", "ours fp32"]
    assert plain["ratio"] == 1 and ours["ratio"] > 0
    assert 0 < ours["difference"] < 1e-4
    assert ours["psnr_db"] is None or ours["psnr_db"] > 40  # None: no pixel differs
    assert ours["gflop"] <= plain["gflop"] and 0 < ours["peak_percent"] <= ours["mfu_percent"]
    assert plain["peak_percent"] == plain["mfu_percent"] > 0
    assert rows["step", "ours fp32"]["peak_memory_gb"] > 0


@pytest.mark.slow
def test_one_after_the_other() -> None:
    """As on GPUs."""
    sets = ("tasks=[step,swap,alignment]", "turns=false", "activation_checkpointing=true", "optimizer_in_backward=true")
    done = bench(*(word for each in sets for word in ("--set", each)), "--json")
    assert done.returncode == 0, done.stderr
    rows = {(row["task"], row["implementation"]): row for row in json.loads(done.stdout)["rows"]}
    assert len(rows) == 11 and rows["alignment", "ours fp32"]["ratio"] is None
    assert (
        rows["swap", "ours fp32"]["difference"]
        == rows["swap", "ours fp32 activation_checkpointing"]["difference"]
        < 1e-4
    )
    assert rows["step", "ours fp32 activation_checkpointing"]["gflop"] > rows["step", "ours fp32"]["gflop"]
    for name in ("", " activation_checkpointing"):
        freeing = rows["step", f"ours fp32 optimizer_in_backward{name}"]
        assert freeing["gflop"] == rows["step", f"ours fp32{name}"]["gflop"]


@pytest.mark.slow
def test_a_table() -> None:
    done = bench("--set", "tasks=[alignment]")
    assert done.returncode == 0, done.stderr
    assert "alignment" in done.stdout and "ours fp32" in done.stdout


@pytest.mark.slow
def test_another_commit() -> None:
    if subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, check=False).returncode:
        pytest.skip("needs a git checkout")
    done = bench("--set", "tasks=[swap]", "--against", "HEAD", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["implementation"] for row in json.loads(done.stdout)["rows"]] == ["HEAD fp32", "ours fp32"]
    listed = subprocess.run(["git", "-C", str(ROOT), "worktree", "list"], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1  # nothing is left behind


@pytest.mark.system
@pytest.mark.parametrize(
    ("words", "place", "reason"),
    [
        (["--set", "sise=3"], "speed: sise: ", "Extra inputs are not permitted"),
        (["--set", "size"], "--set size: ", None),
        (["--set", "tasks=[]"], "speed: options: ", None),
        (["--against", "no-such-commit"], "--against no-such-commit: ", "fatal: invalid reference: no-such-commit"),
        (["--set", "size=48"], "speed: swap: ValueError: ", None),
    ],
    ids=["unknown-option", "no-value", "no-tasks", "unknown-commit", "size"],
)
def test_mistakes_are_one_line(
    words: list[str], place: str, reason: str | None, check_message: Callable[..., None]
) -> None:
    """`reason` is what pydantic or git says."""
    done = bench(*words)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(place)
    check_message(line, {reason: "REASON"} if reason else None)


@pytest.mark.system
def test_a_run_needs_other_benchmarks(check_message: Callable[..., None], expect_error: Callable[..., Any]) -> None:
    override = "evaluation.benchmarks=[{use: speed}]"
    command = [sys.executable, "-m", "fsframework", "check", "smoke", "--set", override]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"--set {override}: evaluation.benchmarks: ")
    check_message(line)
    plan = Recipe.load("smoke").evaluation
    assert plan is not None
    with expect_error("speed: "):
        evaluate._named("speed", plan)
