"""`--engine ray`: what workers of a cluster make is what one process makes, whoever is killed."""

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from swapping import FAST_MODEL, swap_pairs, swap_target

from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.data.extract import extract
from fsframework.data.extract_faces import ExtractOptions
from fsframework.data.samples import portrait, somebody
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.inference.jobs import AssignmentFiles, JobList, SwapOptions, target_jobs
from fsframework.inference.runner import JobWorker, execute
from fsframework.media.image_io import read_image, write_image
from fsframework.provenance.options import ProvenanceOptions
from fsframework.provenance.verify import verify
from fsframework.utils.executors import ATTEMPTS, SERIAL, Executor, RayExecutor, Worker, _check_address, _connected
from fsframework.utils.shards import JobShard

WORKERS = 2


@pytest.fixture(scope="module")
def cluster(data_folder_of_tests: None) -> Iterator[RayExecutor]:
    """A cluster on this machine, which lasts as long as the tests of this file."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("pyarrow")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # workers import this file
        with _connected(WORKERS):
            assert ray.is_initialized()
            yield RayExecutor(WORKERS, "cpu")


def words(folder: Path) -> Worker:
    """A worker: writes a file that is called as the item, unless the item is broken or kills its worker."""

    def work(item: str) -> str:
        if item.startswith("broken"):
            raise UserError(f"{item}: is broken")
        if item == "defect":
            raise ZeroDivisionError(item)
        if item == "fatal" or (item == "once" and not (folder / "once").exists()):
            (folder / "once").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / item).write_text(f"made in {Path.cwd()}")
        return item.upper()

    return work


def both(cluster: RayExecutor) -> dict[str, Executor]:
    return {"plain": SERIAL, "ray": cluster}


def outcomes(engine: Executor, folder: Path, items: list[str]) -> dict[str, str]:
    return {item: str(said) for item, said in engine.run(partial(words, folder), items)}


@pytest.mark.slow
def test_engines_say_the_same_and_what_kills_its_worker_is_given_up(
    cluster: RayExecutor, tmp_path: Path, check_message: Callable[..., None]
) -> None:
    items = ["a", "broken-1", "b", "broken-2", *map(str, range(20)), os.fsdecode(b"caf\xe9")]
    deadly = {"plain": [], "ray": ["once", "fatal"]}
    found = {}
    for name, engine in both(cluster).items():
        more = deadly[name]
        (tmp_path / name).mkdir()
        found[name] = outcomes(engine, tmp_path / name, [*items, *more])
        made = sorted(file.name for file in (tmp_path / name).iterdir())
        assert made == sorted({*items, *more[:1]} - {"broken-1", "broken-2"})
        assert (tmp_path / name / "a").read_text() == f"made in {Path.cwd()}"
    fatal = found["ray"].pop("fatal")
    assert fatal.startswith(f"fatal: {ATTEMPTS} ")
    check_message(fatal)
    assert found["ray"].pop("once") == "ONCE"
    assert found["ray"] == found["plain"]
    assert found["plain"]["broken-1"] == "broken-1: is broken" and found["plain"]["a"] == "A"
    assert outcomes(cluster, tmp_path, []) == {}


@pytest.mark.slow
def test_what_cannot_be_built_and_defects_end_the_work(cluster: RayExecutor, tmp_path: Path) -> None:
    for engine in both(cluster).values():
        with pytest.raises(UserError, match="no such model"):
            list(engine.run(refused, ["a", "b"]))
    with pytest.raises(RuntimeError, match="ZeroDivisionError: defect"):
        outcomes(cluster, tmp_path, ["defect"])


def refused() -> Worker:
    raise UserError("no such model")


def test_mistakes_are_one_line(expect_error: Callable[..., Any]) -> None:
    pytest.importorskip("ray")
    with expect_error("--device cuda:1: "):
        RayExecutor(device="cuda:1")
    with expect_error("RAY_ADDRESS=127.0.0.1:1: ", hide={os.strerror(errno.ECONNREFUSED): "REASON"}):
        _check_address("127.0.0.1:1")


def test_without_ray(monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with expect_error("--engine ray: "):
        RayExecutor()


@pytest.fixture
def one_thread(set_threads: Callable[[int], None]) -> None:
    """As in workers of Ray: sums of other numbers of threads round otherwise."""
    set_threads(1)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures at two depths, two of which are broken; source.png lies beside the folder."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number, suffix in enumerate(["jpg", "png", "webp", "bmp"]):
        file = folder / ("more" if number % 2 else "") / f"{number}.{suffix}"
        write_image(file.with_suffix(".png"), np.roll(portrait(), number, 1), synthetic=False)
        file.with_suffix(".png").rename(file)
    (folder / "cut.png").write_bytes((folder / "0.jpg").read_bytes()[:900])
    write_image(folder / "noface.png", np.full((90, 90, 3), 128, np.uint8), synthetic=False)
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def swapper(jobs: JobList, killed: Path) -> Worker:
    """A worker that keeps a log, and is killed once, after a file."""
    work = JobWorker(FaceSwapper(FAST_MODEL, "cpu"), jobs)

    def logged(name: str) -> str:
        said = work(name)
        with killed.with_suffix(".log").open("a") as log:
            log.write(f"{name} {said}\n")
        if not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return said

    return logged


@pytest.mark.slow
def test_swaps_of_a_cluster_equal_those_of_one_process(
    cluster: RayExecutor,
    converter: FaceSwapper,
    pictures: Path,
    tmp_path: Path,
    one_thread: None,
    capsys: pytest.CaptureFixture[str],
    errors: Callable[[], list[str]],
    check_message: Callable[..., None],
) -> None:
    sources, plain = tmp_path / "source.png", ProvenanceOptions(provenance=False)

    def swap(out: str, **how: Any) -> int:
        return swap_target(converter, pictures, tmp_path / out, sources, "largest", [], None, plain, **how)

    assert swap("plain") == 2
    *wrong, note = errors()
    assert [line.split(": ")[0] for line in wrong] == [str(pictures / "cut.png"), str(pictures / "noface.png")]
    assert note.startswith(f"{pictures / '0.jpg'} (and 3 more): a head of ")
    made = contents(tmp_path / "plain")
    assert len(made) == 9 and [swap("shares", shard=JobShard(number, 2)) for number in (1, 2)] == [1, 1]
    assert contents(tmp_path / "shares") == made
    assert swap("ray", executor=cluster) == 2
    assert contents(tmp_path / "ray") == made and errors()[-3:] == [*wrong, note]
    (pictures / "0.jpg").write_bytes((pictures / "more" / "1.png").read_bytes())  # another target under this name
    assert swap("ray", executor=cluster) == 2
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("4 of 6 ") and str(tmp_path / "ray") in line and "3 of them" in line
    check_message(line)
    changed = {name for name, content in contents(tmp_path / "ray").items() if content != made[name]}
    assert changed == {"0.jpg", ".fsf-done/0.jpg.sha256"}


@pytest.mark.slow
def test_lists_of_a_cluster_equal_those_of_one_process(
    cluster: RayExecutor,
    converter: FaceSwapper,
    pictures: Path,
    tmp_path: Path,
    one_thread: None,
    errors: Callable[[], list[str]],
) -> None:
    lines = ["0.jpg,0.jpg", "more/1.png,one", "cut.png,two.png", "2.webp,../three.png"]
    table, plain = pictures / "list.csv", ProvenanceOptions(provenance=False)
    table.write_text("source,target,name\n" + "".join(f"../source.png,{line}\n" for line in lines))
    wrong = []
    for name, executor in both(cluster).items():
        assert swap_pairs(converter, table, tmp_path / name, provenance=plain, executor=executor) == 2
        wrong.append(errors())
    *lines, note = wrong[0]
    assert wrong[0] == wrong[1] and [line.split(": ")[:2] for line in lines] == [
        [str(table), f"line {number}"] for number in (4, 5)
    ]
    assert note.startswith(f"{pictures / '0.jpg'} (and 1 more): a head of ")
    made = contents(tmp_path / "plain")
    assert contents(tmp_path / "ray") == made and {"0.jpg", "one.png"} <= made.keys() and len(made) == 4


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing(
    cluster: RayExecutor, converter: FaceSwapper, pictures: Path, tmp_path: Path, one_thread: None
) -> None:
    failed = []
    (tmp_path / "plain").touch()  # where one is killed already
    for name, engine in both(cluster).items():
        assignment = AssignmentFiles("largest", tmp_path / "source.png")
        options = SwapOptions(ProvenanceOptions(provenance=False))
        jobs = target_jobs(pictures, tmp_path / f"out-{name}", assignment, options)
        failed.append(execute(partial(swapper, jobs, tmp_path / name), jobs, {"job": 1}, executor=engine))
    assert failed == [2, 2] and contents(tmp_path / "out-ray") == contents(tmp_path / "out-plain")
    log = sorted((tmp_path / "ray.log").read_text().splitlines())
    assert (tmp_path / "ray").exists() and len(log) == 5  # the file after which it was killed is seen again
    made = {line for line in log if " a head of " in line}  # what the worker says of a file that it makes
    assert len(made) == 4 and sum(line.endswith(" there") for line in log) == 1


@pytest.mark.slow
def test_crops_of_a_cluster_equal_those_of_one_process(
    cluster: RayExecutor,
    pictures: Path,
    tmp_path: Path,
    one_thread: None,
    errors: Callable[[], list[str]],
    check_message: Callable[..., None],
) -> None:
    detector, encoder = part("detectors", "mtcnn").build(), part("identity-encoders", "dlib-resnet").build()
    for network in (detector, encoder):
        network.load()
        network.eval()
    write_image(pictures / "other.png", somebody(), synthetic=False)
    (pictures / "same.png").write_bytes((pictures / "other.png").read_bytes())
    for out, engine in both(cluster).items():
        made = extract([pictures], tmp_path / out, ExtractOptions(smallest=30), detector, encoder, engine=engine)
        assert made == (3, 2, 1)  # others are copies of these
        (said,) = errors()
        assert said.startswith(f"{pictures / 'cut.png'}: ")
        check_message(re.sub(r"(: cannot be read: ).*;", r"\1REASON;", said))  # Pillow's words change with versions
    assert len(contents(tmp_path / "ray")) == 5 and contents(tmp_path / "ray") == contents(tmp_path / "plain")


@pytest.mark.slow
def test_swaps_of_a_cluster_are_signed(
    cluster: RayExecutor, converter: FaceSwapper, pictures: Path, tmp_path: Path, one_thread: None
) -> None:
    sources = tmp_path / "source.png"
    for out, engine in both(cluster).items():
        assert swap_target(converter, pictures, tmp_path / out, sources, "largest", [], executor=engine) == 2
    for name in ("0.jpg", "more/1.png", "2.webp", "more/3.bmp.png"):
        report = verify(tmp_path / "ray" / name)
        assert report.verdict == "intact" and report.xmp and report.watermark is not None and report.ledger
        apart = read_image(tmp_path / "ray" / name).astype(int) - read_image(tmp_path / "plain" / name)
        assert np.abs(apart).mean() < 3  # two watermarks


SOME_MACHINES = """
import os, sys, threading, time
from functools import partial
from pathlib import Path
from ray.cluster_utils import Cluster as Machines
from fsframework.utils.executors import RayExecutor

def slow(folder):
    def work(item):
        time.sleep(0.2)
        (folder / item).touch()
        return ""
    return work

machines = Machines(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
others = [machines.add_node(num_cpus=number) for number in (0, 0, 1)]
os.environ["RAY_ADDRESS"] = machines.address
folder = Path(sys.argv[1])

def lose():
    while len(list(folder.iterdir())) < 12:
        time.sleep(0.05)
    for other in others:
        machines.remove_node(other, allow_graceful=False)

threading.Thread(target=lose).start()
done = [item for item, said in RayExecutor(2, "cpu").run(partial(slow, folder), [str(number) for number in range(60)])]
print(len(done), len(set(done)))
machines.shutdown()
"""


@pytest.mark.slow
def test_machines_that_die_cost_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "made").mkdir()
    (tmp_path / "program.py").write_text(SOME_MACHINES)
    program = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "made")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "60 60"
    assert len(list((tmp_path / "made").iterdir())) == 60
