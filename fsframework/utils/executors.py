"""Who does a long list of items (`--engine`): this process, or the actors of a Ray cluster.

Whatever does an item is expensive to build, since it holds networks, so it is built once for each process. Items are
text, so that they travel; results are files, so that nothing large travels back.
"""

import logging
import os
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from fsframework.core.errors import UserError

Worker = Callable[[str], str]  # does an item, and says something short of it; raises UserError if the item is broken
ItemResult = tuple[str, str | UserError]  # an item, and what was said of it, or what is wrong with it

LARGEST_BLOCK = 16  # items that an actor is given, and that are done again if it dies
BLOCKS_OF_EACH = 50  # that an actor gets at least, as long as there are items: shares stay even, progress is seen
STORE = 2**28  # bytes of a local cluster's shared memory, which by default is a third of all: names and words travel
ATTEMPTS = 3  # workers that an item may kill before it is given up


class Executor(Protocol):
    """Does a list of items, in any order."""

    def run(self, make: Callable[[], Worker], items: Sequence[str]) -> Iterator[ItemResult]:
        """Do all items with what `make` builds, and give each back once it is done.

        An item that is broken stops nothing. Raises UserError if the work cannot be built, or the cluster not be used.
        """
        ...


class SerialExecutor:
    """This process does one item after the other."""

    def run(self, make: Callable[[], Worker], items: Sequence[str]) -> Iterator[ItemResult]:
        """See `Engine.run`."""
        work = make()
        for item in items:
            try:
                yield item, work(item)
            except UserError as error:
                yield item, error


SERIAL = SerialExecutor()


@dataclass(frozen=True)
class RayExecutor:
    """Actors of the Ray cluster that RAY_ADDRESS names, or of one that is started on this machine.

    `make` is pickled, and called by each actor in this process's working folder. What an actor was at when it was
    killed is done again, by it or by another.

    Parameters
    ----------
    workers:
        How many actors; by default as many as the cluster has GPUs, or CPUs if none are used.
    device:
        What networks run on, as torch names it. An actor gets a GPU of its own if this says cuda, or says nothing and
        the cluster has GPUs; a CPU otherwise.
    """

    workers: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if find_spec("ray") is None or find_spec("pyarrow") is None:
            raise UserError("--engine ray: Ray is not installed; try: pip install 'fsframework[ray]'")
        if self.device is not None and self.device.startswith("cuda:"):
            raise UserError(f"--device {self.device}: each worker has one GPU of its own; write --device cuda")

    def run(self, make: Callable[[], Worker], items: Sequence[str]) -> Iterator[ItemResult]:
        """See `Engine.run`."""
        if not items:
            return
        with _connected(self.workers) as ray:
            gpus = int(ray.cluster_resources().get("GPU", 0))
            on_gpu = self.device == "cuda" or (self.device is None and gpus > 0)
            there = gpus if on_gpu else int(ray.cluster_resources().get("CPU", 1))
            size = max(1, min(self.workers or there, len(items)))
            blocks = min(len(items), max(-(-len(items) // LARGEST_BLOCK), size * BLOCKS_OF_EACH))
            rows = [{"number": number, "item": os.fsencode(item)} for number, item in enumerate(items)]
            dataset = ray.data.from_items(rows, override_num_blocks=blocks).map(
                _actor(make, str(Path.cwd()), _attempts(ray)),
                compute=ray.data.ActorPoolStrategy(size=size),
                **({"num_gpus": 1} if on_gpu else {"num_cpus": 1}),
            )
            try:
                for row in dataset.iter_rows():
                    yield items[row["number"]], _said(row["kind"], os.fsdecode(row["text"]))
            except ray.exceptions.RayError as error:
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                line = lines[-1] if lines else type(error).__name__
                raise UserError(f"--engine ray: {line}; run the command again, and it goes on") from error


class _Attempts:
    """How many workers have begun an item and not ended it: an actor, which outlives them."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def begin(self, number: int) -> int:
        self.counts[number] = self.counts.get(number, 0) + 1
        return self.counts[number]

    def end(self, number: int) -> None:
        self.counts.pop(number, None)


def _attempts(ray: Any) -> Any:
    """Such an actor, on the machine of this process: another machine may die, and the work goes on."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(num_cpus=0, scheduling_strategy=here)(_Attempts).remote()


def _actor(make: Callable[[], Worker], folder: str, attempts: Any) -> type:
    """A class that Ray builds in each actor. It never raises: what is wrong is a row like others.

    Names travel as bytes, because those of files need not be text.
    """

    class Actor:
        def __init__(self) -> None:
            self.problem: tuple[str, str] | None = None
            try:
                _go_to(folder)
                self.work = make()
            except UserError as error:
                self.problem = "refused", str(error)
            except Exception:
                self.problem = "defect", traceback.format_exc()

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            kind, text = self.problem or self.do(int(row["number"]), os.fsdecode(row["item"]))
            return {"number": row["number"], "kind": kind, "text": os.fsencode(text)}

        def do(self, number: int, item: str) -> tuple[str, str]:
            import ray

            if ray.get(attempts.begin.remote(number)) > ATTEMPTS:
                why = f"{ATTEMPTS} workers died of it; look at it, and at the memory of the machines"
                return "broken", f"{item}: {why}"
            try:
                found = "done", self.work(item)
            except UserError as error:
                found = "broken", str(error)
            except Exception:
                found = "defect", traceback.format_exc()
            attempts.end.remote(number)
            return found

    return Actor


def _go_to(folder: str) -> None:
    """Work where the process that was asked does, so that paths and messages are the same. Raises UserError."""
    try:
        os.chdir(folder)
    except OSError as error:
        why = f"the worker on {socket.gethostname()} has no such folder: {error.strerror or error}"
        raise UserError(f"{folder}: {why}; use a shared file system") from error


def _said(kind: str, text: str) -> str | UserError:
    """What a row says of its item. Raises what concerns all items."""
    if kind == "refused":
        raise UserError(text)
    if kind == "defect":
        raise RuntimeError(f"a worker failed:\n{text}")
    return UserError(text) if kind == "broken" else text


@contextmanager
def _connected(workers: int | None) -> Iterator[Any]:
    """The module ray, connected to a cluster, and quiet; what Ray prints all the same goes to standard error.

    A cluster that is started here lies on this machine alone and ends with this block.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # problems arrive as exceptions, too
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # of Ray's own old settings
        import ray
        import ray.data

        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        started = not ray.is_initialized()
        if started:
            _start(ray, workers)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        try:
            yield ray
        finally:
            if started:
                ray.shutdown()


def _start(ray: Any, workers: int | None) -> None:
    """Connect to the cluster of the environment, or start one here. Raises UserError if it cannot be used."""
    address = os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": "CRITICAL"}
    if address:
        _check_address(address)
    else:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        settings |= {"num_cpus": max(workers or 1, cpus), "object_store_memory": STORE, "include_dashboard": False}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _muted():  # where it says of itself, past Python, how much it says
            ray.init(**settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        advice = "look whether it runs, and whether it wants RAY_AUTH_MODE=token" if address else "try again"
        raise UserError(f"--engine ray: no cluster at {address or 'this machine'}: {line}; {advice}") from error
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray sets its own


def _check_address(address: str) -> None:
    """Raise UserError, which Ray takes minutes for, if nothing answers at HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if "/" in address or not (colon and port.isdecimal()):
        return  # another form, such as ray://HOST:PORT or auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        advice = "start it by: ray start --head, or leave RAY_ADDRESS out"
        raise UserError(f"RAY_ADDRESS={address}: no cluster answers: {error.strerror or error}; {advice}") from error


@contextmanager
def _muted() -> Iterator[None]:
    """Nothing that libraries write to standard error is seen."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
