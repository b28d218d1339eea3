"""Training in two processes that torchrun starts: the weights are those of one, and a killed process loses nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fsframework.media.image_io import write_image
from fsframework.training.distributed import DistributedBatchSampler, World
from fsframework.utils.weights import load_state

TOY = Path(__file__).parent / "toy_plugin"
STEPS = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of networks without batch statistics, and noise of one colour a person."""
    folder = tmp_path_factory.mktemp("distributed")
    rng = np.random.default_rng(0)
    for person in range(4):
        colour = rng.integers(40, 200, 3)
        (folder / "faces" / f"p{person}").mkdir(parents=True)
        for picture in range(3):
            image = (colour + rng.integers(-40, 40, (32, 32, 3))).astype(np.uint8)
            write_image(folder / "faces" / f"p{person}" / f"{picture}.png", image, synthetic=False)
    data = {"use": "face-folder", "root": "faces", "layout": "aligned", "test_share": 0.0, "cache": "cache"}
    stage = {
        "name": "only",
        "train": ["attributes", "generator"],
        "losses": [{"use": "attribute", "weight": 10.0}, {"use": "identity", "weight": 5.0}],
        "optimizer": {"lr": 1e-5, "betas": [0.9, 0.999]},  # Adam makes much of rounding where rates are high
        "ema": 0.9,
        "steps": STEPS,
        "batch_size": 4,
        "checkpoint_every": 1,
        "log_every": 1,
    }
    networks = {
        "identity": {"use": "dlib-resnet"},
        "attributes": {"use": "toy-attributes"},
        "generator": {"use": "toy-generator"},
    }
    recipe = {"name": "tiny", "size": 32, "data": data, "networks": networks, "stages": [stage]}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def command(processes: int, *words: str) -> list[str]:
    run = ["-m", "fsframework", "run", "tiny.yaml", "--device", "cpu", *words]
    if processes == 1:
        return [sys.executable, *run]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *torchrun, *run]


def start(place: Path, processes: int, *words: str) -> subprocess.Popen[str]:
    return launched(place, command(processes, *words))


def launched(place: Path, command: list[str]) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(TOY), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(place: Path, processes: int, *words: str) -> str:
    """What a run that goes well says on standard error."""
    process = start(place, processes, *words)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def weights(place: Path, run: str) -> dict[str, torch.Tensor]:
    return load_state(place / run / "checkpoints" / "only.safetensors")


@pytest.fixture(scope="module")
def both(place: Path) -> dict[str, torch.Tensor]:
    """The weights that two processes leave."""
    finished(place, 2, "--out", "both")
    return weights(place, "both")


@pytest.mark.system
def test_two_processes_give_the_weights_of_one(place: Path, both: dict[str, torch.Tensor]) -> None:
    finished(place, 1, "--out", "one")
    one = weights(place, "one")
    assert one.keys() == both.keys()
    for key, value in one.items():
        torch.testing.assert_close(both[key], value, rtol=0, atol=1e-6)
    files = [place / name / "log.jsonl" for name in ("one", "both")]
    logged = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    assert [entry["step"] for entry in logged[1]] == list(range(1, STEPS + 1))  # one process writes
    assert logged[1][-1]["losses"] == pytest.approx(logged[0][-1]["losses"], abs=1e-5)


@pytest.mark.slow
def test_two_machines_give_what_two_processes_of_one_give(place: Path, both: dict[str, torch.Tensor]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    run = ["-m", "fsframework", "run", "tiny.yaml", "--device", "cpu", "--out", "machines"]
    where = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port]
    machines = [
        launched(place, [sys.executable, "-m", "torch.distributed.run", *where, "--node-rank", rank, *run])
        for rank in ("0", "1")
    ]
    for machine in machines:
        _, said = machine.communicate(timeout=300)
        assert machine.returncode == 0, said
    again = weights(place, "machines")
    assert all(torch.equal(again[key], value) for key, value in both.items())


def worker(parent: int, rank: int) -> int:
    """The process that torchrun made this rank."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_either_process_may_be_killed(
    place: Path, both: dict[str, torch.Tensor], rank: int, check_message: Callable[..., None]
) -> None:
    out = f"killed-{rank}"
    process = start(place, 2, "--out", out)
    states = place / out / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(states.glob("only.step-*[5-9].safetensors")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    os.kill(worker(process.pid, rank), signal.SIGKILL)
    killed = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0 and time.monotonic() - killed < 30
    (line,) = [line for line in said.splitlines() if line.startswith(f"process {1 - rank}: ")]
    check_message(line)
    assert not (place / out / "checkpoints" / "only.safetensors").exists()  # it was still training
    finished(place, 2, "--out", out, "--resume")
    again = weights(place, out)
    assert all(torch.equal(again[key], value) for key, value in both.items())


@pytest.mark.slow
def test_sigterm_stops_all_after_the_same_step_with_a_checkpoint(
    place: Path, check_message: Callable[..., None]
) -> None:
    process = start(
        place, 2, "--out", "term", "--set", "stages.0.steps=5000", "--set", "stages.0.checkpoint_every=5000"
    )
    log = place / "term" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    (state,) = (place / "term" / "checkpoints").glob("only.step-*.safetensors")
    step = int(state.stem.rpartition("-")[2])
    line = next(line for line in said.splitlines() if f"step {step} " in line)
    check_message(line, {f"step {step} ": "step N "})
    assert step == json.loads(log.read_text().splitlines()[-1])["step"]


def test_a_batch_that_cannot_be_shared_is_refused(expect_error: Callable[..., Any]) -> None:
    assert World(1, 2).share(6, "stages.0.batch_size") == 3
    with expect_error("stages.0.batch_size"):
        World(0, 4).share(6, "stages.0.batch_size")


def test_shares_are_every_batch_without_gaps() -> None:
    shares = [list(DistributedBatchSampler(World(rank, 2), 4, 8, 16)) for rank in range(2)]
    assert shares == [[8, 9, 12, 13], [10, 11, 14, 15]]
    assert len(DistributedBatchSampler(World(0, 2), 4, 8, 16)) == 4
    assert list(DistributedBatchSampler(World(), 4, 8, 16)) == list(range(8, 16))
