"""Fixtures that more than one test file uses."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

if "PYTEST_XDIST_WORKER" in os.environ:  # each of these processes has its share of the cores, and those that it starts
    cores = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by fixtures that start processes as `system`, and those that are neither that nor `slow` as `unit`."""
    for item in items:
        if {"running", "serving", "browser"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("system")
        if not any(item.iter_markers("system")) and not any(item.iter_markers("slow")):
            item.add_marker("unit")


@pytest.fixture(autouse=True)
def no_process_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a unit test that starts a Python process; compilers and git are allowed."""
    if request.node.get_closest_marker("unit") is None:
        return
    start = subprocess.Popen.__init__

    def checked(process: Any, args: Any, *rest: Any, **options: Any) -> None:
        command = args[0] if isinstance(args, list | tuple) else args
        assert str(command) != sys.executable, "this test starts a process: mark it @pytest.mark.system"
        start(process, args, *rest, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", checked)


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder with LFW and weights, beside the checkout or named by FSF_SHARED; without it the test is skipped."""
    folder = Path(os.environ.get("FSF_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the folder {folder} with data/lfw and weights")
    return folder


@pytest.fixture(scope="session", autouse=True)
def torch_by_default() -> Iterator[None]:
    """Hide OpenVINO, by which swaps run where it is installed: converting a model takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        yield


@pytest.fixture(scope="session", autouse=True)
def data_folder_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What swaps leave behind, a certificate and a register, goes where tests go; other processes learn it, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.delenv("FSF_C2PA_CERT", raising=False)
        patch.delenv("FSF_C2PA_KEY", raising=False)
        yield


@pytest.fixture
def errors(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What was said on standard error since it was last asked, without lines of progress, which slow machines show."""
    return lambda: [line for line in capsys.readouterr().err.splitlines() if not re.match(r"[\w ]+: \d+/\d+ ", line)]


@pytest.fixture
def check_message(snapshot: SnapshotAssertion, tmp_path: Path) -> Callable[..., None]:
    """Compare a text for users with the reviewed one in `tests/__snapshots__`; `pytest --snapshot-update` writes it.

    `hide` maps what differs from run to run to a word that stands for it. `tmp_path` is hidden always. With `reason`
    the words of a library in `place: what is wrong: WORDS; what to do` are hidden, which change with its version.
    """

    def check(text: str, hide: Mapping[str, str] | None = None, reason: bool = False) -> None:
        if reason:
            place, wrong, words = text.split(": ", 2)
            text = ": ".join([place, wrong, "; ".join(["REASON", *words.split("; ")[1:][-1:]])])
        for value, word in {str(tmp_path): "TMP", **(hide or {})}.items():
            text = text.replace(value, word)
        text = re.sub(r"swapped in \d+\.\d s", "swapped in N s", text)
        assert text == snapshot

    return check


@pytest.fixture
def expect_error(check_message: Callable[..., None]) -> Callable[..., AbstractContextManager[Any]]:
    """Expect an error for users: its kind and place are asserted here, its text is compared with the reviewed one.

    A message is one line, `place: what is wrong; what to do`. `place` names its beginning: a file without its folder,
    an option, or both (`pairs.csv: line 3`).
    """
    from fsframework.core.errors import UserError

    @contextmanager
    def expect(
        place: str | Path = "", kind: type[Exception] = UserError, hide: Mapping[str, str] | None = None
    ) -> Iterator[pytest.ExceptionInfo[Exception]]:
        with pytest.raises(kind) as caught:
            yield caught
        message = str(caught.value)
        assert caught.type is kind
        assert "\n" not in message
        assert re.match(rf"(\S*/)?{re.escape(str(place))}", message), f"{message!r} does not begin with {place}"
        check_message(message, hide)

    return expect


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """torch's, which has as many as before when the test is over."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def converter() -> Any:
    """A trained converter, on the CPU: the fast model's."""
    from swapping import FAST_MODEL

    from fsframework.inference.face_swapper import FaceSwapper

    return FaceSwapper(FAST_MODEL, "cpu")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Lays a distribution with one plugin on the path, a folder with a dist-info, and returns the plugin's name."""
    from fsframework.core.registry import registry

    monkeypatch.delenv("FSF_BLOCK_PLUGINS", raising=False)
    numbers = itertools.count()
    names = set()

    def lay(source: str, plugin: str | None = None, module: str | None = None) -> str:
        number = next(numbers)
        module = module or f"fsf_try_{tmp_path.name}_{number}"
        folder = tmp_path / str(number)
        (folder / f"try_{number}-1.{number}.dist-info").mkdir(parents=True)
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
        (folder / f"try_{number}-1.{number}.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: try-{number}\nVersion: 1.{number}\n", encoding="utf-8"
        )
        (folder / f"try_{number}-1.{number}.dist-info" / "entry_points.txt").write_text(
            f"[fsframework]\n{plugin or module} = {module}\n", encoding="utf-8"
        )
        monkeypatch.syspath_prepend(str(folder))
        names.add(module)
        registry.cache_clear()
        return plugin or module

    yield lay
    registry.cache_clear()
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def small_recipe() -> Callable[..., Any]:
    """Writes and loads a recipe: FaceShifter at 32 px on ORL, too small to learn, with a step for each stage.

    `refiner` adds HEAR-Net and its stage, `init` starts the first stage from weights, other keys are the recipe's.
    """
    from fsframework.recipe.schema import Recipe
    from fsframework.utils import yaml

    def make(file: Path, refiner: bool = False, init: str | None = None, **keys: Any) -> Recipe:
        uses = {"attributes": "aei-attributes", "generator": "aad-generator"}
        trains = [["attributes", "generator"]]
        if refiner:
            uses["refiner"] = "hear-net"
            trains.append(["refiner"])
        settings = {"losses": [{"use": "reconstruction"}], "optimizer": {"lr": 1e-12}, "steps": 1, "batch_size": 2}
        stages: list[dict[str, Any]] = [
            {"name": name, "train": train, **settings} for name, train in zip(("one", "two"), trains, strict=False)
        ]
        stages[0]["init"] = init
        networks = {name: {"use": use, "width": 0.125} for name, use in uses.items()}
        recipe = {"name": "small", "size": 32, "data": {"use": "orl"}, "stages": stages, **keys}
        recipe["networks"] = {"identity": {"use": "dlib-resnet"}, **networks}
        file.write_text(yaml.dump_yaml(recipe))
        return Recipe.load(str(file))

    return make


@pytest.fixture(scope="session")
def untrained_run(small_recipe: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a run of such a recipe whose stages are finished, with networks as they start from seed 0."""
    import torch

    from fsframework.models.run import Run
    from fsframework.recipe.build import build_swapper

    def make(folder: Path, **settings: Any) -> Run:
        run = Run.open(small_recipe(folder.with_suffix(".yaml"), **settings), folder, device="cpu")
        torch.manual_seed(0)
        parts = dict(build_swapper(run.recipe).trained_parts())
        for stage in run.recipe.stages:
            weights = {f"{n}.{key}": value for n in stage.train for key, value in parts[n].state_dict().items()}
            run.finish(stage, weights)
        return run

    return make


@pytest.fixture(scope="session")
def toy_study() -> Callable[..., Any]:
    """Writes a study of plain pictures, methods a, b, c, ...: so many trials, then so many attention checks."""
    import numpy as np

    from fsframework.web.study.new import Shown, write
    from fsframework.web.study.plan import Method

    def make(folder: Path, methods: int = 3, trials: int = 4, checks: int = 2, seed: int = 0) -> Any:
        def grey(level: int) -> Any:
            return np.full((8, 8, 3), level, np.uint8)

        names = "abcdefghi"[:methods]
        made = [
            Method(name=name, model=name, recipe_sha256="", weights_sha256={}, size=8, known_people=False)
            for name in names
        ]
        shown = [
            Shown((f"s{number}", f"t{number}"), grey(0), grey(255), [(name, grey(number)) for name in names], {})
            for number in range(trials)
        ]
        others = ["source", "target", *["degraded"] * (methods - 2)]
        right = {"identity": [0], "attributes": [1], "realism": [0, 1]}
        shown += [Shown(("s", "t"), grey(0), grey(255), [(other, grey(9)) for other in others], right)] * checks
        return write(folder, made, shown, seed, {"command": "", "evaluation": {}, "manifest": {}})

    return make


@pytest.fixture(scope="session")
def running() -> Callable[..., AbstractContextManager[tuple[str, subprocess.Popen[str]]]]:
    """Runs an `fsf` that serves, with arguments, and stops it: the address that it prints, and its process.

    `main` is the code that is run instead of the command line's.
    """

    @contextmanager
    def run(
        *arguments: str, main: str = "from fsframework.cli.main import main; main()"
    ) -> Iterator[tuple[str, subprocess.Popen[str]]]:
        start = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs start without
            + main
        )
        with subprocess.Popen([sys.executable, "-c", start, *arguments], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                address = next((found[0] for line in process.stdout if (found := re.search(r"http://\S+", line))), None)
                assert address is not None, "the server did not start"
                yield address, process
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise

    return run


@pytest.fixture(scope="session")
def serving(running: Callable[..., Any]) -> Callable[..., AbstractContextManager[tuple[str, subprocess.Popen[str]]]]:
    """Runs `fsf study serve` on a folder, at a free port or a given one, as `running` does."""

    def serve(folder: Path, port: int = 0) -> AbstractContextManager[tuple[str, subprocess.Popen[str]]]:
        started: AbstractContextManager[tuple[str, subprocess.Popen[str]]]
        started = running("study", "serve", str(folder), "--port", str(port))
        return started

    return serve


@pytest.fixture(scope="session")
def browser() -> Callable[..., AbstractContextManager[Any]]:
    """Opens chromium without a window, as on a desk or on a phone, with a profile in a folder."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    metrics = {"width": 360, "height": 740, "pixelRatio": 3.0, "touch": True, "mobile": True}

    @contextmanager
    def opened(profile: Path, phone: bool = False) -> Iterator[Chrome]:
        options = ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        size = "360,740" if phone else "1280,900"
        for setting in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"window-size={size}"):
            options.add_argument(f"--{setting}")
        options.add_argument(f"--user-data-dir={profile}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        if phone:
            options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
        driver = Chrome(options, ChromeService(str(shutil.which("chromedriver"))))
        try:
            yield driver
        finally:
            driver.quit()

    return opened
