"""Executors for `--engine`: run a list of items in this process or on Ray.

A worker is expensive to build, since it holds networks, so each process builds one. Items and return values are short
strings, which are cheap to send. Results are files.
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

Worker = Callable[[str], str]  # processes an item and returns a short text; raises UserError if the item fails
ItemResult = tuple[str, str | UserError]  # an item, and the worker's text or error

MAX_BLOCK = 16  # items sent to an actor at once, which are repeated if it dies
BLOCKS_PER_ACTOR = 50  # minimum number if there are enough items, for balance and frequent progress
STORE = 2**28  # bytes of a local cluster's shared memory (default: a third of all), because only short texts are sent
ATTEMPTS = 3  # worker deaths after which an item fails


class Executor(Protocol):
    """Runs a list of items, in any order."""

    def run(self, make: Callable[[], Worker], items: Sequence[str]) -> Iterator[ItemResult]:
        """Run all items with workers that `make` builds, and yield each result as it completes.

        A failing item does not stop the others. Raises UserError if no worker can be built, or Ray cannot be used.
        """
        ...


class SerialExecutor:
    """Runs one item after the other in this process."""

    def run(self, make: Callable[[], Worker], items: Sequence[str]) -> Iterator[ItemResult]:
        """Run all items and yield their results; see `Executor.run`."""
        worker = make()
        for item in items:
            try:
                yield item, worker(item)
            except UserError as error:
                yield item, error


SERIAL = SerialExecutor()


@dataclass(frozen=True)
class RayExecutor:
    """Runs items by actors of the Ray cluster at RAY_ADDRESS, or of a new local cluster.

    `make` is pickled, and called by each actor in this process's working folder. Items of an actor that was killed are
    repeated.

    Parameters
    ----------
    workers:
        Number of actors; by default the number of the cluster's GPUs, or CPUs if none are used.
    device:
        The torch device of the networks. Each actor gets one GPU if this is cuda, or if it is None and the cluster has
        GPUs; otherwise one CPU.
    """

    workers: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if find_spec("ray") is None or find_spec("pyarrow") is None:
            raise UserError("--engine ray: Ray is not installed; try: pip install 'fsframework[ray]'")
        if self.device is not None and self.device.startswith("cuda:"):
            raise UserError(f"--device {self.device}: each worker has one GPU; write --device cuda")

    def run(self, make: Callable[[], Worker], items: Sequence[str]) -> Iterator[ItemResult]:
        """Run all items and yield their results; see `Executor.run`."""
        if not items:
            return
        with _connected(self.workers) as ray:
            gpus = int(ray.cluster_resources().get("GPU", 0))
            on_gpu = self.device == "cuda" or (self.device is None and gpus > 0)
            available = gpus if on_gpu else int(ray.cluster_resources().get("CPU", 1))
            size = max(1, min(self.workers or available, len(items)))
            blocks = min(len(items), max(-(-len(items) // MAX_BLOCK), size * BLOCKS_PER_ACTOR))
            rows = [{"number": number, "item": os.fsencode(item)} for number, item in enumerate(items)]
            dataset = ray.data.from_items(rows, override_num_blocks=blocks).map(
                _actor(make, str(Path.cwd()), _attempts(ray)),
                compute=ray.data.ActorPoolStrategy(size=size),
                **({"num_gpus": 1} if on_gpu else {"num_cpus": 1}),
            )
            try:
                for row in dataset.iter_rows():
                    yield items[row["number"]], _result(row["kind"], os.fsdecode(row["text"]))
            except ray.exceptions.RayError as error:
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                line = lines[-1] if lines else type(error).__name__
                raise UserError(f"--engine ray: {line}; run the command again to resume") from error


class _Attempts:
    """Counts the workers that died during each item. It is an actor, because it must outlive the workers."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def begin(self, number: int) -> int:
        self.counts[number] = self.counts.get(number, 0) + 1
        return self.counts[number]

    def end(self, number: int) -> None:
        self.counts.pop(number, None)


def _attempts(ray: Any) -> Any:
    """Return an actor of `_Attempts` on the machine of this process, so that it survives failures of other machines."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(num_cpus=0, scheduling_strategy=here)(_Attempts).remote()


def _actor(make: Callable[[], Worker], folder: str, attempts: Any) -> type:
    """Return the class of the actors. It never raises; errors are returned as rows.

    Items are sent as bytes, because file names need not be valid text.
    """

    class Actor:
        def __init__(self) -> None:
            self.problem: tuple[str, str] | None = None
            try:
                _go_to(folder)
                self.worker = make()
            except UserError as error:
                self.problem = "refused", str(error)
            except Exception:
                self.problem = "defect", traceback.format_exc()

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            kind, text = self.problem or self.run(int(row["number"]), os.fsdecode(row["item"]))
            return {"number": row["number"], "kind": kind, "text": os.fsencode(text)}

        def run(self, number: int, item: str) -> tuple[str, str]:
            import ray

            if ray.get(attempts.begin.remote(number)) > ATTEMPTS:
                reason = f"{ATTEMPTS} workers died while processing it; check the file, and the memory of the machines"
                return "broken", f"{item}: {reason}"
            try:
                outcome = "done", self.worker(item)
            except UserError as error:
                outcome = "broken", str(error)
            except Exception:
                outcome = "defect", traceback.format_exc()
            attempts.end.remote(number)
            return outcome

    return Actor


def _go_to(folder: str) -> None:
    """Change to the driver's working folder, so that relative paths are valid. Raise UserError if it is missing."""
    try:
        os.chdir(folder)
    except OSError as error:
        reason = f"the worker on {socket.gethostname()} has no such folder: {error.strerror or error}"
        raise UserError(f"{folder}: {reason}; use a shared file system") from error


def _result(kind: str, text: str) -> str | UserError:
    """Return the result of an item from its row. Raise errors that concern all items."""
    if kind == "refused":
        raise UserError(text)
    if kind == "defect":
        raise RuntimeError(f"a worker failed:\n{text}")
    return UserError(text) if kind == "broken" else text


@contextmanager
def _connected(workers: int | None) -> Iterator[Any]:
    """Yield the module ray, connected to a cluster, with its output suppressed or sent to standard error.

    A cluster that is started here is local and ends with this block.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # problems are raised as exceptions, too
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # deprecations within Ray
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
    """Connect to the cluster at RAY_ADDRESS, or start a local one. Raise UserError if that fails."""
    address = os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": "CRITICAL"}
    if address:
        _check_address(address)
    else:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        settings |= {"num_cpus": max(workers or 1, cpus), "object_store_memory": STORE, "include_dashboard": False}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _muted():  # Ray prints past Python's streams
            ray.init(**settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        advice = "check that it runs, and whether it requires RAY_AUTH_MODE=token" if address else "try again"
        raise UserError(f"--engine ray: no cluster at {address or 'this machine'}: {line}; {advice}") from error
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray replaces the handlers


def _check_address(address: str) -> None:
    """Raise UserError if nothing answers at HOST:PORT, which Ray would report only after minutes."""
    host, colon, port = address.rpartition(":")
    if "/" in address or not (colon and port.isdecimal()):
        return  # another form, such as ray://HOST:PORT or auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        advice = "start it by: ray start --head, or unset RAY_ADDRESS"
        raise UserError(f"RAY_ADDRESS={address}: no cluster answers: {error.strerror or error}; {advice}") from error


@contextmanager
def _muted() -> Iterator[None]:
    """Discard everything written to file descriptor 2 in this block, by native libraries too."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
